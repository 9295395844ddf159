"""The optimizer of DSPy programs, on models that are instant; the real one has its benchmark."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from fakes import WatchedLM, WordEncoder, last_number, numbered_rows
from hypothesis import given
from hypothesis import strategies as st

import promptsearch as ps
from promptsearch.candidate import Candidate
from promptsearch.errors import BackendError, BudgetError, DataError, UserError
from promptsearch.events import Progress
from promptsearch.lm.fake import FakeLM, ScriptedLM

dspy = pytest.importorskip("dspy")

from promptsearch.dspy.bootstrapping import bootstrapped, labelled, unique  # noqa: E402
from promptsearch.dspy.demo_search import DemoSearch, _request_settings  # noqa: E402
from promptsearch.dspy.joint import JointPool, ShotLimits, joint_space  # noqa: E402
from promptsearch.dspy.predictor import Predict, become_ours, load  # noqa: E402
from promptsearch.dspy.running import Runner, score_of  # noqa: E402


class Grade(dspy.Signature):  # type: ignore[misc]
    """Say whether it is bad or good."""

    text: str = dspy.InputField()
    label: Literal["bad", "good"] = dspy.OutputField()


ROWS = [dspy.Example(**row).with_inputs("text") for row in numbered_rows(120)]
GOLDS = {str(number): row.label for number, row in enumerate(ROWS)}


def right(example: Any, prediction: Any, trace: object = None) -> bool:
    return bool(example.label == prediction.label)


def better_with_examples(**options: Any) -> WatchedLM:
    """Right half of the time without demonstrations, nearly always with eight."""
    return WatchedLM(GOLDS, reliability=lambda prompt: min(0.95, 0.5 + 0.05 * prompt.count("Label:")), **options)


def search(**options: Any) -> DemoSearch:
    given: dict[str, Any] = {
        "metric": right,
        "encoder": WordEncoder(),
        "progress": False,
        "budget": "600 evaluations",
    }
    return DemoSearch(**{**given, **options})


def compiled(model: Any, student: Any = None, lm: Any = None, **options: Any) -> Any:
    lm = lm or ps.dspy.lm(model, cache=False)
    with dspy.context(lm=lm):
        program = student if student is not None else dspy.Predict(Grade)
        return search(**options).compile(program, trainset=ROWS[:60], valset=ROWS[60:])


def test_finds_demonstrations_that_help() -> None:
    student = dspy.Predict(Grade)
    program = compiled(better_with_examples(), student)
    assert student.demos == []
    assert type(student) is dspy.Predict
    assert len(program.demos) >= 2 or program.library.count >= 2
    assert program.score > 65
    assert program.improvement.value > 0
    shown = {demo["text"] for demo in program.demos}
    assert shown <= {row.text for row in ROWS[:60]}
    scores = [each["score"] for each in program.candidate_programs]
    assert program.candidate_programs[0]["score"] == program.score
    assert len(scores) > 1
    assert all(isinstance(each["program"], dspy.Module) for each in program.candidate_programs)
    assert set(program.trial_logs[1]) >= {"score", "rows", "mode", "demonstrations"}


def test_no_row_is_asked_about_and_shown() -> None:
    model = better_with_examples()
    program = compiled(model)
    asked = [last_number(prompt) for prompts in model.calls for prompt in prompts]
    assert {int(number) for number in asked if number is not None} <= set(range(60, 120))
    assert program.score >= 0


@pytest.mark.parametrize("strategy", ["halving", "greedy", "tpe", "random"])
def test_every_strategy(strategy: str) -> None:
    program = compiled(better_with_examples(), strategy=strategy, modes=("static",))
    assert program.score > 60
    assert program.library is None


def test_same_seed_same_program() -> None:
    first, second = (compiled(better_with_examples(), num_threads=threads) for threads in (1, 16))
    other = compiled(better_with_examples(), seed=1)
    assert first.dump_state() == second.dump_state()
    assert first.trial_logs == second.trial_logs
    assert other.trial_logs != first.trial_logs


class BreaksAt(WatchedLM):
    """Fails once at its N-th call."""

    def __init__(self, call: int) -> None:
        def told(number: int) -> None:
            if number == call:
                raise BackendError("the machine was unplugged")

        super().__init__(
            GOLDS, reliability=lambda prompt: min(0.95, 0.5 + 0.05 * prompt.count("Label:")), on_call=told
        )


def test_resumed_is_uninterrupted(tmp_path: Path) -> None:
    whole = compiled(better_with_examples(), num_threads=1)
    broken = BreaksAt(200)
    with pytest.raises(BackendError, match="unplugged"):
        compiled(broken, num_threads=1, run=tmp_path / "run")
    rest = better_with_examples()
    resumed = compiled(rest, num_threads=1, run=tmp_path / "run")
    assert resumed.dump_state() == whole.dump_state()
    assert resumed.trial_logs == whole.trial_logs
    again = better_with_examples()
    repeated = compiled(again, run=tmp_path / "run")
    assert repeated.dump_state() == whole.dump_state()
    assert len(again.calls) == 0
    assert len(rest.calls) < len(broken.calls) + 600


def wrong(example: Any, prediction: Any, trace: object = None) -> bool:
    return not right(example, prediction)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"seed": 3}, "seed"),
        ({"max_labeled_demos": 4}, "max_labeled_demos was '16', now it is '4'"),
        ({"teacher_settings": {"lm": ps.dspy.lm(FakeLM(0), cache=False)}}, "teacher"),
        ({"metric": wrong}, "metric"),
        ({"student": dspy.ChainOfThought(Grade)}, "program"),
        ({"student": dspy.Predict(Grade.with_updated_fields("text", desc="a review"))}, "program"),
    ],
)
def test_a_run_belongs_to_its_job(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    compiled(better_with_examples(), run=tmp_path / "run", budget="200 evaluations")
    with pytest.raises(UserError, match=f"another job: its {said}"):
        compiled(better_with_examples(), **{"run": tmp_path / "run", "budget": "200 evaluations", **options})


def test_settings_that_are_objects_are_the_same_job_in_another_process(tmp_path: Path) -> None:
    """By their kind: where they lie in memory tells nothing."""
    for _ in range(2):
        settings = {"adapter": ps.dspy.PlainAdapter()}
        compiled(better_with_examples(), run=tmp_path / "run", budget="100 evaluations", teacher_settings=settings)


def test_another_key_of_a_language_model_is_the_same_job() -> None:
    told = [
        _request_settings(dspy.LM("openai/x", api_key=key, temperature=warmth))
        for key, warmth in (("one", 0.5), ("two", 0.5), ("one", 0.7))
    ]
    assert told[0] == told[1] != told[2]
    assert "'one'" not in told[0]


def test_killed_while_it_makes_demonstrations(tmp_path: Path) -> None:
    def run(at: int) -> tuple[Any, int]:
        asked: list[int] = []

        def reply(prompt: str) -> str:
            asked.append(1)
            if len(asked) == at:
                raise BackendError("the machine was unplugged")
            return two_step_reply(prompt)

        options: dict[str, Any] = {"run": tmp_path / "run", "num_threads": 1, "budget": "400 evaluations"}
        return compiled(ScriptedLM(reply), TwoSteps(), **options, modes=("static",)), len(asked)

    with pytest.raises(BackendError, match="unplugged"):
        run(150)  # in the second part of 32 rows, with three questions each
    resumed, calls = run(0)
    whole = compiled(
        ScriptedLM(two_step_reply), TwoSteps(), num_threads=1, budget="400 evaluations", modes=("static",)
    )
    assert resumed.dump_state() == whole.dump_state()
    assert calls > 0


def test_a_finished_run_of_some_time_asks_nothing_again(tmp_path: Path) -> None:
    first = compiled(better_with_examples(), run=tmp_path / "run", budget="2s")
    again = better_with_examples()
    second = compiled(again, run=tmp_path / "run", budget="2s")
    assert again.calls == []
    assert second.dump_state() == first.dump_state()


def test_stops_when_it_is_good_enough() -> None:
    whole = compiled(better_with_examples())
    stopped = compiled(better_with_examples(), stop_at_score=whole.trial_logs[1]["score"])
    assert len(stopped.trial_logs) < len(whole.trial_logs)


def test_takes_the_arguments_of_the_optimizer_that_it_replaces() -> None:
    theirs = inspect.signature(dspy.teleprompt.BootstrapFewShotWithRandomSearch).parameters
    assert set(theirs) <= set(inspect.signature(DemoSearch).parameters)


# -- metrics and failures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "score"), [(True, 1.0), (0.25, 0.25), (np.float32(0.5), 0.5), (dspy.Prediction(score=0.75), 0.75)]
)
def test_scores_of_metrics(value: Any, score: float) -> None:
    assert score_of(value) == score


@pytest.mark.parametrize("value", [None, "much", float("nan"), dspy.Prediction(label="x")])
def test_no_scores(value: Any) -> None:
    with pytest.raises(UserError, match="the metric gave"):
        score_of(value)


def test_any_scale_of_metric() -> None:
    percent = compiled(better_with_examples(), metric=lambda e, p, trace=None: 100 * (e.label == p.label))
    share = compiled(better_with_examples())
    assert [demo.toDict() for demo in percent.demos] == [demo.toDict() for demo in share.demos]
    assert percent.score == pytest.approx(100 * share.score, abs=1)  # DSPy's scores have two digits
    assert percent.validation.value == pytest.approx(100 * share.validation.value)
    assert percent.improvement.low <= percent.improvement.value <= percent.improvement.high


def test_a_metric_that_begins_low_is_not_cut() -> None:
    def longer_is_better(example: Any, prediction: Any, trace: Any = None) -> float:
        return 1.0 + 50 * prediction.probabilities[example.label]

    program = compiled(better_with_examples(), metric=longer_is_better)
    assert len({each["score"] for each in program.trial_logs.values()}) > 3
    assert program.candidate_programs[0]["score"] == pytest.approx(program.score)


def test_what_never_works_is_a_mistake_and_no_wrong_answer() -> None:
    def broken(example: Any, prediction: Any, trace: object = None) -> bool:
        return bool(prediction.no_such_field)

    with pytest.raises(UserError, match=r"the metric failed on every example: AttributeError: .*no_such_field"):
        compiled(better_with_examples(), metric=broken, max_errors=10_000)


def test_results_leave_what_the_program_has_alone(caplog: pytest.LogCaptureFixture) -> None:
    class Scoring(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.score = dspy.Predict(Grade)

        def forward(self, text: str) -> Any:
            return self.score(text=text)

    program = compiled(better_with_examples(), Scoring(), budget="200 evaluations")
    assert isinstance(program.score, Predict)
    assert "has score of its own" in caplog.text
    assert program.validation.n > 0


def test_compiling_again_carries_no_results_along() -> None:
    first = compiled(better_with_examples(), budget="200 evaluations")
    second = compiled(better_with_examples(), first.reset_copy(), budget="200 evaluations")
    assert second.trial_logs.keys() == first.trial_logs.keys()
    assert all(not hasattr(each["program"], "candidate_programs") for each in second.candidate_programs)


def test_no_metric_compares_labels() -> None:
    assert compiled(better_with_examples(), metric=None).score == compiled(better_with_examples()).score


def test_failures_are_counted_by_reason() -> None:
    class Picky(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.grade = dspy.Predict(Grade)

        def forward(self, text: str) -> Any:
            if text.endswith("7."):
                raise ValueError("not this one")
            return self.grade(text=text)

    program = compiled(better_with_examples(), Picky(), max_errors=10_000)
    assert set(program.trial_logs[1]["failures"]) == {"program failed"}
    said = "the program failed on more than max_errors=1 examples, now with ValueError: not this one"
    with pytest.raises(UserError, match=said) as caught:
        compiled(better_with_examples(), Picky(), max_errors=1, num_threads=1)
    assert isinstance(caught.value.__cause__, ValueError)


def test_failures_of_the_metric_are_told_apart(caplog: pytest.LogCaptureFixture) -> None:
    def picky(example: Any, prediction: Any, trace: object = None) -> bool:
        if example.text.endswith("7."):
            raise KeyError("seven")
        return right(example, prediction)

    program = compiled(better_with_examples(), metric=picky, max_errors=10_000)
    assert set(program.trial_logs[1]["failures"]) == {"metric failed"}
    assert "the metric failed on an example, which counts as wrong: KeyError: 'seven'" in caplog.text


def test_unreadable_answers_are_wrong() -> None:
    lm = ps.dspy.lm(ScriptedLM(lambda prompt: " nothing of use"), cache=False)
    program = compiled(None, lm=lm, scored=False, budget="200 evaluations")
    assert program.score == 0
    assert set(program.trial_logs[1]["failures"]) == {"not understood"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"strategy": "luck"}, "strategy='luck' is unknown"),
        ({"prefer": "speed"}, "prefer='speed' is unknown"),
        ({"modes": ("routed",)}, "modes='routed' is unknown"),
        ({"modes": ()}, "modes="),
        ({"metric": "accuracy"}, "the metric 'accuracy' does not take"),
        ({"metric": lambda example, prediction: True}, "does not take an example, a prediction and a trace"),
        ({"seed": None}, "seed=None"),
        ({"adapter": "json"}, "adapter='json' is unknown"),
        ({"max_labeled_demos": -1}, "max_labeled_demos=-1"),
        ({"num_threads": 0}, "num_threads=0"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        DemoSearch(**options)
    with pytest.raises(BudgetError, match="names tokens"):
        DemoSearch(budget="5k tokens")


def test_wrong_rows() -> None:
    lm = ps.dspy.lm(better_with_examples(), cache=False)
    with dspy.context(lm=lm):
        for trainset, said in (
            ([], "no rows"),
            ([dspy.Example(text="a", label="good")] * 8, "marks no inputs"),
            (
                [dspy.Example(text="a", label="good").with_inputs("txt")] * 8,
                "marks the inputs txt, and has text, label",
            ),
            (ROWS[:3], "at least 4"),
        ):
            with pytest.raises(DataError, match=said):
                search().compile(dspy.Predict(Grade), trainset=trainset)
        for student in (dspy.Module(), "program", dspy.Predict):
            with pytest.raises(UserError, match=r"has no dspy\.Predict"):
                search().compile(student, trainset=ROWS)
        for rows, said in (
            ([dspy.Example(review=f"{n}", label="good").with_inputs("review") for n in range(8)], "asks for 'text'"),
            (
                [dspy.Example(text=f"a {n}", label="GOOD").with_inputs("text") for n in range(8)],
                "'GOOD', and the choices",
            ),
            ([row.with_inputs("text", "label") for row in ROWS], "marks 'label' as an input"),
        ):
            with pytest.raises(DataError, match=said):
                search().compile(dspy.Predict(Grade), trainset=rows)
        misspelt = [dspy.Example(text=f"a {n}", lable="good").with_inputs("text") for n in range(8)]
        with pytest.raises(DataError, match="has the labels lable, and the program answers label"):
            search(metric=None).compile(dspy.Predict(Grade), trainset=misspelt)
        with pytest.raises(DataError, match="which the program does not take"):
            search().compile(TwoSteps(), trainset=[row.with_inputs("text", "label") for row in ROWS])
    with dspy.context(lm=None), pytest.raises(UserError, match="no language model"):
        search().compile(dspy.Predict(Grade), trainset=ROWS)


def test_without_validation_rows_half_is_held_out() -> None:
    lm = ps.dspy.lm(better_with_examples(), cache=False)
    with dspy.context(lm=lm):
        for valset in (None, ROWS[:60]):
            program = search().compile(dspy.Predict(Grade), trainset=ROWS[:60], valset=valset)
            assert sum(len(each["subscores"]) > 0 for each in program.candidate_programs) > 1
            assert program.validation.n == 15


def test_forward_is_never_asked_for_itself(caplog: pytest.LogCaptureFixture) -> None:
    """DSPy warns of that, once for each row."""
    compiled(ScriptedLM(two_step_reply), TwoSteps(), budget="100 evaluations")
    assert "discouraged" not in caplog.text


def test_rows_that_happen_to_be_bad_are_no_mistake() -> None:
    """Also where a few of them are all that is run: tried again, or first of all to tell the time."""

    class Picky(TwoSteps):
        def forward(self, text: str) -> Any:
            if last_number(text) in bad:
                raise ValueError("bad row")
            return super().forward(text)

    bad = {last_number(row.text) for row in ROWS[:3]}
    for budget in ("200 evaluations", "2s"):
        program = compiled(ScriptedLM(two_step_reply), Picky(), budget=budget, max_errors=100)
        assert program.score > 0


def test_a_judge_that_cannot_be_understood_counts_as_wrong() -> None:
    """The judge is a model: what it writes is no mistake of the metric. Its calls are in no trace of the program."""
    judge = dspy.Predict("label -> good: bool")
    judge.lm = ps.dspy.lm(ScriptedLM(lambda prompt: " perhaps"), cache=False)

    def judged(example: Any, prediction: Any, trace: object = None) -> bool:
        if example.text.endswith(("3.", "4.")):
            return bool(judge(label=prediction.label).good)
        return right(example, prediction)

    with dspy.context(adapter=dspy.ChatAdapter(), trace=[]):
        program = compiled(better_with_examples(), metric=judged, max_errors=0)
        assert list(dspy.settings.trace) == []
    assert set(program.trial_logs[1]["failures"]) == {"metric failed"}


def test_programs_that_can_be_called_are_taken() -> None:
    class Fetching(dspy.ChainOfThought):  # type: ignore[misc]
        def forward(self, text: str) -> Any:
            return super().forward(text=text, context="none")

    class Called(TwoSteps):
        def __call__(self, **fields: Any) -> Any:
            return super().__call__(**fields)

    class Static(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.grade = dspy.Predict(Grade)

        @staticmethod
        def forward(text: str) -> Any:
            return dspy.Prediction(label="good")

    model = ScriptedLM(two_step_reply)
    for student in (Fetching("text, context -> label: str"), Called(), Static()):
        assert compiled(model, student, budget="60 evaluations").validation.n > 0


def test_no_metric_compares_no_reasoning() -> None:
    rows = [row.copy(reasoning=f"Reason {number}.").with_inputs("text") for number, row in enumerate(ROWS)]
    with dspy.context(lm=ps.dspy.lm(better_with_examples(), cache=False)):
        program = search(metric=None).compile(dspy.ChainOfThought(Grade), trainset=rows)
    assert program.score > 0


def test_a_search_that_tried_nothing_says_so(caplog: pytest.LogCaptureFixture) -> None:
    program = compiled(better_with_examples(), budget="20 evaluations")
    assert len(program.trial_logs) == 1
    assert "nothing but the program without demonstrations was tried" in caplog.text


def test_too_few_rows_to_confirm_are_told(caplog: pytest.LogCaptureFixture) -> None:
    lm = ps.dspy.lm(better_with_examples(), cache=False)
    with dspy.context(lm=lm):
        program = search().compile(dspy.Predict(Grade), trainset=ROWS[:20])
    assert not program.confirmed_apart
    assert "too few to confirm on others than the search saw" in caplog.text


def test_no_demonstrations_where_they_harm() -> None:
    """Also where the finalists are others: the program as it came is run on the rows that confirm in any case."""
    model = WatchedLM(GOLDS, reliability=lambda prompt: 0.95 if prompt.count("Label:") == 1 else 0.3)
    program = compiled(model, modes=("static",), words=False)
    assert program.demos == []
    assert program.improvement.value >= 0


def test_the_first_interrupt_ends_the_search_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    tried: list[int] = []

    def interrupt(event: object) -> None:
        if isinstance(event, Progress) and event.phase == "search":
            tried.append(event.tried)
            if event.tried == 3:
                raise KeyboardInterrupt

    program = compiled(better_with_examples(), progress=interrupt)
    assert len(program.trial_logs) == 3
    assert "stopped by Ctrl-C after 3 candidates" in caplog.text
    assert "nothing but" not in caplog.text


def test_rows_of_the_same_text_stay_on_one_side() -> None:
    class Renamed(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.grade = dspy.Predict("query -> label: Literal['bad', 'good']")

        def forward(self, text: str) -> Any:
            return self.grade(query=text)

    model = ScriptedLM(lambda prompt: " good")
    with dspy.context(lm=ps.dspy.lm(model, cache=False)):
        search(budget="200 evaluations").compile(Renamed(), trainset=[*ROWS[:20], *ROWS[:20]])
    for prompt in model.prompts:
        *shown, asked = prompt.split("\n\n")
        assert all(asked.split("\n")[0] not in part for part in shown)


def test_a_teacher_of_another_structure() -> None:
    lm = ps.dspy.lm(better_with_examples(), cache=False)
    with dspy.context(lm=lm):
        for teacher, said in ((dspy.Predict("text -> answer"), "no field 'label'"), (TwoSteps(), "has 2 predictors")):
            with pytest.raises(UserError, match=said):
                search().compile(dspy.Predict(Grade), trainset=ROWS, teacher=teacher)


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
def test_limits_are_those_of_the_optimizer_that_it_replaces(most_made: int, most: int, made: int, rows: int) -> None:
    """Bootstrapped ones up to their limit; labelled rows fill up to theirs, counting what was bootstrapped."""
    allowed = ShotLimits(most_made, most).allow(made, rows)
    assert allowed == (made <= most_made and rows <= max(0, most - made))


@given(
    st.lists(st.tuples(st.integers(0, 1), st.booleans()), min_size=1, max_size=20),
    st.integers(0, 5),
    st.integers(0, 5),
    st.integers(1, 12),
)
def test_whatever_is_found_keeps_to_the_limits(
    demos: list[tuple[int, bool]], most_made: int, most: int, count: int
) -> None:
    """Each predictor finds so many of its own, in the worst case all of one kind."""
    places, made = zip(*demos, strict=True)
    pool = JointPool(places, ("",) * len(demos), (1,) * len(demos), made)
    limits = ShotLimits(most_made, most)
    room = {"opening_tokens": 1, "query_tokens": 1.0, "long_query": 1, "context_tokens": 1000}
    space = joint_space(pool, limits=limits, modes=("retrieved",), styles=("listed",), names=(("", ""),), **room)
    candidate = Candidate(template="listed", mode="retrieved", count=count)
    each = pool.retrieved(candidate)
    by_place = [{kind for at, kind in demos if at == place} for place in set(places)]
    worst = [
        limits.allow(each if True in kinds else 0, 0) and limits.allow(0, each if False in kinds else 0)
        for kinds in by_place
    ]
    assert space.fits(candidate) == all(worst)


def test_labelled_rows_keep_to_their_limit() -> None:
    program = compiled(better_with_examples(), max_labeled_demos=2)
    assert max(len(each["program"].demos) for each in program.candidate_programs) == 2


def test_limits_hold_for_each_predictor() -> None:
    limits = {"max_bootstrapped_demos": 2, "max_labeled_demos": 3}
    program = compiled(ScriptedLM(two_step_reply), TwoSteps(), modes=("static",), budget="300 evaluations", **limits)
    for each in program.candidate_programs:
        assert all(len(predictor.demos) <= 2 for predictor in each["program"].predictors())


# -- programs of several predictors ---------------------------------------------------------------------------------


class TwoSteps(dspy.Module):  # type: ignore[misc]
    """Names the number, then grades it; only the second step has labelled rows."""

    def __init__(self) -> None:
        super().__init__()
        self.find = dspy.Predict("text -> number: str")
        self.grade = dspy.ChainOfThought(dspy.Signature("text, number -> label: str", "Grade the number."))

    def forward(self, text: str) -> Any:
        return self.grade(text=text, number=self.find(text=text).number)


def two_step_reply(prompt: str) -> str:
    """Better at each step with demonstrations of that step."""
    number = last_number(prompt) or "0"
    shown = prompt.count("\n\nText:")
    if prompt.endswith("Number:"):
        return f" {number}" if shown >= 2 or int(number) % 3 else " unknown"
    if prompt.endswith("Reasoning:"):
        return " Even is bad."
    known = "Number: unknown" not in prompt.rpartition("Text:")[2]
    return f" {GOLDS[number]}" if known and (shown >= 2 or int(number) % 5 < 3) else " bad"


def signatures(program: Any) -> list[Any]:
    return [predictor.signature for predictor in program.predictors()]


def test_two_predictors_get_demonstrations_of_their_own() -> None:
    model = ScriptedLM(two_step_reply)
    program = compiled(model, TwoSteps(), modes=("static",))
    find, grade = program.predictors()
    assert program.improvement.value > 0
    for predictor in (find, grade):
        for demo in predictor.demos:
            assert set(predictor.signature.fields) <= set(demo.toDict())
            assert demo.augmented
    assert len(find.demos) + len(grade.demos) >= 2


def test_bootstrapped_demonstrations_are_whole() -> None:
    lm = ps.dspy.lm(ScriptedLM(two_step_reply), cache=False)
    program = become_ours(TwoSteps())
    with dspy.context(lm=lm):
        shown = bootstrapped(program, signatures(program), ROWS[:20], Runner(right, 4, 0), threshold=None, rounds=1)
    assert labelled(program, ROWS[:20]) == []
    assert {each.predictor for each in shown} == {0, 1}
    assert {each.source for each in shown} == {"bootstrapped"}
    for each in shown:
        assert all(each.fields.values())
    assert unique([*shown, *shown], program) == shown


def test_labelled_rows_need_every_field_and_a_known_choice() -> None:
    rows = [
        dspy.Example(text="a", label="good").with_inputs("text"),
        dspy.Example(text="b", label="splendid").with_inputs("text"),
        dspy.Example(text="c").with_inputs("text"),
    ]
    assert [each.row for each in labelled(dspy.Predict(Grade), rows)] == [0]


def test_a_float_metric_accepts_what_comes_near_its_best() -> None:
    lm = ps.dspy.lm(ScriptedLM(lambda prompt: " word"), cache=False)

    def metric(example: Any, prediction: Any, trace: Any = None) -> float:
        return int(last_number(example.text) or 0) / 100

    program = become_ours(dspy.Predict("text -> answer"))
    with dspy.context(lm=lm):
        asked = (program, signatures(program), ROWS[:21], Runner(metric, 2, 0))
        shown = bootstrapped(*asked, threshold=None, rounds=1)
        few = bootstrapped(*asked, threshold=0.195, rounds=1)
    assert [each.row for each in shown] == [15, 16, 17, 18, 19, 20]
    assert [each.row for each in few] == [20]


def test_a_teacher_is_not_asked_about_what_it_shows() -> None:
    model = ScriptedLM(lambda prompt: " good" if prompt.endswith("Label:") else " So it is.")
    lm = ps.dspy.lm(model, cache=False)
    compiled(None, dspy.ChainOfThought(Grade), lm=lm, modes=("static",), budget="200 evaluations")
    for prompt in model.prompts:
        *shown, asked = prompt.split("\n\n")
        question = asked.split("\n")[0]
        assert all(question not in part for part in shown), prompt


def test_the_metric_sees_traces_where_demonstrations_are_made() -> None:
    traces: list[Any] = []

    def metric(example: Any, prediction: Any, trace: Any = None) -> bool:
        traces.append(trace)
        return right(example, prediction)

    compiled(ScriptedLM(two_step_reply), TwoSteps(), metric=metric, budget="200 evaluations")
    assert any(trace is None for trace in traces)
    assert any(trace is not None and len(trace) == 2 for trace in traces)


# -- saved and loaded ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modes", [("static",), ("retrieved",)])
def test_saved_programs_predict_the_same(modes: tuple[str, ...], tmp_path: Path) -> None:
    model = better_with_examples()
    lm = ps.dspy.lm(model, cache=False)
    program = compiled(model, lm=lm, modes=modes)
    path = tmp_path / "program.json"
    program.save(path)
    fresh = Predict(Grade)
    state = json.loads(path.read_text("utf-8"))
    fresh.load_state(state, encoder=WordEncoder())
    assert (fresh.library is None) == (modes == ("static",))
    with dspy.context(lm=lm):
        for row in ROWS[:40]:
            ours, theirs = program(**row.inputs()), fresh(**row.inputs())
            assert ours.label == theirs.label
            assert ours.probabilities == theirs.probabilities
    assert fresh.dump_state() == program.dump_state()


def test_whole_programs_are_pickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its own encoder where it is the default one; any other has to be given again."""
    for opens in ("library.saved_encoder", "demo_search.resolve_encoder"):
        monkeypatch.setattr(f"promptsearch.dspy.{opens}", lambda given: WordEncoder())
    model = better_with_examples()
    lm = ps.dspy.lm(model, cache=False)
    program = compiled(model, lm=lm, modes=("retrieved",), encoder=None)
    program.save(tmp_path / "program", save_program=True)
    loaded = dspy.load(str(tmp_path / "program"), allow_pickle=True)
    with dspy.context(lm=lm):
        assert loaded(text=ROWS[0].text).probabilities == program(text=ROWS[0].text).probabilities


