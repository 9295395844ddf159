"""Runs programs on examples: many at once, each failure with its reason, nothing swallowed.

Invariant: a language model that fails is an exception. An answer that cannot be read, a prompt that does not fit, and
an error of the program or the metric are wrong answers, counted by reason; too many such errors are an exception.
Leaves out: which programs, and what is written down.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import dspy
from dspy.utils.exceptions import AdapterParseError, ContextWindowExceededError, LMError

from promptsearch.dspy.adapter import ANSWERED, ScoredAnswer
from promptsearch.dspy.engine import LocalEngine
from promptsearch.errors import BackendError, UserError
from promptsearch.lm.wrapped import map_in_threads

__all__ = ["Ran", "Runner", "score_of"]

_NOT_UNDERSTOOD = "not understood"
_TOO_LONG = "too long"
_FAILED = {"program": "program failed", "metric": "metric failed"}

_ENOUGH_TO_JUDGE = 4  # runs that all failed: no rows that happen to be bad

_logger = logging.getLogger("promptsearch.dspy")


@dataclass(frozen=True)
class Ran:
    """A program's run on one example.

    Attributes:
        score: what the metric says; 0 for a failure.
        failure: why there is no prediction; empty where there is one.
        prediction: what the program returned; None for a failure.
        trace: each call of a predictor: the predictor, its inputs, its outputs; empty unless asked for.
        scored: the answers that were chosen by log-probabilities, in the order asked.
    """

    score: float
    failure: str = ""
    prediction: Any = None
    trace: tuple[tuple[Any, Mapping[str, Any], Any], ...] = ()
    scored: tuple[ScoredAnswer, ...] = ()


@dataclass(frozen=True)
class Runner:
    """Runs programs.

    Attributes:
        metric: ``metric(example, prediction, trace)``: a number, a truth value, or a prediction with ``score``.
        threads: runs at once.
        max_errors: errors of the program itself, or of the metric, that one call takes for wrong answers.
    """

    metric: Callable[..., Any]
    threads: int
    max_errors: int
    _worked: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)
    _warned: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)

    def run(self, program: Any, examples: Sequence[Any], *, traced: bool = False) -> list[Ran]:
        """Run a program on examples.

        Args:
            program: any module.
            examples: ``dspy.Example``s with marked inputs.
            traced: whether to keep traces and to show them to the metric, as where demonstrations are bootstrapped.

        Raises:
            BackendError: the language model failed.
            UserError: the metric gives no usable number; or, with its cause, an error of the program or the metric,
                once this call had more than ``max_errors``, or where no run of this runner ever went without.
        """
        errors: list[_Mistake] = []
        with ExitStack() as stack:
            crowds = [stack.enter_context(each.crowd(self.threads, len(examples))) for each in _engines(program)]

            def run_one(example: Any) -> Ran:
                try:
                    return self._run_one(program, example, traced, errors)
                finally:
                    for finished in crowds:
                        finished()

            runs = map_in_threads(run_one, examples, self.threads)
        if len(errors) < len(examples):
            self._worked.set()
        elif len(errors) >= _ENOUGH_TO_JUDGE and not self._worked.is_set():
            first = errors[0]
            raise UserError(f"the {first.whose} failed on every example: {first}; mend it") from first.error
        return runs

    def _run_one(self, program: Any, example: Any, traced: bool, errors: list[_Mistake]) -> Ran:
        noted: list[ScoredAnswer] = []
        with dspy.context(trace=[]):
            token = ANSWERED.set(noted)
            try:
                prediction = program(**example.inputs())
                trace = list(dspy.settings.trace)
            except (BackendError, UserError):
                raise
            except ContextWindowExceededError:
                return Ran(0.0, _TOO_LONG)
            except AdapterParseError:
                return Ran(0.0, _NOT_UNDERSTOOD)
            except LMError as error:
                raise BackendError(f"the language model failed: {' '.join(str(error).split())[:300]}") from error
            except Exception as error:
                return self._failed(_Mistake("program", error), errors)
            finally:
                ANSWERED.reset(token)
            try:
                score = score_of(self.metric(example, prediction, trace if traced else None))
            except (BackendError, UserError):
                raise
            except (ContextWindowExceededError, AdapterParseError):
                return Ran(0.0, _FAILED["metric"])  # a judge that a model is: no mistake of its writer
            except LMError as error:
                raise BackendError(
                    f"the metric's language model failed: {' '.join(str(error).split())[:300]}"
                ) from error
            except Exception as error:
                return self._failed(_Mistake("metric", error), errors)
        return Ran(score, "", prediction, tuple(trace) if traced else (), tuple(noted))

    def _failed(self, mistake: _Mistake, errors: list[_Mistake]) -> Ran:
        """A wrong answer, and the end where there were too many."""
        errors.append(mistake)
        if len(errors) > self.max_errors:
            raise UserError(
                f"the {mistake.whose} failed on more than max_errors={self.max_errors} examples, now with {mistake}; "
                "mend it, or allow more"
            ) from mistake.error
        if not self._warned.is_set():
            self._warned.set()
            _logger.warning("the %s failed on an example, which counts as wrong: %s", mistake.whose, mistake)
        return Ran(0.0, _FAILED[mistake.whose])


@dataclass(frozen=True)
class _Mistake:
    """An error of the user's own code.

    Attributes:
        whose: ``"program"`` or ``"metric"``.
        error: the error.
    """

    whose: str
    error: Exception

    def __str__(self) -> str:
        return f"{type(self.error).__name__}: {' '.join(str(self.error).split())[:200]}"


def _engines(program: Any) -> list[LocalEngine]:
    """The engines of this process that a program asks."""
    models = [dspy.settings.lm, *(predictor.lm for predictor in program.predictors())]
    engines = [getattr(lm, "engine", None) for lm in models if lm is not None]
    found = {id(each.engine): each for each in engines if isinstance(each, LocalEngine)}
    return list(found.values())


def score_of(value: Any) -> float:
    """A metric's answer as a number.

    Raises:
        UserError: it is none.
    """
    if isinstance(value, dspy.Prediction):
        value = value.get("score", None)
    try:
        score = float(value)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"the metric gave {value!r}, which is no number; return a number, a truth value, or a dspy.Prediction "
            "with a score"
        ) from error
    if not math.isfinite(score):
        raise UserError(f"the metric gave {score}; return a finite number")
    return score
