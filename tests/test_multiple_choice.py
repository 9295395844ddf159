"""Multiple choice: options found in items, asked for by their own texts, and the whole way to a saved prompt."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import WordEncoder
from hypothesis import given
from hypothesis import strategies as st

import promptsearch as ps
from promptsearch.candidate import Candidate
from promptsearch.errors import ArtifactError, DataError, UserError
from promptsearch.events import Note
from promptsearch.lm.base import Completion, FloatArray, GenerationParams, score_each
from promptsearch.lm.fake import FakeLM, ScriptedLM
from promptsearch.lm.llamacpp.engine import LlamaEngine
from promptsearch.multiple_choice import MultipleChoice, find_multiple_choice
from promptsearch.prompting import PromptBuilder
from promptsearch.search.space import Space
from promptsearch.template import OPTION_TEMPLATES, TEMPLATES, Demonstration
from tests.test_cli import run

ABC = MultipleChoice(("A", "B", "C"))

# -- finding options ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "question", "options"),
    [
        ("Where?\nOptions:\n(A) here\n(B) there\n(C) nowhere", "Where?", ("here", "there", "nowhere")),
        ("Where?\nA. here\nB. there\nC. nowhere", "Where?", ("here", "there", "nowhere")),
        ("Where? (A) here (B) there (C) nowhere at all", "Where?", ("here", "there", "nowhere at all")),
        ("Where?\nAnswer choices:\nA) he\nre\nB) there\nC) nowhere", "Where?", ("he\nre", "there", "nowhere")),
        ("Where?\nA. here\nB. there\nC. nowhere\nAnswer:", "Where?", ("here", "there", "nowhere")),
        ("Where?\nC. here\nA. there\nB. nowhere", "Where?", ("there", "nowhere", "here")),
        (
            "Which? (A) vitamin A: retinol (B) zinc (C) hepatitis C: no",
            "Which?",
            ("vitamin A: retinol", "zinc", "hepatitis C: no"),
        ),
        (
            "The word is happy.\nIts opposite:\n- A: sad\n- B: glad\n- C: mad",
            "The word is happy.\nIts opposite:",
            ("sad", "glad", "mad"),
        ),
        ("钱在哪里？\n选项：\n（A）银行\n（B）学校\n（C）公园", "钱在哪里？", ("银行", "学校", "公园")),
        ("Who wrote:\n[A] he\n[B] she\n[C] they", "Who wrote:", ("he", "she", "they")),
        ("Is plan A: good?\nA: yes\nB: no\nC: maybe", "Is plan A: good?", ("yes", "no", "maybe")),
        ("Name: Jo\nWhat is it?\n(A) a (B) b (C) c", "Name: Jo\nWhat is it?", ("a", "b", "c")),
    ],
)
def test_options_are_found(text: str, question: str, options: tuple[str, ...]) -> None:
    found = ABC.find({"text": text})
    assert found is not None
    assert (found.inputs["text"], found.options) == (question, options)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Where?",
        "A. here B. there",
        "(A) x (B) y (C) z",
        "Options: (A) x (B) y (C) z\nPassage: long",
        "Q (A) (B) y (C) z",
        "Q (A) x (A) y (B) y (C) z",
        "Q (A) x B. y (C) z",
    ],
)
def test_an_item_is_never_half_understood(text: str) -> None:
    assert ABC.find({"text": text}) is None
    with pytest.raises(DataError, match="lists no option"):
        ABC.require({"text": text})


words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp")), min_size=1)
plain = st.lists(words.filter(lambda word: not any(mark in word for mark in ").]:([")), min_size=1).map(" ".join)


@given(plain, st.lists(plain, min_size=2, max_size=5), st.sampled_from(["({}) ", "{}. ", "[{}] ", "{}: "]))
def test_what_was_listed_is_found(question: str, options: list[str], mark: str) -> None:
    labels = "ABCDE"[: len(options)]
    lines = [mark.format(label) + option for label, option in zip(labels, options, strict=True)]
    found = MultipleChoice(tuple(labels)).find({"q": "\n".join([question, *lines])})
    assert found is not None
    assert found.options == tuple(option.strip() for option in options)
    assert found.inputs["q"] == question.strip()


@given(st.text())
def test_any_text_is_understood_or_refused(text: str) -> None:
    found = ABC.find({"text": text})
    if found is not None:
        assert found.inputs["text"].strip() in text
        assert all(option and option in text for option in found.options)


def test_columns_named_like_labels() -> None:
    found = ABC.require({"question": "Where?", "A": "here ", "B": "there", "C": "nowhere"})
    assert (dict(found.inputs), found.options) == ({"question": "Where?"}, ("here", "there", "nowhere"))
    assert ABC.find({"A": "here", "B": "there", "C": "nowhere"}) is None


def test_which_tasks_are_multiple_choice() -> None:
    items = [{"text": "Where? (A) a (B) b"}, {"text": "When? (A) c (B) d"}]
    assert find_multiple_choice(["A", "B"], items) == MultipleChoice(("A", "B"))
    assert find_multiple_choice(["A", "B"], [*items, {"text": "Why?"}]) is None
    assert find_multiple_choice(["good", "bad"], items) is None
    assert find_multiple_choice(None, items) is None


# -- scoring each prompt's own answers ----------------------------------------------------------------------


def test_each_prompt_is_scored_as_alone(exact_engine: LlamaEngine) -> None:
    """Against the engine's own scores of one prompt at a time; shared beginnings, answers within answers, equals."""
    opening = "Facts about animals.\n" + "".join(f"Question: what is {n}?\nAnswer: a number\n\n" for n in range(12))
    prompts = [f"{opening}Question: {text}\nAnswer:" for text in ("Where do cats sleep?", "", "What do cows eat?")]
    prompts.append("Short:")
    answers = [
        [" on the sofa", " on the sofa at night", " on"],
        [" on the sofa", " on the sofa at night", " on"],
        [" grass", " meat", " grass"],
        [" yes"],
    ]
    found = exact_engine.score_each(prompts, answers)
    for prompt, texts, scores in zip(prompts, answers, found, strict=True):
        for text, score in zip(texts, scores.tolist(), strict=True):
            alone = float(exact_engine.score([prompt], [text])[0, 0])
            assert score == pytest.approx(alone, abs=0.02)  # batches of other sizes round in another way
    assert found[2][0] == found[2][2]


