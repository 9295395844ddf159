"""Asks the model about items under candidates, and writes every answer down before it counts.

Invariant: the answers about an item under a reading depend on that reading, the item and the chunk it was asked in;
chunks are cut from the fixed item order, so that a resumed run asks in the same batches as an undisturbed one.
Leaves out: what the answers are worth; see :mod:`promptsearch.scoring`.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from promptsearch.answer_form import AnswerForm
from promptsearch.budget import Meter
from promptsearch.calibration import CONTENT_FREE
from promptsearch.candidate import Candidate
from promptsearch.errors import ContextError
from promptsearch.lm.base import Engine, FloatArray, GenerationParams, TellsNext, score_each
from promptsearch.metrics import Metric
from promptsearch.probabilities import normalized
from promptsearch.prompting import Built, PromptBuilder, template_of
from promptsearch.readout import packed, unpacked
from promptsearch.reasoning import Reasoner
from promptsearch.reranking import Reranker
from promptsearch.store import Call, RunStore
from promptsearch.task import Example

__all__ = ["Answers", "Asker", "Evaluator", "Matcher", "answer_grammar", "join", "join_members", "join_routes"]

_logger = logging.getLogger(__name__)
_Value = TypeVar("_Value")
_ITEMS_A_CALL = 64  # enough to fill batches, few enough that a kill loses little
_RETRIEVED_A_CALL = 16  # where each item brings its own demonstrations


_NUMBER = r"""root ::= [ ]? "-"? "$"? digits ([eE] [-+]? [0-9]+)? ([ ]? "/" [ ]? [0-9]+)? [\n]?
digits ::= whole ("." [0-9]+)? | "." [0-9]+ | pointed "," [0-9]+
pointed ::= [0-9]+ | [0-9] [0-9]? [0-9]? ("." [0-9] [0-9] [0-9])+
whole ::= [0-9]+ | [0-9] [0-9]? [0-9]? ("," [0-9] [0-9] [0-9])+
"""


@dataclass(frozen=True)
class Answers:
    """What the model said about items.

    Attributes:
        log_probabilities: of each label, shape (items, labels); rows of -inf where an item did not fit or the
            answer named no label. Empty for free text.
        texts: generated answers; empty for classification.
        fits: whether each item's prompt fitted, shape (items,).
        routes: which of a routed candidate's prompts each item got, shape (items,); None where there is only one.
        route_count: how many prompts the routed candidate has; 0 for others.
        rationales: the reasoning that led to each answer; empty where there was none.
        following: log-probabilities of next tokens after each item's prompt, shape (items, tokens), of an ensemble
            those that :func:`join_members` tells, zeros where it did not fit; None where none were asked for, or the
            answer was not read off what comes next.
    """

    log_probabilities: FloatArray
    texts: tuple[str, ...]
    fits: NDArray[np.bool_]
    routes: NDArray[np.int64] | None = None
    route_count: int = 0
    rationales: tuple[str, ...] = ()
    following: FloatArray | None = None

    def take(self, places: NDArray[np.int64]) -> Answers:
        """The answers at some places."""
        texts = tuple(self.texts[at] for at in places) if self.texts else ()
        routes = None if self.routes is None else self.routes[places]
        rationales = tuple(self.rationales[at] for at in places) if self.rationales else ()
        following = None if self.following is None else self.following[places]
        logs, fits = self.log_probabilities[places], self.fits[places]
        return Answers(logs, texts, fits, routes, self.route_count, rationales, following)


def join(parts: Sequence[Answers]) -> Answers:
    """Answers of items in a row from those of its pieces, all under one candidate; one piece at least."""
    routes = [part.routes for part in parts if part.routes is not None]
    following = [part.following for part in parts if part.following is not None]
    return Answers(
        np.concatenate([part.log_probabilities for part in parts]),
        tuple(text for part in parts for text in part.texts),
        np.concatenate([part.fits for part in parts]),
        np.concatenate(routes) if routes else None,
        parts[0].route_count,
        tuple(said for part in parts for said in part.rationales or ("",) * len(part.fits))
        if any(part.rationales for part in parts)
        else (),
        np.concatenate(following) if len(following) == len(parts) else None,
    )


def join_routes(parts: Mapping[int, Answers], routes: NDArray[np.int64], count: int) -> Answers:
    """Answers of all items from those of each route.

    Args:
        parts: for each route that items take the answers of its items, in their order.
        routes: route of each item, shape (items,).
        count: number of routes.
    """
    places = np.empty(len(routes), dtype=np.int64)  # where each item's answer stands when the parts are put in a row
    start = 0
    for route, part in parts.items():
        places[routes == route] = np.arange(start, start + len(part.fits))
        start += len(part.fits)
    return replace(join(list(parts.values())).take(places), routes=routes, route_count=count)


def join_members(parts: Sequence[Answers]) -> Answers:
    """What an ensemble says of items: the mean of its prompts' log-probabilities, and what comes next after each.

    The latter are for each prompt the log-probabilities of the next tokens and then of the labels, side by side. An
    item that one of the prompts cannot be asked about, or whose answer is not understood, has no answer.

    Args:
        parts: the answers of each prompt about the same items.
    """
    readable = np.all([np.isfinite(part.log_probabilities).any(axis=1) for part in parts], axis=0)[:, None]
    each = [normalized(np.where(readable, part.log_probabilities, 0.0)) for part in parts]
    logs = np.mean(each, axis=0)
    following = [
        np.concatenate([part.following, own], axis=1)
        for part, own in zip(parts, each, strict=True)
        if part.following is not None
    ]
    return Answers(
        np.where(readable, logs, -np.inf),
        (),
        np.all([part.fits for part in parts], axis=0),
        following=np.concatenate(following, axis=1) if len(following) == len(parts) else None,
    )


def _by_halves(
    ask: Callable[[Sequence[int]], Sequence[_Value]], numbers: Sequence[int], refusals: list[ContextError]
) -> list[_Value | None]:
    """What is found about items, and None for those that are refused, since a refusal names none of several."""
    try:
        return list(ask(numbers))
    except ContextError as error:
        refusals.append(error)
    if len(numbers) == 1:
        return [None]
    half = len(numbers) // 2
    return _by_halves(ask, numbers[:half], refusals) + _by_halves(ask, numbers[half:], refusals)


def answer_grammar(metric: Metric, form: AnswerForm) -> str | None:
    """Rules of answers that a metric can read (GBNF); None where it reads any text, or finds them in longer ones."""
    return _NUMBER if metric.name == "numeric" and not metric.is_custom and not form.pattern else None


class Matcher(Protocol):
    """Knows which examples and which cluster belong to an item."""

    def matches(self, reading: Candidate, items: Sequence[int]) -> Sequence[Sequence[int]]:
        """For each item the pool ids that a retrieving candidate may show, the best match first."""
        ...

    def clusters(self, reading: Candidate, items: Sequence[int]) -> NDArray[np.int64]:
        """For each item the route that a routed candidate sends it on."""
        ...


class Asker:
    """Puts prompts to the engine: label scores for classification, generated text otherwise.

    Args:
        engine: the model.
        builder: makes the prompts.
        labels: words of the labels, None for free text.
        form: how answers look that are written.
        grammar: rules that a generated answer follows where the engine can follow any; None for none.
        tokens: next tokens whose log-probabilities are asked for beside those of the labels; the engine tells them
            (:class:`promptsearch.lm.base.TellsNext`).
    """

    def __init__(
        self,
        engine: Engine,
        builder: PromptBuilder,
        labels: Sequence[str] | None,
        form: AnswerForm | None = None,
        grammar: str | None = None,
        tokens: Sequence[int] = (),
    ) -> None:
        self.engine = engine
        self._tokens = tuple(tokens)
        self._grammar = grammar if engine.follows_grammars else None
        self.builder = builder
        self.labels = tuple(labels) if labels is not None else None
        self._form = form or AnswerForm()
        self._reranker = Reranker(engine, builder)
        self._has_fitted = self._has_warned = False
        self.reasoner = Reasoner(
            engine,
            builder,
            self._answers,
            lambda text: self._form.find(text) or text,
            self._writing if labels is None else None,
        )

    @property
    def tokens(self) -> tuple[int, ...]:
        """Next tokens whose log-probabilities are asked for."""
        return self._tokens

    @property
    def reads(self) -> bool:
        """Whether answers tell what comes next."""
        return bool(self._tokens) and self.labels is not None and isinstance(self.engine, TellsNext)

    def ask_for(self, tokens: Sequence[int]) -> None:
        """Ask for the log-probabilities of these next tokens from now on."""
        self._tokens = tuple(tokens)

    def build(
        self, reading: Candidate, inputs: Sequence[Mapping[str, str]], matches: Sequence[Sequence[int]]
    ) -> list[Built]:
        """The prompt of each item.

        Args:
            reading: a candidate that is not routed; of a routed one, one of its routes.
            inputs: the items' texts by column.
            matches: what each item may be shown, the best match first; used by retrieving candidates only. The
                candidate's reranker chooses among them, at a price.
        """
        if reading.mode == "retrieved" and reading.reranker != "none":
            plain = matches

            def rerank(places: Sequence[int]) -> list[tuple[int, ...]]:
                own, near = [inputs[at] for at in places], [plain[at] for at in places]
                return self._reranker.rerank(reading, own, near, self.labels)

            chosen = self.within_context(rerank, range(len(inputs)))
            matches = [near if best is None else best for near, best in zip(plain, chosen, strict=True)]
        return [self.builder.build(reading, item, match) for item, match in zip(inputs, matches, strict=True)]

    def ask(
        self, reading: Candidate, inputs: Sequence[Mapping[str, str]], matches: Sequence[Sequence[int]]
    ) -> list[object]:
        """One JSON value for each item: log-probabilities in a list, a text, or None where it did not fit.

        Of a candidate that reasons, an object with the "answer" in one of these forms and the "rationale"; where next
        tokens are asked for, with the "answer" and what comes "next", packed.
        """
        return self.ask_built(reading, self.build(reading, inputs, matches))

    def ask_built(self, reading: Candidate, built: Sequence[Built]) -> list[object]:
        """The same for prompts that :meth:`build` made."""
        asked = [number for number, item in enumerate(built) if item.prompt is not None]
        unread = [None] * len(self.labels or ())
        answers: list[object] = [unread if item.unlisted else None for item in built]
        if not asked:
            return answers
        found = self.within_context(lambda numbers: self._found(reading, [built[n] for n in numbers]), asked)
        for number, answer in zip(asked, found, strict=True):
            answers[number] = answer
        return answers

    def within_context(
        self, ask: Callable[[Sequence[int]], Sequence[_Value]], numbers: Sequence[int]
    ) -> list[_Value | None]:
        """What is found about items, and None for those that the model refuses as too long.

        Only such a model knows them as lacks a tokenizer of ours, whose tokens are estimated.

        Args:
            ask: finds a value for each of some items, or raises a ``ContextError``.
            numbers: the items, one at least.

        Raises:
            ContextError: several are asked about, none of them fits, and none did before: that is no item's fault.
        """
        refusals: list[ContextError] = []
        found = _by_halves(ask, numbers, refusals)
        fitted = len(found) - sum(value is None for value in found)
        if refusals and not fitted and not self._has_fitted and len(numbers) > 1:
            raise refusals[0]
        self._has_fitted = self._has_fitted or fitted > 0
        if refusals and not self._has_warned:
            _logger.warning("%s. Such items count as too long", refusals[0])
            self._has_warned = True
        return found

    def _found(self, reading: Candidate, built: Sequence[Built]) -> Sequence[object]:
        """One JSON value for each of some prompts, all of them there."""
        prompts = [prompt for item in built if (prompt := item.prompt) is not None]
        if reading.reasons:
            return [verdict.to_json(self.reasoner.read) for verdict in self.reasoner.ask(reading, prompts)]
        if template_of(reading).scores_options:
            return self._option_scores(reading, built)
        if self.labels is not None and self._tokens and isinstance(self.engine, TellsNext):
            texts = self.builder.continuations(reading, self.labels)
            scores, following = self.engine.score_and_next(prompts, texts, self.tokens)
            return [
                {"answer": _json_floats(row), "next": packed(after)}
                for row, after in zip(scores, following, strict=True)
            ]
        return self._answers(reading, prompts)

    def _answers(self, reading: Candidate, prompts: Sequence[str]) -> list[list[float | None] | str]:
        if self.labels is not None:
            scores = self.engine.score(prompts, self.builder.continuations(reading, self.labels))
            return [_json_floats(row) for row in scores]
        return [completion.text.strip() for completion in self.engine.generate(prompts, self._writing(reading))]

    def _writing(self, reading: Candidate) -> GenerationParams:
        """How free-text answers are written."""
        return GenerationParams(
            max_tokens=self._form.tokens_within(self.engine.context_tokens),
            stop=self.builder.stops(reading, self._form.lines),
            grammar=self._grammar,
        )

    def _option_scores(self, reading: Candidate, built: Sequence[Built]) -> list[list[float | None]]:
        """Log-probabilities of each item's own options, less a share of those after the premise alone."""
        share = template_of(reading).premise_weight or 0.0
        found: list[list[float | None]] = []
        for start in range(0, len(built), _ITEMS_A_CALL):
            part = built[start : start + _ITEMS_A_CALL]
            prompts = [*(item.prompt or "" for item in part), *(item.premise or "" for item in part)]
            options = [item.options for item in part]
            scores = score_each(self.engine, prompts, [*options, *options])
            for after, alone in zip(scores[: len(part)], scores[len(part) :], strict=True):
                relative = after - share * np.where(np.isfinite(alone), alone, 0.0)
                found.append(_json_floats(relative))
        return found

    def answers(self, values: Sequence[object]) -> Answers:
        """Collect what :meth:`ask` returned."""
        fits = np.array([value is not None for value in values], dtype=bool)
        told = [value if isinstance(value, dict) else {} for value in values]
        is_reasoned = any("rationale" in each for each in told)
        rationales = tuple(str(each.get("rationale", "")) for each in told) if is_reasoned else ()
        values = [each.get("answer") if each else value for each, value in zip(told, values, strict=True)]
        if self.labels is None:
            texts = tuple(value if isinstance(value, str) else "" for value in values)
            return Answers(np.empty((len(values), 0)), texts, fits, rationales=rationales)
        rows = [value if isinstance(value, list) else [None] * len(self.labels) for value in values]
        numbers = [[-np.inf if cell is None else float(cell) for cell in row] for row in rows]
        logs = np.array(numbers, dtype=np.float64).reshape(len(rows), len(self.labels))
        is_read: NDArray[np.bool_] = np.asarray(np.isfinite(logs).any(axis=1))
        return Answers(logs, (), fits, rationales=rationales, following=self._following(told, is_read))

    def _following(self, told: Sequence[Mapping[str, object]], is_read: NDArray[np.bool_]) -> FloatArray | None:
        """What comes next after each item, where that is known of all that were read."""
        packs = [each.get("next") for each in told]
        if not self.tokens or any(known and not pack for known, pack in zip(is_read, packs, strict=True)):
            return None
        rows = [unpacked(str(pack), len(self.tokens)) if pack else np.zeros(len(self.tokens)) for pack in packs]
        return np.array(rows)


