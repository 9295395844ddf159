"""Models that know less than an engine: what they return is checked, and answers are matched to labels."""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptsearch.errors import BackendError, DataError, UserError
from promptsearch.lm.base import LM, Completion, FloatArray, GenerationParams
from promptsearch.lm.fake import FakeLM, ScriptedLM
from promptsearch.lm.wrapped import estimate_tokens, map_in_threads, match_label, wrap

PARAMS = GenerationParams(max_tokens=4)


class TwoMethods:
    """The least that a language model can be."""

    def __init__(self, scores: object = None, completions: object = None) -> None:
        self.scores = scores
        self.completions = completions

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> FloatArray:
        if self.scores is not None:
            return self.scores  # type: ignore[return-value]
        return np.full((len(prompts), len(continuations)), -1.0)

    def generate(self, prompts: Sequence[str], params: GenerationParams) -> list[Completion]:
        if self.completions is not None:
            return self.completions  # type: ignore[return-value]
        return [Completion("yes", 1, "stop") for _ in prompts]


class Named(TwoMethods):
    name = "mine"


def test_two_methods_make_an_engine() -> None:
    engine = wrap(TwoMethods())
    assert engine.score(["a", "b"], [" x", " y", " z"]).shape == (2, 3)
    assert engine.generate(["a"], PARAMS)[0].text == "yes"
    assert (engine.name, engine.context_tokens, engine.chat_template) == ("TwoMethods", 4096, None)
    assert engine.count_tokens(["", "abcd", "abcde"]) == [0, 1, 2]
    assert engine.tokens_decoded == 2 * 1 + 2 * 3 + 1 + 1
    assert isinstance(engine, LM)
    assert copy.deepcopy(engine) is engine


def test_a_name_is_taken_over() -> None:
    assert wrap(Named()).name == "mine"
    assert wrap(Named()).fingerprint != wrap(TwoMethods()).fingerprint


def test_an_engine_stays_as_it_is() -> None:
    engine = FakeLM()
    assert wrap(engine) is engine


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        (np.zeros((2, 3)), r"shape \(2, 3\); it must be .* \(1, 2\)"),
        ([["a", "b"]], r"returned \[\['a', 'b'\]\]"),
        ([[1.0], [2.0, 3.0]], "must return numbers"),
        ([[-1.0, float("nan")]], "nan for prompt 0 and continuation 1"),
        ([[float("inf"), -1.0]], "inf for prompt 0 and continuation 0"),
    ],
)
def test_wrong_scores_are_errors_that_show_them(scores: object, said: str) -> None:
    with pytest.raises(BackendError, match=said) as caught:
        wrap(TwoMethods(scores=scores)).score(["a"], ["x", "y"])
    assert "\n" not in str(caught.value)


def test_minus_infinity_is_a_score() -> None:
    assert np.isneginf(wrap(TwoMethods(scores=[[-np.inf, 0.0]])).score(["a"], ["x", "y"])[0, 0])


@pytest.mark.parametrize(
    ("completions", "said"),
    [
        ([], "returned 0 completions for 1 prompts"),
        ("yes", "returned 'yes'"),
        (["yes"], "returned 'yes' in its list"),
        ([Completion(None, 1, "stop")], "each item must be a Completion"),  # type: ignore[arg-type]
    ],
)
def test_wrong_completions_are_errors_that_show_them(completions: object, said: str) -> None:
    with pytest.raises(BackendError, match=said):
        wrap(TwoMethods(completions=completions)).generate(["a"], PARAMS)


class FollowsGrammars(TwoMethods):
    follows_grammars = True


@pytest.mark.parametrize("options", [{"grammar": 'root ::= "yes"'}, {"json_schema": {"type": "null"}}])
def test_a_grammar_goes_only_to_what_says_that_it_follows_one(options: dict[str, Any]) -> None:
    params = GenerationParams(**options)
    with pytest.raises(UserError, match=f"cannot follow {next(iter(options))}") as caught:
        wrap(TwoMethods()).generate(["a"], params)
    assert "\n" not in str(caught.value)
    assert wrap(FollowsGrammars()).generate(["a"], params)[0].text == "yes"


def test_log_probabilities_that_were_asked_for_must_come() -> None:
    params = GenerationParams(log_probabilities=True)
    with pytest.raises(BackendError, match="0 log-probabilities and 0 token texts for 1 tokens"):
        wrap(TwoMethods()).generate(["a"], params)
    told = [Completion("yes", 1, "stop", (-0.5,), ("yes",))]
    assert wrap(TwoMethods(completions=told)).generate(["a"], params) == told


def test_a_closed_model_is_an_error() -> None:
    engine = wrap(TwoMethods())
    engine.close()
    engine.close()
    with pytest.raises(BackendError, match="closed"):
        engine.score(["a"], ["x"])