def test_what_is_shared_is_decoded_once(exact_engine: LlamaEngine) -> None:
    prompts = ["One two three four five six seven eight:", "One two three four five six seven nine:"]
    before = exact_engine.tokens_decoded
    exact_engine.score_each(prompts, [[" a b c", " a b d"], [" a"]])
    decoded = exact_engine.tokens_decoded - before
    count = exact_engine.count_tokens(prompts)
    assert decoded <= count[0] + 2 + 2  # the second prompt's last tokens, and "a b" once


def test_nothing_to_score(exact_engine: LlamaEngine) -> None:
    assert exact_engine.score_each([], []) == []
    with pytest.raises(DataError, match="no tokens"):
        exact_engine.score_each(["a"], [[""]])


def test_a_model_without_it_is_asked_one_by_one() -> None:
    lm = FakeLM()
    found = score_each(lm, ["p", "q"], [["a", "b", "a"], ["c", "d", "e"]])
    assert found[0].tolist() == lm.score(["p"], ["a", "b"])[0][[0, 1, 0]].tolist()
    assert found[1].tolist() == lm.score(["q"], ["c", "d", "e"])[0].tolist()


# -- prompts ------------------------------------------------------------------------------------------------

SHOWN = {
    0: Demonstration({"text": "Where do fish live?\nOptions:\n(A) water\n(B) air\n(C) fire"}, "A"),
    1: Demonstration({"text": "What is hot?\nOptions:\n(A) ice\n(B) rain\n(C) fire"}, "C"),
}
ITEM = {"text": "What is cold?\nOptions:\n(A) lava\n(B) snow\n(C) steam"}


def builder(listed: MultipleChoice | None = ABC) -> PromptBuilder:
    return PromptBuilder(FakeLM(), ["text"], "label", SHOWN, 3, listed)


