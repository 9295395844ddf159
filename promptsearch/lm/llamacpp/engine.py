"""The language model protocol on llama.cpp, planned so that shared tokens are decoded once.

What the prompts of a call begin with is kept after it, and restored when a later call begins alike.
Invariant: a call's numbers depend on its arguments, the weights and the machine, never on earlier calls: a kept
beginning is always decoded alone, from an empty memory, whether the call decodes or restores it.
One engine belongs to one process; calls from several threads run one after another.
Leaves out: chat templates (text arrives rendered) and everything about tasks.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from promptsearch.errors import ArtifactError, BackendError, DataError, ModelError
from promptsearch.lm.base import Completion, FloatArray, FollowUp, GenerationParams
from promptsearch.lm.llamacpp.batching import Sequel, generate_batched
from promptsearch.lm.llamacpp.busy import BusyMeter
from promptsearch.lm.llamacpp.context import Context
from promptsearch.lm.llamacpp.library import llama
from promptsearch.lm.llamacpp.opening import PROCESSOR, open_on_device
from promptsearch.lm.llamacpp.prefix import PrefixState, PrefixStates
from promptsearch.lm.llamacpp.processors import usable_cores
from promptsearch.lm.llamacpp.sequences import affordable_sequences, generation_cells
from promptsearch.lm.llamacpp.stem import FIRST_PLACE, FixedStem, Stem
from promptsearch.lm.llamacpp.token_paths import TokenPaths, Tokens
from promptsearch.lm.llamacpp.traits import read_traits
from promptsearch.lm.llamacpp.vocabulary import Vocabulary
from promptsearch.lm.plan import (
    PROMPT_END,
    Decode,
    Fork,
    Limits,
    Operation,
    Read,
    Row,
    Tail,
    label_tail,
    most_cells,
    plan,
)
from promptsearch.lm.plan_singly import plan_singly

__all__ = ["LlamaEngine", "log_normalizers"]

_logger = logging.getLogger("promptsearch.llamacpp")

_CELLS = 8192  # enough for a prompt of many demonstrations and a batch beside it
_BATCH = 512  # as fast as 256 on processors; 128 and fewer lose a tenth of the speed and more
_LARGEST_BATCH = 2048
_SEQUENCES = 256  # llama.cpp's own limit
_MOST_BRANCHES = 224  # of a label tree; the rest is for trunks
_PLACES = (1, 8, 64, 128)  # requests that generate at once; more gain little
_ROOM_STEP = 256
_PREFIX = 0  # the sequence of what all prompts of a call begin with
_MOST_KEPT = 2**30  # bytes of kept beginnings


class LlamaEngine:
    """A GGUF model in this process.

    Args:
        path: the file whose weights run.
        name: what a person calls the model.
        fingerprint: identity of model and weights.
        threads: processor threads; None for one each core that this process may use.
    """

    def __init__(self, path: Path, *, name: str, fingerprint: str, threads: int | None = None) -> None:
        self._model, self._device = open_on_device(path)
        self._contexts: list[Context] = []
        self._release = weakref.finalize(self, _free, self._contexts, self._model)
        self._name = name
        self._fingerprint = fingerprint
        self._lock = threading.RLock()
        self.vocabulary = Vocabulary(self._model)
        self.traits = read_traits(self._model)
        _logger.info("%s is %s", name, self.traits.description)
        self._parameters = int(llama().llama_model_n_params(self._model))
        self._threads = threads or usable_cores()
        self._meter = BusyMeter(self._threads)
        self._context_tokens = min(int(llama().llama_model_n_ctx_train(self._model)), _CELLS)
        self._paths = TokenPaths(self.vocabulary, self._context_tokens)
        self._context = self._make_context(
            cells=self._context_tokens + _BATCH,
            batch=_LARGEST_BATCH,
            sequences=affordable_sequences(self._model, self.traits, most=_SEQUENCES),
            unified=True,
        )
        self._stem: Stem | None = None
        self._generating = False
        memory = psutil.virtual_memory().total
        self._generation_cells = generation_cells(self._model, memory)
        self._states = PrefixStates(min(_MOST_KEPT, memory // 16))
        self._tokens_of_closed = self._tokens_restored = self._prefix_tokens = 0

    def __deepcopy__(self, memo: dict[int, object]) -> LlamaEngine:
        return self

    def __enter__(self) -> LlamaEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._model is None

    @property
    def name(self) -> str:
        """What a person calls the model."""
        return self._name

    @property
    def follows_grammars(self) -> bool:
        """True: llama.cpp's own grammars constrain what is written."""
        return True

    @property
    def fingerprint(self) -> str:
        """Identity of model file, weight type and llama.cpp binding."""
        return self._fingerprint

    @property
    def device(self) -> str:
        """What runs the model: ``"cpu"``, or the name of an accelerator."""
        return self._device

    @property
    def processor_share(self) -> float:
        """Share of its threads' time that the model got lately, in [0, 1]; 1.0 before there was enough to tell."""
        return self._meter.share

    @property
    def context_tokens(self) -> int:
        """Tokens that a prompt and its answer may take together."""
        return self._context_tokens

    @property
    def chat_template(self) -> str | None:
        """The chat template in the file's metadata."""
        with self._lock:
            self._require_open()
            raw: bytes | None = llama().llama_model_chat_template(self._model, None)
        return None if raw is None else raw.decode("utf-8", errors="replace")

    @property
    def text_marks(self) -> tuple[str, str]:
        """The beginning-of-text and end-of-text tokens, as the chat template writes them."""
        return self.vocabulary.bos_text, self.vocabulary.eos_text

    @property
    def tokens_decoded(self) -> int:
        """Tokens run through the model since it was opened, but for those that were drafted in vain."""
        return self._tokens_of_closed + sum(context.tokens_decoded for context in self._contexts)

    @property
    def tokens_restored(self) -> int:
        """Tokens that were not run, since an earlier call's results for them were kept."""
        return self._tokens_restored

    @property
    def shares_beginnings(self) -> bool:
        """True: the prompts of a call form one prefix tree, and what they begin with is kept for later calls."""
        return True

    @property
    def reads_once(self) -> bool:
        """Whether :meth:`write_on` goes on from what was written; not where memory cannot be cut back."""
        return self.traits.cuts_back

    @property
    def parameters(self) -> int | None:
        """Number of the model's weights."""
        return self._parameters

    @property
    def prefix_tokens(self) -> int:
        """Tokens of the beginnings that each call's prompts share, run or restored."""
        return self._prefix_tokens

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Number of tokens of each prompt."""
        with self._lock:
            self._require_open()
            return self._paths.lengths(prompts)

    def check_continuations(self, continuations: Sequence[str]) -> None:
        """Refuse answers that cannot be told apart.

        Raises:
            DataError: an answer of no tokens, or two with the same tokens.
        """
        with self._lock:
            self._require_open()
            self._paths.of_choices(continuations)

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> FloatArray:
        """Natural log-probability of each continuation after each prompt, shape (prompts, continuations)."""
        return self.score_and_next(prompts, continuations, ())[0]

    def score_and_next(
        self, prompts: Sequence[str], continuations: Sequence[str], tokens: Sequence[int]
    ) -> tuple[FloatArray, FloatArray]:
        """Scores of continuations, and from the same run the log-probabilities of next tokens.

        Args:
            prompts: the prompts.
            continuations: the continuations, at least one.
            tokens: numbers of tokens of the vocabulary.

        Returns:
            Shapes (prompts, continuations) and (prompts, tokens).

        Raises:
            DataError: the vocabulary has no such token.
        """
        with self._lock:
            self._require_open()
            columns = self._checked_tokens(tokens)
            beginning = [self._paths.begins_run(prompt) for prompt in prompts]
            if len(set(beginning)) < 2:
                return self._score_choices(prompts, continuations, any(beginning), columns)
            scores, following = np.zeros((len(prompts), len(continuations))), np.zeros((len(prompts), len(columns)))
            for begins_run in (False, True):  # the same labels have other tokens
                rows = [row for row, begins in enumerate(beginning) if begins is begins_run]
                part = [prompts[row] for row in rows]
                scores[rows], following[rows] = self._score_choices(part, continuations, begins_run, columns)
            return scores, following

    def likely_next(self, prompts: Sequence[str], count: int) -> list[list[tuple[int, float]]]:
        """The likeliest next tokens of each prompt with their natural log-probabilities, the likeliest first."""
        with self._lock:
            self._require_open()
            paths = self._paths.of_prompts(prompts, [0] * len(prompts))
            found: dict[Tokens, list[tuple[int, float]]] = {}
            prefix = self._shared_prefix(prompts, paths)
            for read, logits, normalizer in self._run(self._plan(paths, Tail(), held=len(prefix)), prefix):
                best = np.argsort(-logits, kind="stable")[:count]
                found[paths[read.prompt]] = [(int(token), float(logits[token] - normalizer)) for token in best]
            return [list(found[path]) for path in paths]

    def score_each(self, prompts: Sequence[str], continuations: Sequence[Sequence[str]]) -> list[FloatArray]:
        """Natural log-probability of each prompt's own continuations, one array for each prompt.

        Equal continuations of one prompt score alike.
        """
        with self._lock:
            self._require_open()
            answers = []
            for prompt, texts in zip(prompts, continuations, strict=True):
                begins_run = self._paths.begins_run(prompt)
                answers.append([self._paths.of_answer(text, begins_run) for text in texts])
            paths = self._paths.of_prompts(prompts, [max(map(len, texts), default=0) for texts in answers])
            return self._score_answers(paths, answers, self._shared_prefix(prompts, paths))

    def generate(self, prompts: Sequence[str], params: GenerationParams) -> list[Completion]:
        """One completion for each prompt, in order; many run at once."""
        params.require_seeds(len(prompts))
        return [first for (first,) in self._generate(prompts, params)]

    def write_on(
        self, prompts: Sequence[str], params: GenerationParams, then: FollowUp
    ) -> list[tuple[Completion, Completion]]:
        """What two calls of :meth:`generate` would give; what both prompts of a request begin with is decoded once.

        Second prompts that are longer than was said are answered by a call of their own.
        """
        params.require_seeds(len(prompts))
        then.params.require_seeds(len(prompts))
        rooms = [count + params.max_tokens + then.between for count in self.count_tokens(prompts)]
        late: dict[int, str] = {}

        def path(number: int, completion: Completion) -> Tokens | None:
            prompt = then.prompt(number, completion)
            (tokens,) = self._paths.of_prompts([prompt], [then.params.max_tokens])
            if len(tokens) <= rooms[number]:
                return self._marked([prompt], [tokens])[0]
            late[number] = prompt
            return None

        further = then.between + then.params.max_tokens
        found = self._generate(prompts, params, further, Sequel(path, then.params))
        draws = [then.params.seed_of(number) for number in late]
        for number, second in zip(late, self._generate(list(late.values()), then.params, draws=draws), strict=True):
            found[number] += second
        return [(first, second) for first, second in found]

    def _generate(
        self,
        prompts: Sequence[str],
        params: GenerationParams,
        further: int = 0,
        sequel: Sequel | None = None,
        draws: Sequence[tuple[int, int]] = (),
    ) -> list[list[Completion]]:
        """Completions of each prompt.

        Args:
            prompts: the prompts.
            params: how to generate.
            further: tokens to have room for beside what that takes.
            sequel: what requests go on to.
            draws: what each request samples from; what ``params`` says where there are none.
        """
        with self._lock:
            self._require_open()
            paths = self._paths.of_prompts(prompts, [params.max_tokens] * len(prompts))
            if not paths:
                return []
            self._prefix_tokens += len(self._shared_prefix(prompts, paths))
            stem = self._stem_for(len(paths), max(map(len, paths)) + params.max_tokens + further)
            self._generating = True
            try:
                marked = self._marked(prompts, paths)
                speculates = self.traits.cuts_back and self._device == PROCESSOR
                completions, restored = generate_batched(
                    stem, self.vocabulary, marked, params, sequel, draws, speculates=speculates
                )
            finally:
                self._generating = False
            self._tokens_restored += restored
            return completions

    def forget(self) -> None:
        """Forget what earlier calls left: kept beginnings and the newest prompt. No number changes by it."""
        with self._lock:
            self._require_open()
            self._states.clear()
            if self._stem is not None:
                self._stem.forget()

    def prefix_state(self, prompt: str) -> PrefixState | None:
        """What the model keeps of a prompt's beginning; None where it is too short to be worth keeping."""
        with self._lock:
            self._require_open()
            prefix = self._shared_prefix([prompt], self._paths.of_prompts([prompt], [0]))
            if not prefix:
                return None
            self._begin(prefix, room=len(prefix))
            data = self._states.find(prefix)
            return None if data is None else PrefixState(self._state_identity, prefix, data)

    def keep_prefix_state(self, state: PrefixState, prompt: str) -> None:
        """Take in what another process computed for the beginning of a prompt, so that the first call need not.

        What this process computed itself stays.

        Raises:
            ArtifactError: it belongs to another model, machine or prompt, or llama.cpp refuses it.
        """
        if state.identity != self._state_identity:
            raise ArtifactError(
                "the prefix state was computed with another model, on another kind of processor or by another "
                "llama.cpp; save the prompt anew"
            )
        with self._lock:
            self._require_open()
            if not state.tokens or state.tokens != self._shared_prefix(
                [prompt], self._paths.of_prompts([prompt], [0])
            ):
                raise ArtifactError("the prefix state belongs to another prompt; save the prompt anew")
            if self._states.find(state.tokens) is not None:
                return
            self._context.clear(len(state.tokens))
            try:
                self._context.restore(_PREFIX, state.data)
            except BackendError as error:
                raise ArtifactError(f"the prefix state cannot be used ({error}); save the prompt anew") from error
            self._states.keep(state.tokens, state.data)

    def close(self) -> None:
        """Free context and weights; closing twice is harmless."""
        with self._lock:
            self._require_idle()
            self._release()
            self._states.clear()
            self._model = None

    @property
    def _state_identity(self) -> str:
        """What a kept beginning depends on: the weights, and what computes with them."""
        system = llama().llama_print_system_info().decode("utf-8", errors="replace")
        digest = hashlib.sha256(f"{self._device}|{system}".encode()).hexdigest()
        return f"{self._fingerprint}:{digest[:16]}"

    def _require_open(self) -> None:
        if self._model is None:
            raise BackendError(f"the model {self._name!r} has been closed; open it again")
        self._require_idle()

    def _require_idle(self) -> None:
        """Refuse a call from within a call, which would change the memory under it."""
        if self._generating:
            raise BackendError(f"the model {self._name!r} is generating; `until` cannot ask it meanwhile")

    def _make_context(self, *, cells: int, batch: int, sequences: int, unified: bool) -> Context:
        """A context that is freed with the engine."""
        context = Context(
            self._model,
            cells=cells,
            batch=batch,
            sequences=sequences,
            threads=self._threads,
            unified=unified,
            meter=self._meter if self._device == PROCESSOR else None,
        )
        self._contexts.append(context)
        return context

    def _stem_for(self, requests: int, tokens: int) -> Stem:
        """A stem with places for as many requests as memory allows, each with room for so many tokens."""
        room = -(-tokens // _ROOM_STEP) * _ROOM_STEP
        affordable = max(1, self._generation_cells // room - FIRST_PLACE)  # beside the two that serve them
        most = min(_PLACES[-1], self._context.sequences - FIRST_PLACE, affordable)
        places = min(most, next((size for size in _PLACES if size >= requests), most))
        stem = self._stem
        if stem is None or stem.context.sequences < FIRST_PLACE + places or stem.context.room < room:
            self._drop_stem()
            stem = self._stem = self._make_stem(FIRST_PLACE + places, room)
        return stem

    def _drop_stem(self) -> None:
        if self._stem is None:
            return
        context, self._stem = self._stem.context, None
        self._contexts.remove(context)
        self._tokens_of_closed += context.tokens_decoded
        context.close()

    def _make_stem(self, sequences: int, room: int) -> Stem:
        """A stem with memory for ``sequences`` of ``room`` tokens; fewer where the machine has not so much."""
        context = self._make_context(cells=sequences * room, batch=_BATCH, sequences=sequences, unified=False)
        try:
            context.clear()
        except ModelError:
            self._contexts.remove(context)
            if sequences == FIRST_PLACE + 1:
                raise
            return self._make_stem(max(FIRST_PLACE + 1, sequences // 2), room)
        return Stem(context) if self.traits.cuts_back else FixedStem(context)

    def _marked(self, prompts: Sequence[str], paths: Sequence[Tokens]) -> list[Tokens]:
        """Prompts for generation, with marks for what is read in tiles; none where :class:`FixedStem` reads them."""
        return self._paths.marked(prompts, paths) if self.traits.cuts_back else list(paths)

    def _shared_prefix(self, prompts: Sequence[str], paths: Sequence[Tokens]) -> Tokens:
        """What all prompts begin with; nothing where the memory's states do not hold all that they need."""
        return self._paths.shared(prompts, paths) if self.traits.cuts_back else ()

    def _begin(self, prefix: Tokens, room: int) -> None:
        """Empty the memory but for the prefix, and have ``room`` cells with it."""
        self._context.clear(room)
        if not prefix:
            return
        self._prefix_tokens += len(prefix)
        kept = self._states.find(prefix)
        if kept is not None:
            self._context.restore(_PREFIX, kept)
            self._tokens_restored += len(prefix)
            return
        for start in range(0, len(prefix), _BATCH):
            part = enumerate(prefix[start : start + _BATCH], start)
            self._context.decode([Row(token, position, (_PREFIX,)) for position, token in part], [])
        self._states.keep(prefix, self._context.state(_PREFIX))

    def _score_choices(
        self, prompts: Sequence[str], continuations: Sequence[str], begins_run: bool, columns: NDArray[np.intp]
    ) -> tuple[FloatArray, FloatArray]:
        """What :meth:`score_and_next` gives, for prompts after which labels have the same tokens."""
        labels = self._paths.of_choices(continuations, begins_run)
        paths = self._paths.of_prompts(prompts, [max(map(len, labels), default=0)] * len(prompts))
        prefix = self._shared_prefix(prompts, paths)
        scores, following = np.zeros((len(prompts), len(labels))), np.zeros((len(prompts), len(columns)))
        longest = max(map(len, paths), default=0)
        for group in _label_groups(labels, min(_LARGEST_BATCH - 1, self._context.cells - longest)):
            part = [labels[index] for index in group]
            scores[:, group], following = self._score_labels(paths, part, prefix, columns)
        return scores, following

    def _score_labels(
        self, paths: Sequence[Tokens], labels: Sequence[Tokens], prefix: Tokens, columns: NDArray[np.intp]
    ) -> tuple[FloatArray, FloatArray]:
        """Scores of labels, and log-probabilities of what may come next instead."""
        tail, label_paths = label_tail(labels)
        wanted = _wanted_by_node(labels, label_paths)
        scores, following = np.zeros((len(paths), len(labels))), np.zeros((len(paths), len(columns)))
        for read, logits, normalizer in self._run(self._plan(paths, tail, held=len(prefix)), prefix):
            places, tokens = wanted[read.node]
            scores[read.prompt, places] += logits[tokens] - normalizer
            if read.node == PROMPT_END:
                following[read.prompt] = logits[columns] - normalizer
        return _spread_duplicates(scores, paths), _spread_duplicates(following, paths)

    def _checked_tokens(self, tokens: Sequence[int]) -> NDArray[np.intp]:
        columns = np.array(tokens, dtype=np.intp)
        if not ((columns >= 0) & (columns < self.vocabulary.size)).all():
            raise DataError(f"the model has tokens 0 to {self.vocabulary.size - 1}, and others were asked for")
        return columns

    def _score_answers(
        self, paths: Sequence[Tokens], answers: Sequence[Sequence[Tokens]], prefix: Tokens
    ) -> list[FloatArray]:
        """Score each prompt's own answers: what stands before each of their tokens is a path of the prefix tree."""
        scores = [np.zeros(len(texts)) for texts in answers]
        wanted: dict[Tokens, list[tuple[int, int, int]]] = {}
        for row, (path, texts) in enumerate(zip(paths, answers, strict=True)):
            for column, tokens in enumerate(texts):
                for place, token in enumerate(tokens):
                    wanted.setdefault(path + tokens[:place], []).append((row, column, token))
        steps = list(wanted)
        for read, logits, normalizer in self._run(self._plan(steps, Tail(), held=len(prefix)), prefix):
            for row, column, token in wanted[steps[read.prompt]]:
                scores[row][column] += logits[token] - normalizer
        return scores

    def _run(
        self, operations: Sequence[Operation], prefix: Tokens
    ) -> Iterator[tuple[Read, NDArray[np.float32], float]]:
        """Run a schedule; each wanted prediction with its logits and the logarithm of their exponentials' sum."""
        self._begin(prefix, room=most_cells(operations, held=len(prefix)))
        for operation in operations:
            if isinstance(operation, Fork):
                self._context.fork(operation.source, operation.targets)
            elif isinstance(operation, Decode):
                reads = operation.reads
                logits = self._context.decode(operation.rows, [read.row for read in reads])
                yield from zip(reads, logits, log_normalizers(logits), strict=True)
            else:
                self._context.drop(operation.sequences)

    def _plan(self, paths: Sequence[Tokens], tail: Tail, held: int) -> list[Operation]:
        """Schedule prompts in the way that the model's memory allows."""
        batch = max(_BATCH, len(tail.tokens) + 1)
        limits = Limits(batch=batch, sequences=self._context.sequences, cells=self._context.cells)
        if self.traits.shares_tokens:
            return list(plan(paths, tail, limits, held))
        return list(plan_singly(paths, tail, limits))


def _free(contexts: list[Context], model: Any) -> None:
    """Give native memory back, once, when an engine is closed or forgotten."""
    for context in contexts:
        context.close()
    llama().llama_model_free(model)


def log_normalizers(logits: NDArray[np.float32]) -> FloatArray:
    """Logarithm of the sum of exponentials of each row, shape (rows,).

    Raises:
        BackendError: a logit is no number, or infinite.
    """
    with np.errstate(invalid="ignore"):
        peaks = logits.max(axis=1, keepdims=True)
        found = np.asarray(np.log(np.exp(logits - peaks).sum(axis=1)) + peaks[:, 0], dtype=np.float64)
    if not np.isfinite(found).all():
        raise BackendError("the model answered with values that are no numbers; its file may be damaged")
    return found


def _wanted_by_node(
    labels: Sequence[Tokens], label_paths: Sequence[Tokens]
) -> dict[int, tuple[list[int], list[int]]]:
    """For each tail node, the labels that pass it and the token that each continues with."""
    wanted: dict[int, tuple[list[int], list[int]]] = {}
    for column, (label, nodes) in enumerate(zip(labels, label_paths, strict=True)):
        for token, node in zip(label, nodes, strict=True):
            columns, tokens = wanted.setdefault(node, ([], []))
            columns.append(column)
            tokens.append(token)
    return wanted


def _label_groups(labels: Sequence[Tokens], room: int) -> list[list[int]]:
    """Split a label set whose tree would exceed ``room`` tokens, or leave too few sequences for trunks."""
    if any(len(label) > room for label in labels):
        raise DataError(f"a label of over {room} tokens cannot be scored; shorten the label")
    groups: list[list[int]] = []
    nodes = branches = 0
    for index, label in enumerate(labels):
        full = nodes + len(label) - 1 > room or branches + (len(label) > 1) > _MOST_BRANCHES
        if full or not groups:
            groups.append([])
            nodes = branches = 0
        groups[-1].append(index)
        nodes += len(label) - 1
        branches += len(label) > 1
    return groups


def _spread_duplicates(scores: FloatArray, paths: Sequence[Tokens]) -> FloatArray:
    """Give prompts with equal tokens the scores of the first of them."""
    first: dict[Tokens, int] = {}
    owners = [first.setdefault(path, index) for index, path in enumerate(paths)]
    return np.asarray(scores[owners])
