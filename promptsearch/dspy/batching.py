"""Single requests of many threads, answered by one engine in batches.

DSPy asks from eight threads or more, one prompt a call, and a model on a processor writes eight texts together in a
third of the time that they take one by one. Whoever comes while nothing runs leads: it takes all that wait with the
same question and asks the engine once. What arrives meanwhile is the next leader's batch.
Invariant: every caller gets what the engine would have given to it alone: texts bit by bit, scores up to the
rounding of sums; a prompt that the engine refuses fails for its own caller only. No caller waits for one that is
gone: a leader that is interrupted leaves what it had begun to the next.
Leaves out: the engine's own way to run a batch, and what prompts mean.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from typing import Any
from weakref import WeakValueDictionary

from promptsearch.errors import BackendError, UserError
from promptsearch.lm.base import Completion, Engine, FloatArray, GenerationParams

__all__ = ["Dispatcher", "shared_dispatcher"]

_QUIET = 0.02  # seconds without a new caller, after which a leader goes ahead with fewer than came together lately
_PATIENCE = 0.5  # seconds without a new one of a crowd, after which its leader goes ahead
_REMEMBERED = 3  # turns

Question = GenerationParams | tuple[str, ...]
"""How to generate, without the seeds; or the continuations to score."""


@dataclass(eq=False)
class _Job:
    """What one caller waits for.

    Attributes:
        prompt: its prompt.
        question: jobs with equal ones are asked together.
        seed: what its text is sampled from.
        answer: a completion or scores, and the number of the prompt's tokens; None until then.
        error: why there is none.
        abandoned: whether its caller has gone.
        thread: where its caller waits.
        wake: gets an item whenever the caller should look again.
    """

    prompt: str
    question: Question
    seed: int = 0
    answer: tuple[Any, int] | None = None
    error: Exception | None = None
    abandoned: bool = False
    thread: int = field(default_factory=threading.get_ident)
    wake: SimpleQueue[None] = field(default_factory=SimpleQueue)

    @property
    def settled(self) -> bool:
        return self.answer is not None or self.error is not None or self.abandoned


@dataclass
class _Crowd:
    """Threads that work through tasks.

    Attributes:
        threads: how many, each with one task at a time.
        tasks: tasks that are not finished.
    """

    threads: int
    tasks: int


class Dispatcher:
    """One engine for many threads.

    Args:
        engine: the engine; it is asked by one thread at a time.

    Attributes:
        engine: the same.
    """

    # Ctrl-C may come between any two instructions. Locks and queues of C are whole by then; a threading.Condition,
    # which is written in Python, may have been left locked.

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._lock = threading.Lock()
        self._waiting: list[_Job] = []  # in the order of arrival; a leader's stay until they are settled
        self._leader: _Job | None = None
        self._lately: deque[int] = deque(maxlen=_REMEMBERED)  # how many waited when the last turns began
        self._crowd: _Crowd | None = None

    def generate(self, prompt: str, params: GenerationParams) -> Completion:
        """Complete a prompt, together with those of other threads that ask for the same parameters.

        Args:
            prompt: the prompt.
            params: how to generate. Callers whose ``until`` differ are not batched, since the engine asks that
                function about all prompts of a call.

        Returns:
            What ``engine.generate([prompt], params)[0]`` gives.

        Raises:
            PromptsearchError: as of ``engine.generate``.
        """
        return self.generate_counted(prompt, params)[0]

    def score(self, prompt: str, continuations: Sequence[str]) -> FloatArray:
        """Score continuations, together with the prompts of other threads that ask about the same ones.

        Args:
            prompt: the prompt.
            continuations: texts that may follow it.

        Returns:
            Natural log-probability of each, shape (continuations,).

        Raises:
            PromptsearchError: as of ``engine.score``.
        """
        return self.score_counted(prompt, continuations)[0]

    def generate_counted(self, prompt: str, params: GenerationParams) -> tuple[Completion, int]:
        """:meth:`generate`, and the number of the prompt's tokens, for which no other caller has to be waited."""
        params.require_seeds(1)
        seed, _ = params.seed_of(0)
        answer: tuple[Completion, int] = self._answer(_Job(prompt, replace(params, seed=0, seeds=()), seed))
        return answer

    def score_counted(self, prompt: str, continuations: Sequence[str]) -> tuple[FloatArray, int]:
        """:meth:`score`, and the number of the prompt's tokens."""
        answer: tuple[FloatArray, int] = self._answer(_Job(prompt, tuple(continuations)))
        return answer

    @contextmanager
    def crowd(self, threads: int, tasks: int) -> Iterator[Callable[[], None]]:
        """While so many threads work through so many tasks, wait for all of them before each batch.

        So that batches, and with them the last digits of what they give, do not depend on which thread is faster.

        Args:
            threads: threads that ask, each for one task at a time.
            tasks: tasks in all.

        Yields:
            What has to be called at the end of each task.
        """
        crowd = self._crowd = _Crowd(threads, tasks)
        try:
            yield lambda: self._finish_one(crowd)
        finally:
            self._crowd = None

    def _finish_one(self, crowd: _Crowd) -> None:
        with self._lock:
            crowd.tasks -= 1
            if self._leader is not None:
                self._leader.wake.put(None)  # it waits for fewer from now on

    def _answer(self, job: _Job) -> tuple[Any, int]:
        try:
            self._enter(job)
            while jobs := self._turn(job):
                self._run(jobs)
                self._step_down(job)
        finally:
            job.abandoned = True
            try:
                self._step_down(job)
            except KeyboardInterrupt:  # once more, or everyone would wait for this one forever
                self._step_down(job)
                raise
        if job.error is not None:
            raise job.error
        assert job.answer is not None
        return job.answer

    def _enter(self, job: _Job) -> None:
        with self._lock:
            leader = self._leader
            if leader is not None and leader.thread == job.thread:
                raise BackendError(f"the model {self.engine.name!r} is generating; `until` cannot ask it meanwhile")
            self._waiting.append(job)
            if leader is not None:
                leader.wake.put(None)  # it may be gathering

    def _turn(self, job: _Job) -> list[_Job]:
        """Wait until a job is settled, or until its thread leads; then which jobs to ask about together."""
        while not job.settled:
            with self._lock:
                if self._leader is None and not job.settled:
                    self._leader = job
            if self._leader is job:
                self._gather(job)
                waiting = list(self._waiting)
                question = waiting[0].question if self._crowd is None else _commonest([w.question for w in waiting])
                asking = [each for each in waiting if each.question == question]
                return sorted(asking, key=lambda each: (each.prompt, each.seed))  # the order of arrival is chance
            job.wake.get()
        return []

    def _gather(self, job: _Job) -> None:
        """Let the whole crowd come; without one, as many as came together lately.

        Who was just answered is about to ask again. A lone caller does not wait, and nobody waits long: a thread may
        be busy with something else, or wait for what another one holds.
        """
        with suppress(Empty):
            while len(self._waiting) < self._expected():
                job.wake.get(timeout=_QUIET if self._crowd is None else _PATIENCE)
        self._lately.append(len(self._waiting))

    def _expected(self) -> int:
        crowd = self._crowd
        return max(self._lately, default=1) if crowd is None else min(crowd.threads, crowd.tasks)

    def _run(self, jobs: Sequence[_Job]) -> None:
        """Ask about jobs of one question together; where the engine refuses, one by one."""
        try:
            answers = _asked(self.engine, jobs)
        except UserError as error:
            if len(jobs) == 1:
                jobs[0].error = error
                return
            for job in jobs:  # the prompt at fault fails alone
                self._run([job])
        except Exception as error:
            for job in jobs:
                job.error = error
        else:
            for job, answer in zip(jobs, answers, strict=True):
                job.answer = answer

    def _step_down(self, job: _Job) -> None:
        """Stop leading, if the job's thread leads; wake whose job is settled, and one to lead if nobody does.

        Doing it again does no harm, which an interrupted thread does.
        """
        with self._lock:
            if self._leader is job:
                self._leader = None
            unsettled = [each for each in self._waiting if not each.settled]
            for each in self._waiting:
                if each.settled or (self._leader is None and each is unsettled[0]):
                    each.wake.put(None)
            self._waiting = unsettled