class Evaluator:
    """Answers about the task's own items, recorded and counted.

    Args:
        asker: puts the questions.
        examples: the task's examples.
        matcher: what each item is shown by candidates that retrieve or route.
        store: where calls are written.
        meter: what they cost.
    """

    def __init__(
        self,
        asker: Asker,
        examples: Sequence[Example],
        matcher: Matcher,
        store: RunStore,
        meter: Meter,
    ) -> None:
        self.asker = asker
        self._examples = examples
        self._matcher = matcher
        self._store = store
        self._meter = meter
        self._known: dict[tuple[str, int], object] = {}
        self._begun: set[str] = set()  # readings that were asked about before

    def answers(self, candidate: Candidate, items: Sequence[int]) -> Answers:
        """Answers about items, asking only about those not asked before."""
        reading = candidate.reading
        if reading.ensemble:
            return join_members([self.answers(member, items) for member in reading.members])
        if reading.mode == "routed":
            return self._routed(reading, items) if items else self.answers(reading.route(0), ())
        missing = [item for item in items if (reading.key, item) not in self._known]
        size = _ITEMS_A_CALL if reading.mode == "static" else _RETRIEVED_A_CALL
        for start in range(0, len(missing), size):
            chunk = missing[start : start + size]
            self._remember(reading, chunk, self._call("items", reading, chunk))
        return self.asker.answers([self._known[reading.key, item] for item in items])

    def likely_next(self, candidate: Candidate, items: Sequence[int], count: int) -> list[list[tuple[int, float]]]:
        """For each item the likeliest tokens after a static candidate's prompt, with their log-probabilities.

        None after one that does not fit, and none at all where the engine does not tell them.
        """
        engine, reading = self.asker.engine, candidate.reading
        if not isinstance(engine, TellsNext) or not items:
            return [[] for _ in items]

        def ask() -> list[object]:
            inputs, matches = self._questions("items", reading, items)
            prompts = [built.prompt for built in self.asker.build(reading, inputs, matches)]
            found = iter(engine.likely_next([each for each in prompts if each is not None], count))
            return [[] if each is None else next(found) for each in prompts]

        values: Sequence[Any] = self.recorded("next tokens", reading, items, ask)
        return [[(int(token), float(log)) for token, log in value] for value in values]

    def has_begun(self, candidate: Candidate) -> bool:
        """Whether a candidate was asked about some item, with all of its routes or members."""
        reading = candidate.reading
        parts = [reading.route(route) for route in range(len(reading.routes))] or reading.members
        return all(part.key in self._begun for part in parts)

    def count_unasked(self, candidate: Candidate, items: Sequence[int]) -> int:
        """How many of some items a candidate that is not routed was not asked about."""
        return sum((candidate.reading.key, item) not in self._known for item in items)

    def _routed(self, reading: Candidate, items: Sequence[int]) -> Answers:
        """Each item's answer under its route, which is a static candidate like any other."""
        routes = self._matcher.clusters(reading, items)
        found = {}
        for route in np.unique(routes).tolist():
            own = [items[place] for place in np.flatnonzero(routes == route).tolist()]
            found[route] = self.answers(reading.route(route), own)
        return join_routes(found, routes, len(reading.routes))

    def content_free(self, candidate: Candidate) -> FloatArray:
        """Log-probabilities of the labels on inputs without content, shape (3, labels)."""
        reading = candidate.reading
        numbers = range(-len(CONTENT_FREE), 0)
        if (reading.key, -1) not in self._known:
            self._remember(reading, list(numbers), self._call("content-free", reading, list(numbers)))
        values = [self._known[reading.key, number] for number in numbers]
        return self.asker.answers(values).log_probabilities

    def _remember(self, reading: Candidate, items: Sequence[int], values: Sequence[object]) -> None:
        for item, value in zip(items, values, strict=True):
            self._known[reading.key, item] = value

    def _call(self, kind: str, reading: Candidate, items: Sequence[int]) -> tuple[object, ...]:
        """A call's answers, from the record or from the model."""

        def ask() -> list[object]:
            inputs, matches = self._questions(kind, reading, items)
            return self.asker.ask(reading, inputs, matches)

        return self.recorded(kind, reading, items, ask)

    def recorded(
        self, kind: str, reading: Candidate, items: Sequence[int], ask: Callable[[], Sequence[object]]
    ) -> tuple[object, ...]:
        """What a call of the model gave, from the record; else ask, and write it down before it counts.

        Args:
            kind: what is asked, beside the candidate: equal kinds, candidates and items are the same call.
            reading: the candidate that asks.
            items: what it is asked about.
            ask: one JSON value for each item.
        """
        key = hashlib.sha256(f"{kind}|{reading.key}|{list(items)}".encode()).hexdigest()
        found = self._store.find(key)
        begun = reading.key in self._begun
        self._begun.add(reading.key)
        if found is not None:
            self._meter.replay(tokens=found.tokens, evaluations=len(items), elapsed=found.elapsed)
            return found.answers
        before = _Tokens.of(self.asker.engine)
        values = tuple(ask())
        tokens, end = _Tokens.of(self.asker.engine).since(before, begun=begun), self._meter.elapsed
        text = json.dumps(reading.to_dict(), ensure_ascii=False)
        self._store.record(Call(key, kind, text, tuple(items), values, tokens, end))
        self._meter.charge(tokens=tokens, evaluations=len(items))
        return values

    def _questions(
        self, kind: str, reading: Candidate, items: Sequence[int]
    ) -> tuple[list[Mapping[str, str]], Sequence[Sequence[int]]]:
        if kind == "items":
            inputs: list[Mapping[str, str]] = [self._examples[item].fields for item in items]
            retrieves = reading.mode == "retrieved"
            return inputs, self._matcher.matches(reading, items) if retrieves else [()] * len(items)
        columns = self._examples[0].fields
        return [dict.fromkeys(columns, text) for text in CONTENT_FREE], [()] * len(items)


class _Tokens(NamedTuple):
    """An engine's counts."""

    decoded: int
    restored: int
    prefixes: int

    @classmethod
    def of(cls, engine: Engine) -> _Tokens:
        return cls(engine.tokens_decoded, engine.tokens_restored, engine.prefix_tokens)

    def since(self, before: _Tokens, *, begun: bool) -> int:
        """Tokens that a call is charged: a reading's beginning counts in its first call and in no other.

        Whether the engine still held it depends on what ran before in this process, which a resumed run does not
        repeat; what a call costs must not.
        """
        decoded, restored, prefixes = (now - then for now, then in zip(self, before, strict=True))
        return decoded + restored - (prefixes if begun else 0)


def _json_floats(row: FloatArray) -> list[float | None]:
    """JSON has no infinities: an impossible label is null."""
    return [value if np.isfinite(value) else None for value in row.tolist()]