def test_loading_into_a_program_of_plain_predictors(tmp_path: Path) -> None:
    program = compiled(better_with_examples(), modes=("static",))
    program.save(tmp_path / "program.json")
    loaded = load(tmp_path / "program.json", dspy.Predict(Grade))
    assert type(loaded) is Predict
    assert loaded.weighings == program.weighings


def test_an_encoder_is_given_again(tmp_path: Path) -> None:
    lm = ps.dspy.lm(better_with_examples(), cache=False)
    program = compiled(None, lm=lm, modes=("retrieved",), budget="200 evaluations")
    program.save(tmp_path / "program.json")
    with pytest.raises(UserError, match=r"load\(path, program, encoder=...\)"):
        load(tmp_path / "program.json", dspy.Predict(Grade))
    loaded = load(tmp_path / "program.json", dspy.Predict(Grade), encoder=WordEncoder())
    with dspy.context(lm=lm):
        assert loaded(text=ROWS[0].text).probabilities == program(text=ROWS[0].text).probabilities


def test_an_encoder_may_be_given_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder's name holds in every working directory."""
    asked: list[object] = []

    def opens(given: object) -> WordEncoder:
        asked.append(given)
        return WordEncoder()

    for opened in ("library.saved_encoder", "library.resolve_encoder", "demo_search.resolve_encoder"):
        monkeypatch.setattr(f"promptsearch.dspy.{opened}", opens)
    (tmp_path / "models" / "words").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    lm = ps.dspy.lm(better_with_examples(), cache=False)
    program = compiled(None, lm=lm, modes=("retrieved",), budget="200 evaluations", encoder="models/words")
    program.save("program.json")
    monkeypatch.chdir(tmp_path / "models")
    load(tmp_path / "program.json", dspy.Predict(Grade))
    assert asked[-1] == str(tmp_path / "models" / "words")
    loaded = load(tmp_path / "program.json", dspy.Predict(Grade), encoder="words")
    assert asked[-1] == "words"
    assert loaded.library is not None
    assert loaded.library.source == str(tmp_path / "models" / "words")