def _commonest(questions: Sequence[Question]) -> Question:
    """The question that most ask; of several the first by its text."""
    return min(questions, key=lambda each: (-questions.count(each), repr(each)))


def _asked(engine: Engine, jobs: Sequence[_Job]) -> list[tuple[Any, int]]:
    """What the engine answers to each job, and the number of each prompt's tokens."""
    prompts = [job.prompt for job in jobs]
    question = jobs[0].question
    if isinstance(question, GenerationParams):
        if question.temperature > 0:
            question = replace(question, seeds=tuple(job.seed for job in jobs))
        answers: list[Any] = list(engine.generate(prompts, question))
    else:
        answers = list(engine.score(prompts, question))
    return list(zip(answers, engine.count_tokens(prompts), strict=True))


_dispatchers: WeakValueDictionary[int, Dispatcher] = WeakValueDictionary()
_opening = threading.Lock()


def shared_dispatcher(engine: Engine) -> Dispatcher:
    """The one dispatcher of an engine in this process, for as long as somebody holds it."""
    with _opening:
        dispatcher = _dispatchers.get(id(engine))  # a dispatcher holds its engine, so that no other has its id
        if dispatcher is None:
            dispatcher = _dispatchers[id(engine)] = Dispatcher(engine)
        return dispatcher