LABELS = [" negative", " positive", " very positive", " no", " C", " C++"]


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        (" negative", 0),
        ("Negative.\nBecause", 0),
        ('"Positive"', 1),
        ("**positive** review", 1),
        ("\n\n positive\n\nReview: negative", 1),
        ("Very positive!", 2),
        ("The sentiment is very   positive", 2),
        ("The sentiment is positive.", 1),
        ("positive, not negative", 1),
        ("neither negative nor positive", None),
        ("nothing", None),
        ("negatively", None),
        ("No, it is not", 3),
        ("c++", 5),
        ("C", 4),
        ("", None),
        ("   \n ", None),
        ("I do not know\nnegative", None),
    ],
)
def test_an_answer_names_a_label(answer: str, label: int | None) -> None:
    assert match_label(answer, LABELS) == label


@pytest.mark.parametrize(
    ("answer", "labels", "label"),
    [
        ("正面的评价", ["负面", "正面"], 1),
        ("这是负面评价。", ["负面", "正面"], 0),
        ("ÉTÉ", ["été", "hiver"], 0),
        ("étés", ["été", "hiver"], None),
        ("yes", ["Yes", "YES"], None),
        ("YES", ["Yes", "YES"], 1),
        ("?!", ["?!", "..."], 0),
        ("1", ["0", "1"], 1),
        ("10", ["0", "1"], None),
        ("positive|negative", ["positive|negative", "none"], 0),
    ],
)
def test_labels_of_all_kinds(answer: str, labels: list[str], label: int | None) -> None:
    assert match_label(answer, labels) == label


def test_generated_choice_scores_the_named_label_and_nothing_else() -> None:
    lm = ScriptedLM(lambda prompt: " positive" if "good" in prompt else " hm")
    scores = lm.score(["good", "odd"], [" negative", " positive"])
    assert scores.tolist() == [[-np.inf, 0.0], [-np.inf, -np.inf]]
    assert lm.score([], [" negative"]).shape == (0, 1)


@pytest.mark.parametrize("labels", [[" yes", "yes "], [" "]])
def test_labels_that_no_answer_tells_apart_are_refused(labels: list[str]) -> None:
    with pytest.raises(DataError):
        ScriptedLM(lambda prompt: prompt).score(["a"], labels)


def test_estimated_tokens_count_bytes() -> None:
    assert [estimate_tokens(text) for text in ("", "a", "abcde", "日本語", "\ud800")] == [0, 1, 2, 3, 1]


def test_threads_keep_the_order_and_raise() -> None:
    assert map_in_threads(lambda number: number * 2, range(50), 8) == [number * 2 for number in range(50)]

    def fail(number: int) -> int:
        raise ValueError(str(number))

    with pytest.raises(ValueError, match="0"):
        map_in_threads(fail, range(50), 8)


@given(st.integers(0, 30), st.integers(1, 9))
def test_threads_give_what_a_loop_gives(items: int, threads: int) -> None:
    variable: ContextVar[int] = ContextVar("variable", default=0)
    token = variable.set(7)
    try:
        found = map_in_threads(lambda number: number * variable.get(), range(items), threads)
    finally:
        variable.reset(token)
    assert found == [number * 7 for number in range(items)]


class Waiting:
    """Calls of which the first fails once the second is in progress, which waits for ``release``."""

    def __init__(self, error: BaseException) -> None:
        self.begun, self.release = threading.Event(), threading.Event()
        self.asked: list[int] = []
        self.ended: list[int] = []
        self.daemons: list[bool] = []
        self._error = error

    def __call__(self, number: int) -> None:
        self.asked.append(number)
        self.daemons.append(threading.current_thread().daemon)
        if number == 0:
            self.begun.wait(30)
            raise self._error
        self.begun.set()
        self.release.wait(30)
        self.ended.append(number)


def test_an_interruption_leaves_calls_behind_that_wait_for_others() -> None:
    calls, stop = Waiting(KeyboardInterrupt()), threading.Event()
    with pytest.raises(KeyboardInterrupt):
        map_in_threads(calls, range(50), 2, stop)
    left = (list(calls.ended), stop.is_set())
    calls.release.set()
    assert left == ([], True)
    assert all(calls.daemons)  # the interpreter does not wait for them
    assert sorted(calls.asked) == [0, 1]


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
def test_other_calls_in_progress_are_waited_for(error: BaseException) -> None:
    calls = Waiting(error)
    stop = calls.release if isinstance(error, ValueError) else None  # set: calls that heed it end early
    if stop is None:
        threading.Timer(0.05, calls.release.set).start()
    with pytest.raises(type(error)):
        map_in_threads(calls, range(50), 2, stop)
    assert calls.ended == [1]
    assert all(daemon == (stop is not None) for daemon in calls.daemons)