def test_files_of_other_programs(tmp_path: Path) -> None:
    dspy.Predict(Grade).save(tmp_path / "plain.json")
    with pytest.raises(UserError, match="holds another program"):
        load(tmp_path / "plain.json", TwoSteps())
    with pytest.raises(UserError, match=r"no dspy\.Module"):
        load(tmp_path / "plain.json", TwoSteps)
    become_ours(dspy.Predict(Grade)).save(tmp_path / "ours.json")
    with pytest.raises(UserError, match="has the fields text, label, and this one question, answer"):
        load(tmp_path / "ours.json", dspy.Predict("question -> answer"))
    with pytest.raises(UserError, match="holds a program of predictors"):
        load(tmp_path / "ours.json")
    with pytest.raises(UserError, match="No such file"):
        load(tmp_path / "nothing.json")
    for text, said in (
        ("[1]", "holds no saved module"),
        ("{", "is no JSON file"),
        ("[" * 100_000, "is no JSON file"),
    ):
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(UserError, match=said):
            load(tmp_path / "other.json", dspy.Predict(Grade))


def test_a_plain_file_stays_plain(tmp_path: Path) -> None:
    plain = dspy.Predict(Grade)
    plain.demos = [ROWS[0]]
    plain.save(tmp_path / "plain.json")
    assert load(tmp_path / "plain.json", dspy.Predict(Grade)).adapter == "configured"


