"""A prompt inside a DSPy program."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from fakes import WordEncoder, model, result, task

import promptsearch as ps

dspy = pytest.importorskip("dspy")

from promptsearch.dspy.module import PromptModule, module_for  # noqa: E402
from promptsearch.errors import ArtifactError, DataError, UserError  # noqa: E402

TEXTS = ["item 3 is good", "item 4 is bad", "something else"]


@pytest.fixture(scope="module")
def static() -> ps.Prompt:
    of = task()
    return ps.Prompt(of, of.examples[:4], model(of), calibration="batch")


@pytest.fixture(scope="module")
def retrieving() -> ps.Prompt:
    return result(space=ps.Space(modes=("retrieved",), shots=(2, 4)), budget="1000 evaluations").prompt


@pytest.fixture
def reopened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading opens the objects of this file, which no file can hold."""
    load = ps.Prompt.load.__func__  # type: ignore[attr-defined]

    def with_objects(path: str | Path, encoder: object = None) -> ps.Prompt:
        prompt: ps.Prompt = load(ps.Prompt, path, model(task()), encoder=WordEncoder())
        return prompt

    monkeypatch.setattr(ps.Prompt, "load", with_objects)


@pytest.mark.parametrize("name", ["static", "retrieving"])
def test_predicts_as_the_prompt(name: str, request: pytest.FixtureRequest) -> None:
    prompt = request.getfixturevalue(name)
    module = prompt.to_dspy()
    assert isinstance(module, dspy.Module)
    for text, expected in zip(TEXTS, prompt.predict(TEXTS), strict=True):
        prediction = module(text=text)
        assert isinstance(prediction, dspy.Prediction)
        assert prediction.label == expected.output
        assert prediction.probabilities == expected.probabilities


def test_missing_column(static: ps.Prompt) -> None:
    with pytest.raises(DataError, match="text"):
        module_for(static)(txt="x")


def test_copies_share_the_prompt(static: ps.Prompt) -> None:
    module = module_for(static)
    for copied in (copy.deepcopy(module), module.deepcopy(), module.reset_copy()):
        assert copied is not module
        assert copied.prompt is module.prompt
        assert copied(text=TEXTS[0]).label == module(text=TEXTS[0]).label


@pytest.mark.usefixtures("reopened")
@pytest.mark.parametrize("name", ["static", "retrieving"])
def test_state_survives_on_disk(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    prompt = request.getfixturevalue(name)
    module = module_for(prompt)
    module.save(str(tmp_path / "module.json"))
    state = json.loads((tmp_path / "module.json").read_text("utf-8"))
    assert bool(state["index"]) == (name == "retrieving")

    of = task()
    other = PromptModule(ps.Prompt(of, (), model(of)))
    other.load(str(tmp_path / "module.json"))
    assert other.prompt.candidate == prompt.candidate
    assert [other(text=text).probabilities for text in TEXTS] == [module(text=text).probabilities for text in TEXTS]


@pytest.mark.parametrize("name", ["static", "retrieving"])
@pytest.mark.usefixtures("reopened")
def test_loads_without_a_program(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    module = request.getfixturevalue(name).to_dspy()
    module.save(tmp_path / "module.json")
    loaded = ps.dspy.load(tmp_path / "module.json")
    assert [loaded(text=text).label for text in TEXTS] == [module(text=text).label for text in TEXTS]
    assert repr(loaded) == repr(module)
    with pytest.raises(UserError, match="needs no program"):
        ps.dspy.load(tmp_path / "module.json", dspy.Predict("text -> label"))
    with pytest.raises(UserError, match="allow_pickle= belongs to a program"):
        ps.dspy.load(tmp_path / "module.json", allow_pickle=True)


def test_predictors_of_any_name_are_no_prompt(tmp_path: Path) -> None:
    class Named(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.prompt, self.index = dspy.Predict("text -> label"), dspy.Predict("label -> place")

    Named().save(tmp_path / "named.json")
    assert len(ps.dspy.load(tmp_path / "named.json", Named()).predictors()) == 2


def test_exports_are_the_prompts(static: ps.Prompt, retrieving: ps.Prompt) -> None:
    class Around(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.route = module_for(static)
            self.answer = dspy.Predict("label -> answer")

    (alone,) = ps.export(module_for(static), text="mine")
    assert alone == ps.export(static, text="mine")[0]
    assert alone.calibrated
    assert alone.retrieved == 0
    assert ps.export(module_for(retrieving))[0].retrieved == retrieving.candidate.shots
    names = [each.name for each in ps.export(Around(), text="mine")]
    assert names == ["route", "answer"]


@pytest.mark.usefixtures("reopened")
def test_a_programs_state_holds_the_prompt(static: ps.Prompt, tmp_path: Path) -> None:
    class Program(dspy.Module):  # type: ignore[misc]
        def __init__(self, prompt: ps.Prompt) -> None:
            super().__init__()
            self.route = module_for(prompt)

        def forward(self, text: str) -> object:
            return self.route(text=text)

    of = task()
    Program(static).save(str(tmp_path / "program.json"))
    program = Program(ps.Prompt(of, (), model(of)))
    program.load(str(tmp_path / "program.json"))
    assert program.route.prompt.demonstrations == static.demonstrations
    assert program.predictors() == []


@pytest.mark.parametrize("state", [{}, {"prompt": 1, "index": {}}, {"prompt": {}, "index": {"a": "!"}}])
def test_broken_state_changes_nothing(static: ps.Prompt, state: dict[str, object]) -> None:
    module = module_for(static)
    with pytest.raises(ArtifactError):
        module.load_state(state)
    assert module.prompt is static
