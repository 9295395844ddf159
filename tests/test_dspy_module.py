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
from promptsearch.lm.resolve import OpenedModel  # noqa: E402

TEXTS = ["item 3 is good", "item 4 is bad", "something else"]


@pytest.fixture(scope="module")
def static() -> ps.Prompt:
    of = task()
    return ps.Prompt(of, of.examples[:4], model(of), calibration="batch")


@pytest.fixture(scope="module")
def retrieving() -> ps.Prompt:
    return result(space=ps.Space(modes=("retrieved",), shots=(2, 4)), budget="1000 evaluations").prompt


class Program(dspy.Module):  # type: ignore[misc]
    """A prompt inside a program."""

    def __init__(self, prompt: ps.Prompt) -> None:
        super().__init__()
        self.route = module_for(prompt)

    def forward(self, text: str) -> object:
        return self.route(text=text)


def plain_prompt() -> ps.Prompt:
    """Another prompt, on a model object of its own."""
    of = task()
    return ps.Prompt(of, (), model(of))


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


@pytest.mark.parametrize("name", ["static", "retrieving"])
def test_state_survives_on_disk(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    prompt = request.getfixturevalue(name)
    module = module_for(prompt)
    module.save(str(tmp_path / "module.json"))
    state = json.loads((tmp_path / "module.json").read_text("utf-8"))
    assert bool(state["index"]) == (name == "retrieving")

    other = PromptModule(plain_prompt())
    other.load(str(tmp_path / "module.json"), encoder=WordEncoder())
    assert other.prompt.candidate == prompt.candidate
    assert [other(text=text).probabilities for text in TEXTS] == [module(text=text).probabilities for text in TEXTS]


@pytest.mark.parametrize("name", ["static", "retrieving"])
def test_loads_without_a_program(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    module = request.getfixturevalue(name).to_dspy()
    module.save(tmp_path / "module.json")
    loaded = ps.dspy.load(tmp_path / "module.json", model=model(task()), encoder=WordEncoder())
    assert [loaded(text=text).label for text in TEXTS] == [module(text=text).label for text in TEXTS]
    assert repr(loaded) == repr(module)
    with pytest.raises(UserError, match="needs no program"):
        ps.dspy.load(tmp_path / "module.json", dspy.Predict("text -> label"))
    with pytest.raises(UserError, match="allow_pickle= belongs to a program"):
        ps.dspy.load(tmp_path / "module.json", allow_pickle=True)
    with pytest.raises(UserError, match="model= belongs to a file of one prompt"):
        ps.dspy.load(tmp_path / "module.json", Program(plain_prompt()), model=model(task()))


def test_what_no_file_can_hold_is_asked_for_in_the_name_of_the_file(
    static: ps.Prompt, retrieving: ps.Prompt, tmp_path: Path
) -> None:
    path = tmp_path / "module.json"
    static.to_dspy().save(path)
    with pytest.raises(ArtifactError, match=r"module\.json' was made with a model object .* give it as model="):
        ps.dspy.load(path)
    state = json.loads(path.read_text("utf-8"))
    state["prompt"]["model"]["source"] = "https://example.org/v1"
    path.write_text(json.dumps(state), "utf-8")
    with pytest.raises(ArtifactError, match=r"module\.json' was made with the server .* give it as model="):
        ps.dspy.load(path)
    retrieving.to_dspy().save(path)
    for ask in (
        lambda: ps.dspy.load(path, model=model(task())),
        lambda: PromptModule(plain_prompt()).load(path),
        lambda: ps.dspy.load(path, PromptModule(plain_prompt())),
    ):
        with pytest.raises(ArtifactError, match=r"module\.json' was made with an encoder object.* as encoder="):
            ask()


@pytest.mark.parametrize("source", ["", "https://example.org/v1", "/no/such/model.gguf"])
def test_a_model_that_no_name_opens_is_the_modules_own(source: str, static: ps.Prompt, tmp_path: Path) -> None:
    module = module_for(static)
    module.save(tmp_path / "module.json")
    state = json.loads((tmp_path / "module.json").read_text("utf-8"))
    state["prompt"]["model"]["source"] = source
    (tmp_path / "module.json").write_text(json.dumps(state), "utf-8")
    other = PromptModule(plain_prompt())
    own = other.prompt.opened
    other.load(tmp_path / "module.json")
    assert other.prompt.opened is own
    assert other.prompt.candidate == static.candidate
    assert other(text=TEXTS[0]).probabilities == module(text=TEXTS[0]).probabilities


def test_a_model_that_can_be_opened_goes_before_the_modules_own(
    static: ps.Prompt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = ps.Prompt.from_parts(static.parts, OpenedModel(static.opened.engine, "named"))
    module_for(named).save(tmp_path / "module.json")
    asked: list[object] = []

    def opens(source: object, weights: str) -> OpenedModel:
        asked.append(source)
        return named.opened

    other = PromptModule(plain_prompt())
    monkeypatch.setattr("promptsearch.prompt.open_engine", opens)
    other.load(tmp_path / "module.json")
    assert asked == ["named"]
    assert other.prompt.opened is named.opened


def test_a_module_keeps_the_encoder_that_a_states_vectors_were_made_with(
    retrieving: ps.Prompt, tmp_path: Path
) -> None:
    module = module_for(retrieving)
    module.save(tmp_path / "module.json")
    module.load(tmp_path / "module.json")
    assert module.prompt.predict(TEXTS) == retrieving.predict(TEXTS)


@pytest.mark.parametrize("damage", ["pool.json", "vectors"])
def test_errors_of_an_index_name_the_file_too(damage: str, retrieving: ps.Prompt, tmp_path: Path) -> None:
    path = tmp_path / "module.json"
    module_for(retrieving).save(path)
    state = json.loads(path.read_text("utf-8"))
    lost = next(name for name in state["index"] if name.startswith(damage))
    for change in ({lost: state["index"][lost][:-8]}, {lost: "!"}, {}):
        kept = {name: content for name, content in state["index"].items() if name != lost}
        path.write_text(json.dumps({**state, "index": kept | change}), "utf-8")
        with pytest.raises(ArtifactError, match=r"module\.json") as caught:
            ps.dspy.load(path, model=model(task()), encoder=WordEncoder())
        assert "\n" not in str(caught.value)


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


def test_a_programs_state_holds_the_prompt(static: ps.Prompt, tmp_path: Path) -> None:
    Program(static).save(str(tmp_path / "program.json"))
    program = Program(plain_prompt())
    program.load(str(tmp_path / "program.json"))
    assert program.route.prompt.demonstrations == static.demonstrations
    assert program.predictors() == []


def test_a_prompt_in_a_program_takes_the_encoder_that_is_given(retrieving: ps.Prompt, tmp_path: Path) -> None:
    path = tmp_path / "program.json"
    Program(retrieving).save(path)
    loaded = ps.dspy.load(path, Program(plain_prompt()), encoder=WordEncoder())
    assert loaded.route.prompt.predict(TEXTS) == retrieving.predict(TEXTS)
    with pytest.raises(ArtifactError, match=r"program\.json' was made with an encoder object"):
        ps.dspy.load(path, Program(plain_prompt()))


@pytest.mark.parametrize("state", [{}, {"prompt": 1, "index": {}}, {"prompt": {}, "index": {"a": "!"}}])
def test_broken_state_changes_nothing(static: ps.Prompt, state: dict[str, object]) -> None:
    module = module_for(static)
    with pytest.raises(ArtifactError):
        module.load_state(state)
    assert module.prompt is static
