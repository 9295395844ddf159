"""Written answers: which part of a text counts, how long they may be, and where those of several lines end."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from fakes import WordEncoder
from hypothesis import given
from hypothesis import strategies as st

import promptsearch as ps
from promptsearch.answer_form import GENERATED_TOKENS, AnswerForm
from promptsearch.data.answers import number_in
from promptsearch.errors import ArtifactError, DataError, UserError
from promptsearch.lm.fake import ScriptedLM
from promptsearch.metrics import METRICS, reading_answers
from promptsearch.reasoning import is_settled, merged

HASHES = r"####\s*(.+)"


def solved(left: int, right: int) -> str:
    return f"{left} and {right}\nmake {left + right}.\n#### {left + right}"


SUMS = [
    {"question": f"What is {left} plus {right}?", "answer": solved(left, right)}
    for left in range(1, 9)
    for right in range(1, 8)
]


def sums(**options: Any) -> ps.Task:
    return ps.Task(SUMS, inputs="question", output="answer", **{"answer": HASHES, **options})


def adding(prompt: str) -> str:
    """Adds in the manner that it is shown; without demonstrations it says something else."""
    question = prompt.rpartition("What is ")[2]
    left, right = map(int, re.findall(r"\d+", question)[:2])
    opening = re.search(r"\S*What is 1 plus", prompt)
    if "####" not in prompt:
        return " I can't tell."
    return f" {solved(left, right)}\n\n{(opening[0] if opening else 'Question: What is')} more"


# -- what counts ------------------------------------------------------------------------------------------


def test_the_last_match_counts_or_its_group() -> None:
    assert AnswerForm(pattern=r"\d+").find("3, then 4 more") == "4"
    assert AnswerForm(pattern=HASHES).find("#### 3\nno: ####  5 \n") == "5"
    assert AnswerForm(pattern=r"is (\w+)|(\d+)").find("it is so, 5") == "so"  # the last match has no first group
    for pattern in (".*", "(?s).*", r"(\w*)", "(?: \\w+)?(.*)"):
        assert AnswerForm(pattern=pattern).find("5") == "5"  # matches of nothing do not count
        assert AnswerForm(pattern=pattern).find("\n") is None
    assert AnswerForm(pattern=HASHES).find("no mark") is None
    assert AnswerForm().find(" as it is ") == " as it is "


@given(st.text(), st.sampled_from([r"\d+", r"(\w)(\w)?", r"(?m)^$", r"a|(b)", r"(?s).*", r"\s"]))
def test_what_is_found_stands_in_the_text(text: str, pattern: str) -> None:
    found = AnswerForm(pattern=pattern).find(text)
    every = [(match[match.re.groups and 1] or "").strip() for match in re.finditer(pattern, text)]
    assert found == next((answer for answer in reversed(every) if answer), None)


@given(st.lists(st.text(min_size=1), min_size=1))
def test_every_expected_answer_has_room(outputs: list[str]) -> None:
    form = AnswerForm.of(outputs)
    assert form.tokens >= max(GENERATED_TOKENS, *(len(output) / 2 for output in outputs))
    assert AnswerForm.of(["12" * 99]).tokens == 198  # a tokenizer may split every digit
    assert form.lines == (sum("\n" in output for output in outputs) > 0.02 * len(outputs))
    assert AnswerForm.from_json(json.loads(json.dumps(form.to_json()))) == form


def test_a_stray_output_decides_nothing() -> None:
    outputs = ["Paris"] * 200 + ["x" * 4000] + ["Rome\nand Milan"]
    assert AnswerForm.of(outputs) == AnswerForm()
    assert AnswerForm.of(outputs[150:]).lines is False
    assert AnswerForm.of(["one\ntwo"] * 3 + ["one"] * 97).lines


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_answers_get_a_quarter_of_the_context(tokens: int, context: int) -> None:
    given = AnswerForm(tokens=tokens).tokens_within(context)
    assert 1 <= given <= tokens
    assert given <= max(GENERATED_TOKENS, context // 4)


def test_metrics_read_both_sides() -> None:
    task = sums()
    assert task.metric_name == "numeric"
    metric = task.require_metric()
    example = task.examples[0]
    assert example.output == solved(1, 1)
    assert metric(example, "whatever\n#### 2") == 1.0
    assert metric(example, "2") == 0.0
    assert metric.understands("#### 2")
    assert not metric.understands("2")
    assert not metric.understands("#### two")


@given(st.text(), st.text())
def test_a_metric_of_whole_texts_is_the_metric(gold: str, said: str) -> None:
    example = ps.Example(0, (("text", "x"),), gold, gold)
    for metric in METRICS.values():
        whole = reading_answers(metric, lambda text: text)
        assert whole(example, said) == metric(example, said)
        assert whole.understands(said) == metric.understands(said)


def test_a_callable_is_given_the_row_and_the_answer() -> None:
    asked = []

    def metric(example: ps.Example, prediction: str) -> float:
        asked.append((example.output, prediction))
        return float(number_in(prediction) == number_in(example.output))

    task = sums(metric=metric)
    assert asked == [("2", "2")]
    assert task.require_metric()(task.examples[0], "no answer") == 0.0


def test_rows_without_an_answer_are_refused_and_metrics_wrapped_once() -> None:
    prompt = ps.Prompt(sums(), SUMS[:2], ScriptedLM(adding))
    bare = {"question": "What is 2 plus 3?", "answer": "5"}
    with pytest.raises(DataError, match="finds no answer in 1 of 3 outputs, the first of them number 2, '5'"):
        prompt.evaluate([SUMS[20], bare, SUMS[21]])
    assert prompt.evaluate(SUMS[20:25], metric=sums().require_metric()).value == 1.0


def test_samples_vote_by_what_counts() -> None:
    read = AnswerForm(pattern=HASHES)
    said = ["so #### 5", "in short #### 6", "thus #### 5"]
    assert merged(said, lambda text: read.find(text) or text) == "so #### 5"
    assert is_settled(said[::2], 3, lambda text: read.find(text) or text)
    assert not is_settled(said[::2], 3)


# -- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"answer": "("}, "no regular expression"),
        ({"answer": ""}, "no regular expression"),
        ({"answer": 5}, "no regular expression"),
        ({"answer": "a{99999999999999999999}"}, "no regular expression"),
        ({"answer": "(" * 5000 + ")" * 5000}, "no regular expression"),
        ({"answer": "=> (.+)"}, "finds no answer in 56 of 56 outputs"),
        ({"labels": ["a", "b"]}, "makes the output a label"),
    ],
)
def test_one_line_says_what_is_wrong(options: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        sums(**options)
    assert "\n" not in str(caught.value)


def test_a_saved_form_is_checked() -> None:
    spec = sums().to_spec()
    for form in ({**spec["answer"], "pattern": "("}, {**spec["answer"], "tokens": 0}, {"tokens": 3}, [1]):
        with pytest.raises(ArtifactError):
            ps.Task.from_spec({**spec, "answer": form})
    assert ps.Task.from_spec({**spec, "answer": None}).answer_form == AnswerForm()


# -- prompts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", ["fields", "answer", "bare", "question", "lines", "rules"])
def test_answers_of_several_lines_end_where_the_next_item_would_begin(template: str) -> None:
    shown = [SUMS[0], SUMS[9]]

    def reply(prompt: str) -> str:
        between = prompt.partition("#### 2")[2].partition("What is")[0]  # from one item's answer to the next text
        left, right = map(int, re.findall(r"\d+", prompt.rpartition("What is ")[2]))
        return f" {solved(left, right)}{between}What is 7 plus 9?\nAnswer: #### 16"

    prompt = ps.Prompt(sums(), shown, ScriptedLM(reply), template=template)
    said = prompt("What is 20 plus 3?")
    assert (said.output, said.text) == ("23", solved(20, 3))
    assert prompt.evaluate(SUMS[20:30]).value == 1.0


def test_a_template_in_which_answers_would_not_end_is_refused() -> None:
    with pytest.raises(UserError, match="template='arrow' ends an answer"):
        ps.Prompt(sums(), SUMS[:2], ScriptedLM(adding), template="arrow")


def test_one_line_ends_with_the_line() -> None:
    rows = [{"question": row["question"], "answer": row["answer"].partition("\n")[0]} for row in SUMS]
    task = ps.Task(rows, inputs="question", output="answer", labels=False)
    lm = ScriptedLM(lambda prompt: " 3 and 4\nmake 7.")
    assert ps.Prompt(task, rows[:2], lm)("What is 3 plus 4?").output == "3 and 4"


def test_an_answer_that_is_not_there_is_not_understood() -> None:
    prompt = ps.Prompt(sums(), (), ScriptedLM(lambda text: " I can't tell."))
    said = prompt("What is 3 plus 4?")
    assert (said.output, said.failure) == (None, "not understood")
    assert prompt.evaluate(SUMS[:5]).failures == (("not understood", 5),)


def test_a_saved_prompt_reads_alike(tmp_path: Path) -> None:
    lm = ScriptedLM(adding)
    prompt = ps.Prompt(sums(), SUMS[:2], lm)
    prompt.save(tmp_path / "prompt.json")
    loaded = ps.load(tmp_path / "prompt.json", model=lm)
    assert loaded.task.answer_form == prompt.task.answer_form
    assert loaded("What is 20 plus 3?") == prompt("What is 20 plus 3?")
    assert loaded.evaluate(SUMS[20:30], metric="exact_match").value == 1.0


def test_templates_in_which_an_answer_would_not_end_are_left_out() -> None:
    result = ps.optimize(
        sums(),
        ScriptedLM(adding),
        budget="600 evaluations",
        encoder=WordEncoder(),
        space=ps.Space(modes=("static",)),
        progress=False,
    )
    assert result.test.value == 1.0
    assert any("nothing that could be read" in note for note in result.notes)
    tried = {trial.candidate.template for trial in result.trials}
    assert "arrow" not in tried  # it puts items on lines of their own, as these answers have
    with pytest.raises(DataError, match="several lines"):
        ps.optimize(
            sums(),
            ScriptedLM(adding),
            budget="600 evaluations",
            encoder=WordEncoder(),
            space=ps.Space(modes=("static",), templates=("arrow",)),
            progress=False,
        )
