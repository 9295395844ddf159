"""Reasoning that the model writes for examples: which attempts are made, and which pieces are kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import WordEncoder
from hypothesis import given
from hypothesis import strategies as st

import promptsearch as ps
from promptsearch.answer_form import AnswerForm
from promptsearch.budget import Meter
from promptsearch.candidate import Candidate
from promptsearch.errors import ContextError
from promptsearch.evaluation import Asker, Evaluator
from promptsearch.lm.fake import ScriptedLM
from promptsearch.prompting import PromptBuilder
from promptsearch.rationales import KEPT, Rationalizer, fate_of
from promptsearch.reasoning import sentences
from promptsearch.run.workbench import demonstrations_of
from promptsearch.store import RunStore

ROWS = [
    {"question": f"What is {left} plus {right}?", "answer": str(left + right)}
    for left in range(10, 40)
    for right in range(1, 6)
]
TASK = ps.Task(ROWS, inputs="question", output="answer", labels=False, metric="numeric")


def numbers_of(prompt: str) -> tuple[int, int]:
    left, right = prompt.rpartition("What is ")[2].partition("?")[0].split(" plus ")
    return int(left), int(right)


def careful(prompt: str) -> str:
    """Writes a sum that ends in its answer, where it is shown how, hinted, or the first number is even."""
    left, right = numbers_of(prompt)
    query = prompt.rpartition("Question:")[2]
    if prompt.endswith("Answer:"):
        steps = query.partition("step by step.")[2] or query.partition("Reasoning:")[2]
        return f" {left + right}" if f"makes {left + right}." in steps else " 0"
    knows = "(The answer is" in query or left % 2 == 0
    return f" We take {left} first. Adding {right} to it makes {left + right if knows else 1}."


class NoMatches:
    """Nothing is retrieved here."""

    def matches(self, reading: Candidate, items: Any) -> Any:
        return [()] * len(items)

    def clusters(self, reading: Candidate, items: Any) -> Any:
        raise AssertionError("nothing is routed here")


def rationalizer(
    reply: Callable[[str], str], task: ps.Task = TASK, store: RunStore | None = None, **options: Any
) -> tuple[Rationalizer, ScriptedLM]:
    lm = ScriptedLM(reply)
    shown = demonstrations_of(task.examples, range(len(task.examples)))
    builder = PromptBuilder(lm, task.inputs, task.output, shown, 16)
    asker = Asker(lm, builder, task.labels, AnswerForm(tokens=8))
    record = RunStore(None, {}) if store is None else store
    evaluator = Evaluator(asker, task.examples, NoMatches(), record, Meter())
    return Rationalizer(evaluator, task.examples, task.require_metric(), Candidate(), 40, **options), lm


def always() -> bool:
    return True


def test_what_leads_to_the_right_answer_is_kept_and_the_rest_is_hinted() -> None:
    made, lm = rationalizer(careful)
    made.run(range(20), always)
    assert made.fates == {KEPT: 20, "wrong answer": 30}  # ten of odd numbers miss three times and land with the hint
    ways = {attempt.number: attempt.way for attempt in made.attempts if attempt.fate == KEPT}
    assert {way for number, way in ways.items() if numbers_of(ROWS[number]["question"])[0] % 2} == {"hinted"}
    assert {way for number, way in ways.items() if not numbers_of(ROWS[number]["question"])[0] % 2} == {"alone"}
    assert all("The answer is" not in text for text in made.kept.values())
    concluded = [prompt for prompt in lm.prompts if prompt.endswith("Answer:")]
    assert concluded
    assert not any("The answer is" in prompt for prompt in concluded)


def test_kept_ones_are_shown_to_later_attempts() -> None:
    made, lm = rationalizer(careful)
    made.run(range(20), always)
    shown = [prompt for prompt in lm.prompts if "Reasoning:" in prompt]
    assert shown
    assert all("makes" in prompt.partition("Reasoning:")[2].partition("\n")[0] for prompt in shown)


def test_doubt_is_the_share_of_misses() -> None:
    made, _ = rationalizer(careful)
    made.run(range(20), always)
    for number, doubt in made.doubt.items():
        assert doubt == (1.0 if numbers_of(ROWS[number]["question"])[0] % 2 else 0.0)


def test_a_share_that_is_spent_ends_it() -> None:
    made, lm = rationalizer(careful)
    made.run(range(20), lambda: False)
    assert {attempt.way for attempt in made.attempts} == {"alone"}
    assert len(lm.prompts) == 40


def test_a_model_that_knows_nothing_leaves_nothing() -> None:
    made, _ = rationalizer(lambda prompt: " no idea at all here." if prompt.endswith("step.") else " 0")
    made.run(range(1, 9), always)
    assert not made.kept
    assert made.doubt == {}


def test_an_example_that_the_model_refuses_as_too_long_leaves_the_others() -> None:
    refused = {2, 3, 11}
    questions = {ROWS[number]["question"] for number in refused}

    def reply(prompt: str) -> str:
        if any(question in prompt.rpartition("Question:")[2] for question in questions):
            raise ContextError("a prompt is too long; shorten it")
        return careful(prompt)

    made, _ = rationalizer(reply)
    made.run(range(20), always)
    assert set(made.kept) == set(range(20)) - refused
    assert {attempt.fate for attempt in made.attempts if attempt.number in refused} == {"wrong answer"}


def test_a_resumed_run_asks_nothing_again(tmp_path: Path) -> None:
    store = RunStore(tmp_path, {})
    first, _ = rationalizer(careful, store=store)
    first.run(range(12), always)
    again, lm = rationalizer(careful, store=store)
    again.run(range(12), always)
    assert again.attempts == first.attempts
    assert not lm.prompts
    store.close()


def test_labels_are_judged_after_the_reasoning() -> None:
    rows = [
        {"text": f"{name} {n}", "label": label} for n in range(8) for name, label in (("owl", "bird"), ("cat", "pet"))
    ]
    task = ps.Task(rows, inputs="text", output="label")

    def reply(prompt: str) -> str:
        if prompt.endswith("Label:"):
            return " bird" if "it flies by itself" in prompt.rpartition("Text:")[2] else " pet"
        return " Well, it flies by itself." if "owl" in prompt.rpartition("Text:")[2] else " Well, it walks at home."

    made, _ = rationalizer(reply, task)
    made.run(range(len(rows)), always)
    assert made.fates == {KEPT: len(rows)}


# -- filters ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "gold", "options", "fate"),
    [
        ("Two bags of three make six in all.", "six", {}, KEPT),
        ("Two bags of three make 6.", "6", {}, KEPT),
        ("Two bags of three make 6. They are red.", "6", {}, "does not end in the answer"),
        ("There are 16 bags here, all red.", "6", {}, "does not end in the answer"),
        ("It is six.", "six", {}, "too short"),
        ("Two bags of three make", "six", {"finished": False}, "not finished"),
        ("The answer is 6. Two bags of three make 6.", "6", {"hinted": True}, "tells the answer at once"),
        ("Each bag holds three. Two bags make 6.", "6", {"hinted": True}, KEPT),
        ("Two bags of three make 6.", "6", {"hinted": True}, KEPT),
        ("Two bags of three make 16.", "6", {"hinted": True}, "does not end in the answer"),
        ("Two bags of three: 2 * 3 = 6", "6", {}, KEPT),
        ("Two bags of three, so x = 6", "x=6", {}, KEPT),
        ("Two parts of five are 2/5", "5", {}, "does not end in the answer"),
        ("a b c d " * 3 + "six.", "six", {}, "repeats itself"),
        (" ".join(f"Step {n} is {n * 7}." for n in range(9)) + " So six.", "six", {}, "too many steps"),
        ("It has wings and it can fly high.", None, {}, KEPT),
    ],
)
def test_filters(text: str, gold: str | None, options: dict[str, bool], fate: str) -> None:
    assert fate_of(text, gold, **{"hinted": False, "finished": True, **options}) == fate


# What SmolLM2-135M wrote for rows of benchmarks.symbolic's "lookup" and answered rightly by: way, text, answer, fate.
RECORDED = (
    ("shown", "stone 2, cup 4. 2 + 4 = 6", "6", "kept"),
    ("shown", "coin 3, pen 1. 3 + 1 = 4", "4", "kept"),
    ("shown", "ring 1, cup 4. 1 + 4 = 5", "5", "kept"),
    ("shown", "book 3. 3 + 3 = 6", "6", "kept"),
    ("shown", "pen 4, bell 2. 4 + 2 = 6", "6", "kept"),
    ("shown", "1 + 2 = 3, coin 1 = coin 2 = 1 + 2 = 3", "3", "kept"),
    (
        "shown",
        "pen 1, key 4, map 3, book 4. What do a pen and a pen cost together?",
        "6",
        "does not end in the answer",
    ),
    ("hinted", "6", "6", "too short"),
    ("hinted", "4", "4", "too short"),
    ("hinted", "3", "3", "too short"),
    ("hinted", "5", "5", "too short"),
)


@pytest.mark.parametrize(("way", "text", "gold", "fate"), RECORDED)
def test_filters_on_recorded_generations(way: str, text: str, gold: str, fate: str) -> None:
    assert fate_of(text, gold, hinted=way == "hinted", finished=True) == fate


@given(st.text(), st.none() | st.text(), st.booleans(), st.booleans())
def test_any_text_has_a_fate(text: str, gold: str | None, hinted: bool, finished: bool) -> None:
    assert fate_of(text, gold, hinted=hinted, finished=finished)
    assert sentences(text)


# -- the search turns reasoning on where it measures better --------------------------------------------------------


def search(reply: Callable[[str], str], **options: Any) -> ps.Result:
    given_: dict[str, Any] = {"encoder": WordEncoder(), "progress": False, "seed": 0, **options}
    return ps.optimize(TASK, ScriptedLM(reply), given_.pop("budget", "3000 evaluations"), **given_)


def shown_how(prompt: str) -> str:
    """Adds only after reasoning, and reasons half of the time unless it is shown how."""
    left, right = numbers_of(prompt)
    query = prompt.rpartition("Question:")[2]
    if prompt.endswith(("Answer:", "A:", "=>", "Label:", "Category:")):
        return f" {left + right}" if f"makes {left + right}." in query else " 0"
    knows = "(The answer is" in query or "makes" in prompt.rpartition("Question:")[0] or left % 2 == 0
    return f" We take {left} first. Adding {right} to it makes {left + right if knows else 1}."


def test_reasoning_that_pays_is_found() -> None:
    result = search(shown_how)
    assert result.prompt.candidate.reasoning == "self"
    assert result.test.value > 0.95
    assert result.against["without_reasoning"].low > 0.5
    assert all(shown.rationale for shown in result.prompt.demonstrations)
    assert result.facts["rationales"][KEPT] > 2
    shown = " ".join(str(result).split())
    assert "reasons as it wrote itself" in shown
    assert "on: +" in shown


def test_reasoning_that_does_not_pay_is_left_out() -> None:
    result = search(
        lambda prompt: f" {sum(numbers_of(prompt))}" if not prompt.endswith("step.") else " Hm, who knows."
    )
    assert not result.prompt.candidate.reasons
    assert "reasoning" in str(result)
    assert "off" in str(result)


def test_written_reasoning_is_used() -> None:
    rows = [
        {**row, "why": f"We take {numbers_of(row['question'])[0]} first. It makes {row['answer']}."} for row in ROWS
    ]
    task = ps.Task(rows, inputs="question", output="answer", labels=False, metric="numeric", rationale="why")
    space = ps.Space(reasoning=("none", "gold"))
    result = ps.optimize(
        task, ScriptedLM(shown_how), "3000 evaluations", encoder=WordEncoder(), progress=False, space=space
    )
    assert result.prompt.candidate.reasoning == "gold"
    assert result.prompt.evaluate(rows[:20]).value > 0.9


def test_a_space_without_reasoning_has_none() -> None:
    result = search(shown_how, space=ps.Space(reasoning=("none",)))
    assert not any(trial.candidate.reasons for trial in result.trials)
    assert result.insights.reasoning is None
    assert "rationales" not in result.facts


def test_a_found_prompt_that_reasons_survives_on_disk(tmp_path: Path) -> None:
    result = search(shown_how)
    items = [row["question"] for row in ROWS[:5]]
    loaded = ps.load(result.prompt.save(tmp_path / "prompt.json"), ScriptedLM(shown_how))
    assert loaded.predict(items) == result.prompt.predict(items)
    assert loaded.render(items[0]) == result.prompt.render(items[0])
    result.report(tmp_path / "report.html")
    assert "makes" in (tmp_path / "report.html").read_text("utf-8")


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    whole = search(shown_how)
    calls = [0]

    def dying(prompt: str) -> str:
        calls[0] += 1
        if calls[0] > 700:
            raise KeyboardInterrupt
        return shown_how(prompt)

    with pytest.raises(KeyboardInterrupt):
        ps.optimize(
            TASK, ScriptedLM(dying), "3000 evaluations", encoder=WordEncoder(), progress=False, run=tmp_path / "run"
        )
    resumed = search(shown_how, run=tmp_path / "run")
    assert resumed.prompt.candidate == whole.prompt.candidate
    assert [trial.to_dict() for trial in resumed.trials] == [trial.to_dict() for trial in whole.trials]


def test_reasoning_that_is_asked_for_and_cannot_be() -> None:
    with pytest.raises(ps.UserError, match="rationale="):
        search(shown_how, space=ps.Space(reasoning=("gold",)))


def test_a_space_that_always_reasons_tries_nothing_else() -> None:
    result = search(shown_how, space=ps.Space(reasoning=("self", "cue")))
    assert all(trial.candidate.reasons for trial in result.trials)
    assert result.prompt.candidate.reasons
