"""DSPy's optimizers on the packaged model, in a process of their own.

Each runs with its own defaults, or bounded: then it gets a time, and is asked for as many candidates, trials and
validation rows as fit (:mod:`benchmarks.rivals.plans`), by the seconds that a first few requests took. Where the time
is over all the same, requests but for proposals are refused, which DSPy counts as wrong answers, and the best
candidate so far stays.

What else is chosen for them, in their favour: one model for all copies (DSPy's deep copies would load the file
again), no cache but no retries either, one thread (the model takes one request at a time), no end after ten errors
(small models make more parse failures than that), a seed of its own for each sampled request, and a proposer whose
answers are always taken. The clock starts when model and DSPy are loaded.
Leaves out: which rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import dspy
import numpy as np
from dspy.propose.dataset_summary_generator import DatasetDescriptor
from dspy.teleprompt import BootstrapFewShotWithRandomSearch, KNNFewShot, LabeledFewShot, MIPROv2
from dspy.utils.exceptions import AdapterParseError

from benchmarks.dspy_engine import LlamaForDspy, open_llama
from benchmarks.rivals.adapters import task_adapter, task_signature
from benchmarks.rivals.jobs import DspyJob, Row
from benchmarks.rivals.plans import choice_rows, mipro_plan, random_search_plan
from benchmarks.throughput_processes import Spec
from promptsearch.embed.transformer import resolve_encoder
from promptsearch.measurement import measure

__all__ = ["DspyContender"]

_ANSWER_TOKENS = 64
_PLAIN_TOKENS = 16
_PROPOSAL_TOKENS = 512
_DOCUMENTED_NEIGHBOURS = 3  # KNNFewShot has no default; its documentation takes three
_SHOT_CHOICES = (16, 8, 4, 2, 1)
_PROBES = 6
_NO_LIMIT = 10**9
_OVERTIME = 1.1


class DspyContender:
    """Runs a job. One model, opened once."""

    def __init__(self, spec: Spec) -> None:
        self._llama = open_llama(spec.path, spec.context_tokens)

    def measure(self, job: DspyJob) -> dict[str, Any]:
        """Optimize, then answer the test rows."""
        run = _Run(self._llama, job)
        with dspy.context(lm=run.lm, adapter=run.adapter, num_threads=1, max_errors=_NO_LIMIT, disable_history=True):
            return run.cell()


class _Run:
    """One job at work.

    Attributes:
        lm: the model that answers the task.
        adapter: how the task is shown.
    """

    def __init__(self, llama: Any, job: DspyJob) -> None:
        llama.reset()
        self._job = job
        self._engine = LlamaForDspy(
            llama,
            dspy,
            plain_tokens=_PLAIN_TOKENS if job.adapter == "plain" else None,
            follows_schemas=job.adapter == "json",
            seed=job.seed,
        )
        self.lm = _model(self._engine, _ANSWER_TOKENS)
        self._proposer = _model(_Unhurried(self._engine), _PROPOSAL_TOKENS)
        self.adapter = task_adapter(job.adapter, job.labels)
        self._student = dspy.Predict(task_signature(job.instruction, job.labels))
        self._training, self._validation = _examples(job.training), _examples(job.validation)
        self._plan: dict[str, Any] = {}

    def cell(self) -> dict[str, Any]:
        """What the benchmark records."""
        start = time.perf_counter()
        if self._job.seconds is not None:
            self._engine.deadline = start + _OVERTIME * self._job.seconds
        error = None
        try:
            program = _OPTIMIZE[self._job.optimizer](self)
        except Exception as failure:  # a user is left with the program as it was
            error, program = f"{type(failure).__name__}: {failure}"[:300], self._student
        seconds = time.perf_counter() - start
        self._engine.deadline = None
        spent, unread = self._engine.snapshot(), self.adapter.failures
        return {
            "seconds": seconds,
            "usage": spent.to_dict(),
            "unparsable_while_optimizing": unread,
            "optimizer_error": error,
            "plan": {
                **self._plan,
                "training_rows": len(self._training),
                "validation_rows_given": len(self._validation),
            },
            "program": _described(program),
            **self._tested(program),
        }

    def _tested(self, program: Any) -> dict[str, Any]:
        start, before = time.perf_counter(), self._engine.snapshot()
        answers = [self._answer(program, text) for text, _ in self._job.test]
        scores = [float(answer == gold) for answer, (_, gold) in zip(answers, self._job.test, strict=True)]
        failures = {reason: answers.count(reason) for reason in (_UNPARSABLE, _REFUSED) if reason in answers}
        return {
            "test": measure(scores, failures).to_dict(),
            "answers": {label: answers.count(label) for label in self._job.labels},
            "test_seconds": time.perf_counter() - start,
            "test_usage": self._engine.snapshot().since(before).to_dict(),
        }

    def _answer(self, program: Any, text: str) -> str:
        try:
            return str(program(text=text).label)
        except AdapterParseError:
            return _UNPARSABLE
        except dspy.utils.exceptions.LMError:  # a prompt that does not fit, above all
            return _REFUSED

    # -- the optimizers -------------------------------------------------------------------------------------

    def zero_shot(self) -> Any:
        """The program as it is written."""
        return self._student

    def labeled(self) -> Any:
        """LabeledFewShot: 16 random rows. Bounded: the number of rows that does best on validation rows."""
        rows = _examples(self._job.pool)
        if self._job.seconds is None:
            return LabeledFewShot().compile(self._student, trainset=rows)
        programs = {count: LabeledFewShot(k=count).compile(self._student, trainset=rows) for count in _SHOT_CHOICES}
        return self._best(programs)

    def random_search(self) -> Any:
        """BootstrapFewShotWithRandomSearch."""
        candidates, validation = 16, self._validation
        if self._job.seconds is not None:
            calls = self._calls_left(LabeledFewShot().compile(self._student, trainset=self._training))
            plan = random_search_plan(calls, len(validation))
            candidates, validation = plan.candidates, validation[: plan.validation_rows]
            self._plan = plan.to_dict()
        optimizer = BootstrapFewShotWithRandomSearch(
            metric=_right, num_candidate_programs=candidates, num_threads=1, max_errors=_NO_LIMIT
        )
        return optimizer.compile(self._student, trainset=self._training, valset=validation)

    def knn(self) -> Any:
        """KNNFewShot over all rows. Bounded: without bootstrapping, with the number that does best."""
        rows = _examples(self._job.pool)
        vectorizer = dspy.Embedder(_Remembering(), caching=False)
        if self._job.seconds is None:
            return KNNFewShot(_DOCUMENTED_NEIGHBOURS, rows, vectorizer, metric=_right, max_errors=_NO_LIMIT).compile(
                self._student
            )
        programs = {
            count: KNNFewShot(count, rows, vectorizer, max_bootstrapped_demos=0, max_labeled_demos=count).compile(
                self._student
            )
            for count in _SHOT_CHOICES
        }
        return self._best(programs)

    def mipro(self) -> Any:
        """MIPROv2, proposing with the same model."""
        common = {
            "metric": _right,
            "prompt_model": self._proposer,
            "task_model": self.lm,
            "num_threads": 1,
            "max_errors": _NO_LIMIT,
            "seed": self._job.seed + 9,  # its own default, moved on
        }
        if self._job.seconds is None:
            optimizer = MIPROv2(auto="light", **common)
            return optimizer.compile(self._student, trainset=self._training, valset=self._validation)
        begun = time.perf_counter()
        call_seconds = self._seconds_a_call(LabeledFewShot(k=4).compile(self._student, trainset=self._training))
        proposal_seconds = self._seconds_a_proposal()
        plan = mipro_plan(
            self._job.seconds - (time.perf_counter() - begun),
            call_seconds=call_seconds,
            proposal_seconds=proposal_seconds,
            rows=len(self._validation),
            training_rows=len(self._training),
        )
        self._plan = plan.to_dict()
        optimizer = MIPROv2(auto=None, num_candidates=plan.sets, **common)
        optimizer.num_instruct_candidates = plan.instructions
        return optimizer.compile(
            self._student,
            trainset=self._training,
            valset=self._validation[: plan.validation_rows],
            num_trials=plan.trials,
            minibatch=plan.minibatch,
            program_aware_proposer=plan.informed,
            data_aware_proposer=plan.informed,
        )

    # -- what bounded runs need -----------------------------------------------------------------------------

    def _best(self, programs: dict[int, Any]) -> Any:
        """The program with most right answers on as many validation rows as the time pays for; fewer shots first."""
        rows = choice_rows(self._calls_left(next(iter(programs.values()))), len(programs), len(self._validation))
        rights = {
            count: sum(self._answer(program, example.text) == example.label for example in self._validation[:rows])
            for count, program in programs.items()
        }
        best = max(rights, key=lambda count: (rights[count], -count))
        self._plan = {"shots": best, "validation_rows": rows, "right_by_shots": rights}
        return programs[best]

    def _calls_left(self, program: Any) -> float:
        """Runs of a program that the rest of the time pays for."""
        begun = time.perf_counter()
        price = self._seconds_a_call(program)
        assert self._job.seconds is not None
        return max(0.0, self._job.seconds - (time.perf_counter() - begun)) / price

    def _seconds_a_call(self, program: Any) -> float:
        """Seconds of one run, the first of several left out: it pays for what the others share."""
        texts = [text for text, _ in self._job.training[: _PROBES + 1]]
        self._answer(program, texts[0])
        start = time.perf_counter()
        for text in texts[1:]:
            self._answer(program, text)
        return (time.perf_counter() - start) / max(1, len(texts) - 1)

    def _seconds_a_proposal(self) -> float:
        """Seconds of one request of MIPROv2's proposer, its very first."""
        start = time.perf_counter()
        with dspy.context(lm=self._proposer):
            dspy.Predict(DatasetDescriptor, temperature=1.0)(examples=repr(self._training[:10]))
        return time.perf_counter() - start