def test_options_are_answers_and_not_shown() -> None:
    made = builder().build(Candidate("Think.", "options-question", demonstrations=(0, 1)), ITEM)
    head = "Think.\n\nQuestion: Where do fish live?\nAnswer: water\n\nQuestion: What is hot?\nAnswer: fire\n\n"
    assert made.prompt == f"{head}Question: What is cold?\nAnswer:"
    assert made.premise == f"{head}Question: \nAnswer:"
    assert made.options == (" lava", " snow", " steam")
    assert made.prompt is not None
    assert made.prompt[: made.prompt.shared] == f"{head}Question: "
    found = builder().build(Candidate("", "options", mode="retrieved", count=1), ITEM, [1])
    assert found.prompt == "Text: What is hot?\nLabel: fire\n\nText: What is cold?\nLabel:"


def test_an_item_without_options() -> None:
    for mode in ("static", "retrieved"):
        made = builder().build(Candidate("", "options", mode=mode), {"text": "What is cold?"}, [0])
        assert (made.prompt, made.unlisted) == (None, True)
    with pytest.raises(DataError, match="lists no option for each of the labels"):
        builder().render(Candidate("", "options"), (), {"text": "What is cold?"})
    with pytest.raises(UserError, match="needs items that list them"):
        builder(None).render(Candidate("", "options"), (), ITEM)


# -- the whole way ------------------------------------------------------------------------------------------

THINGS = ("bank", "river", "forest", "kitchen", "school", "garden", "station", "museum", "harbour", "office")


class KnowsTexts:
    """A model that cannot pick letters and finds the right text likelier, the more so the more it is shown."""

    def __init__(self, right: Mapping[str, str]) -> None:
        self.right = right

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> FloatArray:
        scores = np.full((len(prompts), len(continuations)), -3.0)
        for row, prompt in enumerate(prompts):
            question = next((text for text in self.right if prompt.rfind(text) > prompt.rfind("\n\n")), "")
            for column, text in enumerate(continuations):
                scores[row, column] += 0.1 * (len(text) % 3)
                if text.strip() == self.right.get(question):
                    scores[row, column] += 0.5 + 0.1 * prompt.count("\n\n")
        return scores

    def generate(self, prompts: Sequence[str], params: GenerationParams) -> list[Completion]:
        return [Completion("A", 1, "stop") for _ in prompts]


def rows(count: int) -> list[dict[str, str]]:
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        options = [f"{THINGS[place]}" for place in rng.permutation(len(THINGS))[:3]]
        listed = "\n".join(f"({label}) {option}" for label, option in zip("ABC", options, strict=True))
        found.append({"text": f"Riddle {number}?\nOptions:\n{listed}", "label": "ABC"[int(rng.integers(3))]})
    return found


def task_and_model(count: int = 200) -> tuple[ps.Task, KnowsTexts]:
    made = rows(count)
    right = {}
    for row in made:
        listed = ABC.require({"text": row["text"]})
        right[listed.inputs["text"]] = listed.options["ABC".index(row["label"])]
    return ps.Task(made, inputs="text", output="label"), KnowsTexts(right)


def test_a_search_asks_for_the_texts_of_options(tmp_path: Path) -> None:
    task, lm = task_and_model()
    options: dict[str, Any] = {"encoder": WordEncoder(), "progress": False, "space": Space(prior=False)}
    result = ps.optimize(task, lm, "2500 evaluations", run=tmp_path / "run", **options)
    assert TEMPLATES[result.prompt.candidate.template].scores_options
    assert result.prompt.candidate.calibration == "none"
    assert result.test.value > 0.9
    assert result.baselines["zero_shot"].value < 0.7
    assert {"zero_shot_options", "random_options"} <= set(result.baselines)
    assert "zero_shot_options_calibrated" not in result.baselines
    assert "texts of options" in str(result)
    again = ps.optimize(task, lm, "2500 evaluations", run=tmp_path / "run", **options)
    assert again.prompt.candidate == result.prompt.candidate
    assert again.test == result.test

    path = tmp_path / "prompt.json"
    result.prompt.save(path)
    loaded = ps.load(path, model=lm, encoder=WordEncoder())
    queries = [row["text"] for row in rows(210)[200:]]
    assert loaded.predict(queries) == result.prompt.predict(queries)
    bare = loaded.predict([queries[0], "Riddle without options?"])
    assert bare[0] == loaded(queries[0])
    assert (bare[1].output, bare[1].failure) == (None, "not understood")
    assert "<A>" not in loaded.render(queries[0])
    assert ps.export(loaded)

    document = json.loads(path.read_text("utf-8"))
    for example in document["examples"]:
        example["inputs"]["text"] = "bare"
    path.write_text(json.dumps(document), encoding="utf-8")
    if document["examples"]:
        with pytest.raises(ArtifactError, match="its examples list none"):
            ps.load(path, model=lm, encoder=WordEncoder())


