"""``DemoSearch``: the optimizer for DSPy programs.

It makes demonstrations for every predictor, searches which of them each shows, how many and in what order, jointly
over all predictors, by the strategies that ``optimize`` has, and confirms the best on rows that the search did not
see.
Invariant: a row that is asked about is never among the demonstrations; the same seed, data, program, model and budget
give the same program, also where a run was stopped and started again.
Leaves out: instructions; an optimizer of those can run before or after.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import dspy
import numpy as np
from dspy.teleprompt.teleprompt import Teleprompter

from promptsearch.budget import Budget
from promptsearch.dspy.adapter import STYLES
from promptsearch.dspy.bootstrapping import (
    Attempt,
    Shown,
    bootstrapped,
    demonstration_text,
    labelled,
    show_some,
    unique,
)
from promptsearch.dspy.checking import check_metric, check_name, check_rows, check_structure
from promptsearch.dspy.compiling import Compilation
from promptsearch.dspy.engine import LocalEngine
from promptsearch.dspy.fields import RATIONALES, choices_of, made_by_dspy, written
from promptsearch.dspy.joint import JointPool, ShotLimits, joint_space
from promptsearch.dspy.library import Library, query_text
from promptsearch.dspy.predictor import Predict, become_ours
from promptsearch.dspy.racing import DemoRace, RaceSettings, without_results
from promptsearch.dspy.rows import digest, plain_values, split_rows
from promptsearch.dspy.running import Runner
from promptsearch.embed.base import encoder_name
from promptsearch.embed.cache import CachedEncoder
from promptsearch.embed.transformer import encoder_source, resolve_encoder
from promptsearch.errors import BudgetError, UserError
from promptsearch.events import Listener, Note, Progress, silent
from promptsearch.lm.wrapped import DEFAULT_CONTEXT, estimate_tokens
from promptsearch.pool import Pool
from promptsearch.run.workbench import naming_pairs
from promptsearch.search.front import PREFERENCES
from promptsearch.search.registry import STRATEGIES
from promptsearch.search.space import SearchSpace, long_query
from promptsearch.store import Call, RunStore
from promptsearch.task import function_identity

__all__ = ["DemoSearch"]

_logger = logging.getLogger("promptsearch.dspy")

_MODES = ("static", "retrieved")
_LOCAL_THREADS = 32  # their calls become one batch of the engine
_MOST_BOOTSTRAPPED_ROWS = 200
_ENOUGH_BOOTSTRAPPED = 64  # demonstrations of each predictor
_BOOTSTRAPPING_SHARE = 0.25  # of the budget, for running the teacher
_OF_THE_JOB = (
    "budget",
    "strategy",
    "prefer",
    "modes",
    "adapter",
    "words",
    "scored",
    "metric_threshold",
    "max_bootstrapped_demos",
    "max_labeled_demos",
    "max_rounds",
    "num_candidate_programs",
    "stop_at_score",
)  # settings that change what a search finds


class DemoSearch(Teleprompter):  # type: ignore[misc]  # dspy has no types
    """Searches the demonstrations of a DSPy program.

    Is made with the arguments of ``BootstrapFewShotWithRandomSearch``, so that its name is all that changes in most
    programs that used it, and some of its own.

    Args:
        metric: ``metric(example, prediction, trace=None)``: a number, a truth value, or a prediction with ``score``;
            ``trace`` is given where demonstrations are bootstrapped. None asks whether all labels are equal.
        budget: ``"2m"``, ``"4000 evaluations"`` or a :class:`promptsearch.Budget`; an evaluation is one run of the
            program on one row. None allows as many as ``num_candidate_programs`` programs on all validation rows.
        strategy: ``"auto"``, ``"halving"``, ``"greedy"``, ``"tpe"`` or ``"random"``.
        prefer: ``"accuracy"``, or ``"cheap"`` for the shortest prompts within one standard error of the best.
        modes: among ``"static"`` (the same demonstrations for every query) and ``"retrieved"`` (each query's own, by
            similarity; costs no call of the model, and longer reading for each query).
        adapter: ``"plain"`` shows the task as :class:`promptsearch.dspy.PlainAdapter` does, ``"configured"`` as the
            adapter of ``dspy.configure``; ``"auto"`` is plain where the model runs in this process.
        words: whether the words around the fields are searched too, where the adapter is the plain one.
        scored: whether outputs of few values are chosen by calibrated log-probabilities where the engine can.
        encoder: None for the packaged one, a sentence-transformers name, or an object with ``encode(texts)``.
        seed: of everything random.
        run: a folder; every run of a program is written there as it happens, and the same call goes on where a
            stopped one ended.
        progress: True for a display on a terminal, False for none, or a function that hears events.
        metric_threshold: least score of a run that becomes a demonstration; None for a right one.
        teacher_settings: settings under which the teacher runs, such as ``{"lm": stronger}``.
        max_bootstrapped_demos: bootstrapped demonstrations of one predictor at most.
        max_labeled_demos: demonstrations of one predictor at most, where any of them is a labelled row.
        max_rounds: attempts to bootstrap each training row; the second shows what the first found, those after it
            are at temperature 1.
        num_candidate_programs: see ``budget``.
        stop_at_score: percent of the score at which the search ends, for a program that ran on all search rows; None
            for no such end.
        num_threads: runs at once; None for as many as suit the engine.
        max_errors: errors of the program or the metric, in one run of a program over some rows, that are taken for
            wrong answers; None for DSPy's setting.

    Raises:
        UserError: an argument is none of these.
    """

    def __init__(
        self,
        metric: Callable[..., Any] | None = None,
        *,
        budget: str | float | Budget | None = None,
        strategy: str = "auto",
        prefer: str = "accuracy",
        modes: Sequence[str] = _MODES,
        adapter: str = "auto",
        words: bool = True,
        scored: bool = True,
        encoder: object = None,
        seed: int = 0,
        run: str | Path | None = None,
        progress: bool | Listener = True,
        metric_threshold: float | None = None,
        teacher_settings: dict[str, Any] | None = None,
        max_bootstrapped_demos: int = 8,
        max_labeled_demos: int = 16,
        max_rounds: int = 2,
        num_candidate_programs: int = 16,
        stop_at_score: float | None = None,
        num_threads: int | None = None,
        max_errors: int | None = None,
    ) -> None:
        super().__init__()
        check_name("strategy", strategy, STRATEGIES)
        check_name("prefer", prefer, PREFERENCES)
        check_name("adapter", adapter, ("auto", "plain", "configured"))
        if isinstance(modes, str) or not modes:
            raise UserError(f"modes={modes!r} is no choice of at least one; give some of {', '.join(_MODES)}")
        for mode in modes:
            check_name("modes", mode, _MODES)
        check_metric(metric)
        if not isinstance(seed, int) or seed < 0:
            raise UserError(f"seed={seed!r} is no seed; give a whole number from 0")
        counts = {
            "max_bootstrapped_demos": max_bootstrapped_demos,
            "max_labeled_demos": max_labeled_demos,
            "max_rounds": max_rounds,
            "num_candidate_programs": num_candidate_programs,
            "num_threads": 1 if num_threads is None else num_threads,
        }
        for name, count in counts.items():
            if not isinstance(count, int) or count < (0 if name.endswith("demos") else 1):
                raise UserError(f"{name}={count!r} is no such number; give a whole number from 1 (demos: from 0)")
        self.metric = _all_equal if metric is None else metric
        self.budget = None if budget is None else Budget.parse(budget)
        if self.budget is not None and self.budget.tokens is not None:
            raise BudgetError(
                "DemoSearch counts runs of the program and time, and the budget names tokens; give a time ('2m') or "
                "evaluations ('4000 evaluations')"
            )
        self.strategy = strategy
        self.prefer = prefer
        self.modes = tuple(modes)
        self.adapter = adapter
        self.words = words
        self.scored = scored
        self.encoder = encoder
        self.seed = seed
        self.run = run
        self.progress = progress
        self.metric_threshold = metric_threshold
        self.teacher_settings = dict(teacher_settings or {})
        self.max_bootstrapped_demos = max_bootstrapped_demos
        self.max_labeled_demos = max_labeled_demos
        self.max_rounds = max_rounds
        self.num_candidate_programs = num_candidate_programs
        self.stop_at_score = stop_at_score
        self.num_threads = num_threads
        self.max_errors = max_errors

    def compile(
        self, student: Any, *, trainset: list[Any], teacher: Any = None, valset: list[Any] | None = None
    ) -> Any:
        """Find the student's demonstrations.

        Args:
            student: the program; it is copied.
            trainset: examples with marked inputs, of which demonstrations are made.
            teacher: a program of the same structure that bootstraps demonstrations; None for the student with
                labelled ones.
            valset: examples that candidates are measured on; None holds out half of the training rows.

        Returns:
            The program, with these attributes. ``score``: in percent, on the rows that confirmed it; ``validation``:
            the same as a :class:`promptsearch.Measurement`, with interval and number of rows; ``improvement``: a
            :class:`promptsearch.Difference` over the student without demonstrations on these rows;
            ``confirmed_apart``: whether the search did not see them, for which 12 validation rows (24 training
            rows, where half of them is held out) are the least. ``candidate_programs``: ``score``, ``subscores`` and
            ``program`` of the one returned, then of the other finalists by the rows that confirmed (``confirmed``),
            then of others by the search rows that they ran on. ``trial_logs``: what was tried, by number.
            Once there are candidates, Ctrl-C ends the search, and the best of them is confirmed and returned; a
            second one ends all.

        Raises:
            UserError: the rows, the program or the metric cannot be used.
            BackendError: the language model failed.
        """
        with self._listener() as listen:
            return _Job(self, student, teacher, trainset, valset, listen).compiled()

    def _listener(self) -> Any:
        if self.progress is True:
            from promptsearch.terminal import progress_display

            return progress_display()
        return nullcontext(silent if self.progress is False else self.progress)


def _all_equal(example: Any, prediction: Any, trace: object = None) -> bool:
    """Whether a prediction has all labels of an example, however they were reasoned."""
    labels = {name: value for name, value in example.labels().items() if name not in RATIONALES}
    return all(prediction.get(name, None) == value for name, value in labels.items())


class _Job:
    """One call of ``compile``."""

    def __init__(
        self,
        settings: DemoSearch,
        student: Any,
        teacher: Any,
        trainset: list[Any],
        valset: list[Any] | None,
        listen: Listener,
    ) -> None:
        self._settings = settings
        self._listen = listen
        self._start = time.monotonic()
        self._rng = np.random.default_rng([settings.seed, 0])
        if not isinstance(student, dspy.Module) or not student.predictors():
            raise UserError(
                f"the program, a {type(student).__name__}, has no dspy.Predict to show demonstrations to; give an "
                "instance of a dspy.Module that has one"
            )
        self._lm = _language_model(student)
        self._local = isinstance(getattr(self._lm, "engine", None), LocalEngine)
        usual = "plain" if self._local else "configured"
        self._adapter = usual if settings.adapter == "auto" else settings.adapter
        parts = {"trainset": list(trainset or ()), "valset": list(valset or ())}
        check_rows(student, parts, labels_compared=settings.metric is _all_equal)
        if teacher is not None:
            check_structure(teacher, student)
        self._student = self._prepared(student)
        self._teacher = teacher
        self._rows = split_rows(parts["trainset"], parts["valset"], settings.seed)
        errors = settings.max_errors if settings.max_errors is not None else dspy.settings.max_errors
        self._runner = Runner(settings.metric, settings.num_threads or self._usual_threads(), errors)
        self._store = RunStore(None if settings.run is None else Path(settings.run), self._identity())
        self._spent = max((call.elapsed for call in self._store.calls()), default=0.0)  # by a run that was stopped

    def compiled(self) -> Any:
        """Run all of it."""
        try:
            shown = self._demonstrations()
            race = self._race(shown)
            return race.finished(race.run())
        finally:
            self._store.close()

    def _race(self, shown: list[Shown]) -> DemoRace:
        libraries = self._libraries(shown)
        pool = self._pool(shown)
        compilation = Compilation(
            self._student, shown, pool, self._rows.validation, self._runner, self._store, libraries, self._elapsed
        )
        space = self._space(pool, retrieves=bool(libraries)) if shown else None
        settings = self._settings
        how = RaceSettings(
            settings.budget,
            settings.num_candidate_programs,
            settings.strategy,
            settings.prefer,
            settings.stop_at_score,
        )
        return DemoRace(how, compilation, space, self._rows, self._store, self._rng, self._listen, self._elapsed)

    # -- setting up -----------------------------------------------------------------------------------------

    def _elapsed(self) -> float:
        return self._spent + time.monotonic() - self._start

    def _usual_threads(self) -> int:
        return _LOCAL_THREADS if self._local else int(dspy.settings.num_threads or 8)

    def _prepared(self, student: Any) -> Any:
        """A copy of the student without demonstrations, whose predictors are ours where they can be."""
        copied = without_results(student.deepcopy())
        become_ours(copied, adapter=self._adapter, scored=self._settings.scored)
        for predictor in copied.predictors():
            predictor.demos, predictor.traces, predictor.train = [], [], []
        return copied

    def _identity(self) -> dict[str, str]:
        """What a record of runs belongs to."""
        settings = self._settings
        rows = [plain_values(row) for row in (*self._rows.training, *self._rows.validation)]
        signatures = [_described(each.signature) for each in self._student.predictors()]
        teacher = None if self._teacher is None else [_described(p.signature) for p in self._teacher.predictors()]
        return {
            "kind": "DemoSearch",
            "seed": str(settings.seed),
            "rows": digest(rows),
            "program": digest([type(self._student).__qualname__, signatures]),
            "teacher": digest([teacher, _plain_settings(settings.teacher_settings)]),
            "metric": digest(function_identity(settings.metric)),
            "model": str(getattr(self._lm, "model", "")),
            "model settings": digest(_request_settings(self._lm)),
            "encoder": settings.encoder if isinstance(settings.encoder, str) else type(settings.encoder).__name__,
            **{name: str(getattr(settings, name)) for name in _OF_THE_JOB},
        }

    # -- demonstrations -------------------------------------------------------------------------------------

    def _demonstrations(self) -> list[Shown]:
        """What may be shown, from the record or made and recorded."""
        kept = self._recorded_demonstrations()
        if kept is not None:
            return kept
        settings, rows = self._settings, self._rows
        ready = labelled(self._student, rows.training) if settings.max_labeled_demos else []
        covered = {each.predictor for each in ready}
        made: list[Shown] = []
        if settings.max_bootstrapped_demos and (
            settings.teacher_settings or self._teacher or not self._all_covered(covered)
        ):
            made = self._bootstrapped(ready)
        shown = unique([*made, *ready] if self._teacher else [*ready, *made], self._student)
        counts = {source: sum(each.source == source for each in shown) for source in ("labelled", "bootstrapped")}
        self._listen(Note(f"demonstrations: {counts['labelled']} labelled, {counts['bootstrapped']} bootstrapped"))
        if not shown and (settings.max_labeled_demos or settings.max_bootstrapped_demos):
            _logger.warning("no demonstration was found: no training row holds all fields, and no run was accepted")
        values = [[each.predictor, plain_values(each.fields), each.source, each.row] for each in shown]
        self._store.record_fact("demonstrations", values)
        return self._recorded_demonstrations() or []

    def _recorded_demonstrations(self) -> list[Shown] | None:
        """The demonstrations as they were written down; None before that."""
        kept = self._store.fact("demonstrations")
        return None if kept is None else [Shown(place, fields, source, row) for place, fields, source, row in kept]

    @property
    def _predictors(self) -> int:
        return len(self._student.predictors())

    def _all_covered(self, covered: set[int]) -> bool:
        return len(covered) == self._predictors

    def _bootstrapped(self, ready: Sequence[Shown]) -> list[Shown]:
        """Demonstrations from the teacher's runs, within a share of the budget."""
        settings, budget = self._settings, self._settings.budget
        most = _MOST_BOOTSTRAPPED_ROWS
        if budget is not None and budget.evaluations is not None:
            most = max(4, int(_BOOTSTRAPPING_SHARE * budget.evaluations / settings.max_rounds))
        rows = self._rows.training[:most]
        seconds = math.inf if budget is None or budget.seconds is None else budget.seconds
        self._listen(Progress("bootstrap", 0.0))

        def is_enough(found: Sequence[Shown]) -> bool:
            counts = [sum(each.predictor == place for each in found) for place in range(self._predictors)]
            self._listen(Progress("bootstrap", min(1.0, min(counts) / _ENOUGH_BOOTSTRAPPED)))
            return min(counts) >= _ENOUGH_BOOTSTRAPPED or self._elapsed() > _BOOTSTRAPPING_SHARE * seconds

        teacher, shown = self._ready_teacher(ready)
        with dspy.context(**settings.teacher_settings):
            return bootstrapped(
                teacher,
                [predictor.signature for predictor in self._student.predictors()],
                rows,
                self._runner,
                threshold=settings.metric_threshold,
                rounds=settings.max_rounds,
                passed_over=shown,
                is_enough=is_enough,
                recall=self._recall,
            )

    def _recall(self, name: str, make: Callable[[], list[Attempt]]) -> list[Attempt]:
        """Attempts from the record, or made and recorded."""
        key = f"bootstrap:{name}"
        call = self._store.find(key)
        if call is None:
            attempts = make()
            answers = tuple(each.to_list() for each in attempts)
            call = Call(key, "bootstrap", "", tuple(each.row for each in attempts), answers, 0, self._elapsed())
            self._store.record(call)
        return [Attempt.from_list(answer) for answer in call.answers]

    def _ready_teacher(self, ready: Sequence[Shown]) -> tuple[Any, frozenset[int]]:
        """The teacher, and rows that it shows; the student with a few of them where no teacher is given."""
        if self._teacher is None:
            teacher = self._student.deepcopy()
            rng = np.random.default_rng([self._settings.seed, 2])
            shown = show_some(teacher, ready, self._rows.training, rng, parts=self._adapter == "plain")
        else:
            teacher, shown = self._teacher.deepcopy(), frozenset()
        if "lm" in self._settings.teacher_settings:  # a predictor's own would go before it
            teacher.set_lm(self._settings.teacher_settings["lm"])
        return teacher, shown

    def _libraries(self, shown: Sequence[Shown]) -> dict[int, Library]:
        """The demonstrations of each predictor with an index, where candidates may retrieve."""
        if "retrieved" not in self._settings.modes or not shown or not self._ours:
            return {}
        self._listen(Progress("embed", 0.0))
        given = self._settings.encoder
        encoder = CachedEncoder(resolve_encoder(given))  # type: ignore[arg-type]  # it says itself what it refuses
        source = encoder_source(given) or None
        found = {}
        for place, predictor in enumerate(self._student.predictors()):
            names = list(predictor.signature.input_fields)
            demos = [each.fields for each in shown if each.predictor == place]
            if demos:
                vectors = encoder.encode([query_text(names, fields) for fields in demos])
                pool = Pool(range(len(demos)), vectors, encoder=encoder_name(encoder))
                found[place] = Library(names, demos, pool, encoder=encoder, source=source)
        return found

    # -- numbers --------------------------------------------------------------------------------------------

    def _pool(self, shown: Sequence[Shown]) -> JointPool:
        predictors = self._student.predictors()
        values = []
        for each in shown:
            fields = predictors[each.predictor].signature.output_fields
            few = [name for name, field in fields.items() if choices_of(field) is not None]
            values.append("|".join(written(each.fields[name]) for name in few))
        texts = [demonstration_text(predictors[each.predictor].signature, each.fields) for each in shown]
        made = tuple(each.source == "bootstrapped" for each in shown)
        return JointPool(tuple(each.predictor for each in shown), tuple(values), tuple(self._counted(texts)), made)

    def _counted(self, texts: Sequence[str]) -> list[int]:
        if self._local:
            return [int(count) for count in self._lm.engine.engine.count_tokens(list(texts))] if texts else []
        return [estimate_tokens(text) for text in texts]

    @property
    def _ours(self) -> bool:
        """Whether all predictors are ours; others take demonstrations only."""
        return all(isinstance(each, Predict) for each in self._student.predictors())

    @property
    def _searches_words(self) -> bool:
        return self._settings.words and self._adapter == "plain" and self._ours

    def _names(self) -> tuple[tuple[str, str], ...]:
        """Titles for input and output by the words of the instruction, where one predictor has one of each."""
        predictors = self._student.predictors()
        signature = predictors[0].signature
        if len(predictors) > 1 or len(signature.input_fields) != 1 or made_by_dspy(signature.instructions):
            return (("", ""),)
        return naming_pairs(signature.instructions)

    def _space(self, pool: JointPool, *, retrieves: bool) -> SearchSpace:
        asked = ["\n".join(map(written, row.inputs().toDict().values())) for row in self._rows.validation]
        lengths = self._counted(asked)
        openings = self._counted([each.signature.instructions for each in self._student.predictors()])
        answer = int(self._lm.kwargs.get("max_tokens") or 0) if self._lm is not None else 0
        modes = [mode for mode in self._settings.modes if mode == "static" or retrieves]
        return joint_space(
            pool,
            limits=ShotLimits(self._settings.max_bootstrapped_demos, self._settings.max_labeled_demos),
            modes=modes or ["static"],
            styles=tuple(STYLES) if self._searches_words else tuple(STYLES)[:1],
            names=self._names() if self._searches_words else (("", ""),),
            opening_tokens=max(openings),
            query_tokens=float(np.mean(lengths)) if lengths else 0.0,
            long_query=(long_query(lengths) if lengths else 0) + min(answer, 512),
            context_tokens=self._lm.engine.engine.context_tokens if self._local else 4 * DEFAULT_CONTEXT,
        )