class _Unhurried:
    """The same engine without its deadline: a proposal that is refused ends MIPROv2 without any result."""

    def __init__(self, engine: LlamaForDspy) -> None:
        self._engine = engine
        self.supported_params = engine.supported_params

    def __deepcopy__(self, memo: dict[int, object]) -> _Unhurried:
        return self

    def complete(self, request: Any) -> Any:
        """Answer a request."""
        deadline, self._engine.deadline = self._engine.deadline, None
        try:
            return self._engine.complete(request)
        finally:
            self._engine.deadline = deadline


def _model(engine: object, tokens: int) -> Any:
    return dspy.LM("local/llama", engine=engine, cache=False, num_retries=0, temperature=0.0, max_tokens=tokens)


_UNPARSABLE = "unparsable"
_REFUSED = "refused"
_OPTIMIZE: dict[str, Callable[[_Run], Any]] = {
    "zero-shot": _Run.zero_shot,
    "labeled": _Run.labeled,
    "random-search": _Run.random_search,
    "knn": _Run.knn,
    "mipro": _Run.mipro,
}


def _right(example: Any, prediction: Any, trace: object = None) -> bool:
    return bool(example.label == prediction.label)


def _examples(rows: Sequence[Row]) -> list[Any]:
    return [dspy.Example(text=text, label=label).with_inputs("text") for text, label in rows]


class _Remembering:
    """The packaged encoder as DSPy's vectorizer; a text is encoded once however many optimizers ask."""

    def __init__(self) -> None:
        self._encoder = resolve_encoder(None)
        self._known: dict[str, Any] = {}

    def __call__(self, texts: Sequence[str]) -> Any:
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known.update(zip(new, self._encoder.encode(new), strict=True))
        return np.stack([self._known[text] for text in texts])


def _described(program: Any) -> dict[str, Any]:
    """What an optimizer made of the program."""
    predictors = program.predictors()
    score = getattr(program, "score", None)
    candidates = getattr(program, "candidate_programs", None) or []
    scores = [float(candidate["score"]) for candidate in candidates]
    return {
        "instruction": predictors[0].signature.instructions,
        "demonstrations": len(predictors[0].demos),
        "validation_score": float(score) if score is not None else (scores[0] if scores else None),
        "candidate_scores": scores,
    }
