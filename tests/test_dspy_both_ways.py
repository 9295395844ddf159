"""README's quick start, tasks of DSPy examples, and prompts as texts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import pytest
from fakes import model, task

import promptsearch as ps
from promptsearch.embed.transformer import TransformerEncoder
from promptsearch.errors import DataError
from promptsearch.lm.fake import FakeLM
from promptsearch.lm.llamacpp.engine import LlamaEngine
from promptsearch.lm.resolve import OpenedModel

dspy = pytest.importorskip("dspy")

README = Path(__file__).parent.parent / "README.md"


def test_the_quick_start(
    engine: LlamaEngine, encoder: TransformerEncoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As README has it, on fewer rows and in fewer runs, with model and encoder that are open already."""
    found = re.search(r"<!-- dspy -->\n```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    assert found is not None
    code = found[1].replace("[:200]", "[:40]").replace("num_candidate_programs=10", "num_candidate_programs=4")
    for opens in ("demo_search.resolve_encoder", "library.saved_encoder"):
        monkeypatch.setattr(f"promptsearch.dspy.{opens}", lambda given: encoder)
    monkeypatch.setattr("promptsearch.dspy.engine.open_engine", lambda *given: OpenedModel(engine, "smollm2-135m"))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    try:
        exec(compile(code, "README", "exec", dont_inherit=True), names)
        program = names["optimized_program"]
        assert program.validation.n == 10
        assert len(program.demos) + (0 if program.library is None else program.library.count) <= 4
        loaded = ps.dspy.load(tmp_path / "program.json", dspy.Predict(names["Route"]))
        for row in names["rows"][40:44]:
            ours, theirs = program(text=row.text), loaded(text=row.text)
            assert ours.team == theirs.team
            assert ours.probabilities == pytest.approx(theirs.probabilities, abs=0.02)
    finally:
        dspy.settings.configure(lm=None)


# -- tasks ----------------------------------------------------------------------------------------------------------


class Grade(dspy.Signature):  # type: ignore[misc]
    """Say whether it is bad or good."""

    text: str = dspy.InputField()
    label: Literal["bad", "good"] = dspy.OutputField()


def rows(count: int = 12, **more: Any) -> list[Any]:
    return [
        dspy.Example(text=f"text {number}", label="good" if number % 2 else "bad", **more).with_inputs("text")
        for number in range(count)
    ]


def test_a_task_of_examples() -> None:
    made = ps.Task.from_dspy(rows(), Grade)
    assert (made.inputs, made.output, made.labels) == (("text",), "label", ("bad", "good"))
    assert made.instructions == ("Say whether it is bad or good.",)
    assert [example.output for example in made.examples[:2]] == ["bad", "good"]
    assert ps.Task.from_dspy(rows(), dspy.Predict(Grade)).labels == made.labels
    assert ps.Task.from_dspy(rows(), "text -> label").instructions == ()


def test_reasoning_becomes_the_rationale() -> None:
    made = ps.Task.from_dspy(rows(reasoning="It is so."), dspy.ChainOfThought(Grade))
    assert made.rationale == "reasoning"
    assert made.examples[0].rationale == "It is so."
    assert ps.Task.from_dspy(rows(), dspy.ChainOfThought(Grade)).rationale is None


def test_numbers_and_options() -> None:
    numbered = [dspy.Example(text=f"{n} eggs", total=n).with_inputs("text") for n in range(12)]
    made = ps.Task.from_dspy(numbered, "text -> total: int")
    assert (made.labels, made.metric_name) == (None, "numeric")
    assert ps.Task.from_dspy(numbered, "text -> total: int", metric="exact_match").metric_name == "exact_match"


def test_examples_that_make_no_task() -> None:
    with pytest.raises(DataError, match="row 12 of the trainset lacks 'label'"):
        ps.Task.from_dspy([*rows(), dspy.Example(text="x").with_inputs("text")], Grade)
    with pytest.raises(DataError, match="the outputs label, colour"):
        ps.Task.from_dspy(rows(), "text -> label, colour")
    with pytest.raises(DataError, match="is no signature"):
        ps.Task.from_dspy(rows(), dspy.Predict)


def test_there_and_back() -> None:
    """A prompt found for a task of examples predicts the same as a DSPy module."""
    of = task()
    prompt = ps.Prompt(of, of.examples[:4], model(of))
    module = prompt.to_dspy()
    texts = [example.text for example in of.examples[4:10]]
    assert [module(text=text).label for text in texts] == [each.output for each in prompt.predict(texts)]


# -- texts --------------------------------------------------------------------------------------------------------


def test_a_program_as_texts() -> None:
    program = ps.dspy.Predict(Grade)
    program.demos = rows(2)
    exported = ps.export(program)
    assert [each.name for each in exported] == ["self"]
    assert str(exported[0]).endswith("Text: text 1\nLabel: good\n\nText: {text}\nLabel:")
    assert exported[0].messages == ({"role": "user", "content": exported[0].text},)
    assert ps.export(program, text="mine")[0].text.endswith("Text: mine\nLabel:")


def test_the_text_is_what_is_asked() -> None:
    lm = ps.dspy.lm(FakeLM({"mine": "good"}), cache=False)
    program = ps.dspy.Predict(Grade)
    program.demos = rows(2)
    with dspy.context(lm=lm):
        program(text="mine")
        plain = dspy.Predict(Grade)
        exported = ps.export(plain, text="mine")[0]
    assert lm.history[-1]["messages"][0]["content"] == ps.export(program, text="mine")[0].text
    assert "[[ ## label ## ]]" in exported.text
    assert [message["role"] for message in exported.messages] == ["system", "user"]


def test_a_prompt_as_text() -> None:
    of = task()
    prompt = ps.Prompt(of, of.examples[:2], model(of))
    exported = ps.export(prompt, text="mine")[0]
    assert exported.text == prompt.render("mine")
    assert list(exported.messages) == prompt.messages("mine")


def test_inputs_that_no_predictor_takes() -> None:
    with pytest.raises(DataError, match="no predictor takes the input 'txet'; give some of text"):
        ps.export(dspy.Predict(Grade), txet="mine")


@pytest.mark.parametrize("thing", [3, "text", dspy.Module()])
def test_nothing_to_export(thing: Any) -> None:
    with pytest.raises(DataError, match="no predictors to export"):
        ps.export(thing)