def _plain_settings(settings: dict[str, Any]) -> list[Any]:
    """DSPy's settings as plain values, alike in every process: of objects their kind, of language models the name."""
    return [[name, _plain_setting(value)] for name, value in sorted(settings.items())]


def _plain_setting(value: Any) -> Any:
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    told = [value.model, _request_settings(value)] if isinstance(value, dspy.BaseLM) else []
    return [type(value).__name__, *told]


def _request_settings(lm: Any) -> str:
    """What a language model sends with every request, but for its key, which may change between two processes."""
    settings = getattr(lm, "kwargs", {})
    return repr(sorted((name, value) for name, value in settings.items() if name != "api_key"))


def _described(signature: Any) -> list[Any]:
    """Everything that a signature asks, as plain values."""
    fields = []
    for name, field in signature.fields.items():
        choices = choices_of(field)
        texts = None if choices is None else list(choices.texts)
        said = (field.json_schema_extra or {}).get("desc")
        fields.append([name, str(field.annotation), repr(field.metadata), said, texts])
    return [signature.instructions, fields]


def _language_model(student: Any) -> Any:
    """The model that the program runs on: its first predictor's own, or the configured one."""
    own = next((each.lm for each in student.predictors() if each.lm is not None), None)
    lm = own or dspy.settings.lm
    if lm is None:
        raise UserError(
            "no language model is configured; call dspy.configure(lm=promptsearch.dspy.lm()) first, or set_lm on "
            "the program"
        )
    return lm