def test_templates_that_score_options_need_them() -> None:
    task = ps.Task([{"text": f"t{n}", "label": "ab"[n % 2]} for n in range(60)], inputs="text", output="label")
    with pytest.raises(DataError, match="the rows list none"):
        ps.optimize(
            task,
            FakeLM(),
            "500 evaluations",
            encoder=WordEncoder(),
            progress=False,
            space=Space(templates=("options",)),
        )


def test_by_hand() -> None:
    task, lm = task_and_model()
    prompt = ps.Prompt(task, task.examples[:4], lm, template="options")
    assert prompt.evaluate(task.examples[4:60]).value > 0.9
    with pytest.raises(UserError, match="scores options"):
        ps.Prompt(task, (), lm, template="options", reasoning="cue")
    with pytest.raises(UserError, match="list no options"):
        ps.Prompt(task, (), lm, template="options", calibration="contextual")
    words = ps.Task(
        [{"text": f"t{n}", "label": ["bad", "good"][n % 2]} for n in range(60)], inputs="text", output="label"
    )
    with pytest.raises(UserError, match="not all rows list one"):
        ps.Prompt(words, (), lm, template="options")
    assert all(TEMPLATES[template.name].premise_weight is not None for template in OPTION_TEMPLATES)


def test_models_that_only_write_are_asked_for_letters() -> None:
    task, _ = task_and_model()
    result = ps.optimize(
        task, ScriptedLM(lambda prompt: "A"), "900 evaluations", encoder=WordEncoder(), progress=False
    )
    assert not any(TEMPLATES[trial.candidate.template].scores_options for trial in result.trials)
    assert "zero_shot_options" not in result.baselines


def test_scores_that_are_no_numbers_are_no_answers() -> None:
    class Refuses(KnowsTexts):
        def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> FloatArray:
            return np.full((len(prompts), len(continuations)), -np.inf)

    task, lm = task_and_model(60)
    measured = ps.Prompt(task, (), Refuses(lm.right), template="options").evaluate(task.examples[:20])
    assert (measured.value, dict(measured.failures)) == (0.0, {"not understood": 20})


@pytest.mark.parametrize("most", [10, 100])
def test_rows_that_list_options_now_and_then_are_told_of(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as some pool rows tell: looking at all takes minutes where there are many."""
    monkeypatch.setattr("promptsearch.run.preparation._LOOKED_FOR_OPTIONS", most)
    made = [*rows(100), *({"text": f"Bare {number}?", "label": "ABC"[number % 3]} for number in range(20))]
    task = ps.Task(made, inputs="text", output="label")
    pool = [task.examples[number].text for number in task.split(0).pool]
    notes: list[str] = []
    ps.optimize(
        task,
        FakeLM(),
        "500 evaluations",
        encoder=WordEncoder(),
        progress=lambda event: notes.append(event.text) if isinstance(event, Note) else None,
    )
    (told,) = (note for note in notes if "list options" in note)
    count, looked = map(int, re.findall(r"\d+", told))
    assert looked == min(most, len(pool))
    assert looked // 2 < count <= looked
    if looked == len(pool):
        assert count == sum(not text.startswith("Bare") for text in pool)


def test_the_packaged_model_with_its_prefix_state(model_file: Path, tmp_path: Path) -> None:
    """From the terminal: a prompt that scores options is shown without an item, and its beginning is kept."""
    task, _ = task_and_model(60)
    prompt = ps.Prompt(task, task.examples[:6], str(model_file), template="options-question", weights="as-is")
    path = tmp_path / "prompt.json"
    prompt.save(path, prefix_state=True)
    assert path.with_suffix(".prefix").is_file()
    again = ps.load(path)
    assert again.predict([task.examples[7].text]) == prompt.predict([task.examples[7].text])
    ran = run("show", path)
    assert ran.code == 0
    assert "Question: <text>\nAnswer:" in ran.out
    assert ran.err == "scored after it: <A> | <B> | <C>\n"
    assert run("show", path, "--json").json["options"] == ["<A>", "<B>", "<C>"]