def test_other_choices_are_not_calibrated(caplog: pytest.LogCaptureFixture) -> None:
    model = better_with_examples()
    lm = ps.dspy.lm(model, cache=False)
    program = compiled(model, lm=lm, modes=("static",))
    others = dspy.Signature("text -> label: Literal['bad', 'good', 'none']")
    with dspy.context(lm=lm):
        assert set(program(text="word #61.", signature=others).probabilities) == {"bad", "good", "none"}
    assert "calibrated for other choices" in caplog.text


def test_damaged_states_are_refused() -> None:
    state = compiled(better_with_examples(), modes=("retrieved",)).dump_state()
    for damage in ({"schema": 2}, {"adapter": "other"}, {"weighings": {"label": {}}}, {"library": {"encoder": "x"}}):
        broken = {**state, "promptsearch": {**state["promptsearch"], **damage}}
        with pytest.raises(UserError, match="saved"):
            Predict(Grade).load_state(broken, encoder=WordEncoder())


def test_a_calibration_belongs_to_its_model(caplog: pytest.LogCaptureFixture) -> None:
    program = compiled(better_with_examples(), modes=("static",))
    program.model = "promptsearch/other@0"
    program.weighings = {"label": ps.dspy.predictor.Weighing("batch", (-50.0, 50.0))}
    with dspy.context(lm=ps.dspy.lm(FakeLM({"#3.": "good"}), cache=False)):
        assert program(text="word #3.").label == "good"
    assert "runs on fake@" in caplog.text


def test_retrieved_demonstrations_are_the_nearest_and_never_the_query(tmp_path: Path) -> None:
    program = compiled(better_with_examples(), modes=("retrieved",))
    library = program.library
    for row in ROWS[:10]:
        found = library.find({"text": row.text})
        assert len(found) == library.count
        assert row.text not in [demo["text"] for demo in found]
    lone = library.find({"text": "word1 word2"})
    vectors = (
        WordEncoder().encode([demo["text"] for demo in library.demos]) @ WordEncoder().encode(["word1 word2"])[0]
    )
    best = sorted(vectors.tolist(), reverse=True)[: library.count]
    similarities = WordEncoder().encode([demo["text"] for demo in lone]) @ WordEncoder().encode(["word1 word2"])[0]
    assert sorted(similarities.tolist(), reverse=True) == pytest.approx(best, abs=1e-6)


def test_loads_in_another_process(tmp_path: Path) -> None:
    """With no code of ours imported first: the quick way of somebody who deploys."""
    program = compiled(better_with_examples(), modes=("static",))
    program.save(tmp_path / "program.json")
    script = f"""
import dspy, promptsearch as ps
from typing import Literal
Grade = dspy.Signature("text -> label: Literal['bad', 'good']", "Say whether it is bad or good.")
program = ps.dspy.load({str(tmp_path / "program.json")!r}, dspy.Predict(Grade))
print(len(program.demos), sorted(program.weighings))
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.split(maxsplit=1)[0] == str(len(program.demos))


def test_a_crowd_asks_together_whoever_is_faster() -> None:
    """Batches of a run do not depend on which thread is faster: all wait for the slowest."""
    model = better_with_examples()
    lm = ps.dspy.lm(model, cache=False)
    program = become_ours(dspy.Predict(Grade))

    def slow_for_some(example: Any, prediction: Any, trace: object = None) -> bool:
        time.sleep(0.02 * (int(last_number(example.text) or 0) % 3))
        return right(example, prediction)

    with dspy.context(lm=lm):
        Runner(slow_for_some, 8, 0).run(program, ROWS[:28])
    assert [len(prompts) for prompts in model.calls] == [8, 8, 8, 4]
    assert all(prompts == sorted(prompts) for prompts in model.calls)
