"""The space of candidates over pool ids: what it holds, what fits, and what it costs.

Invariant: a candidate that is allowed fits the context, by the lengths that were given.
Leaves out: texts, models, scores; lengths, labels and clusters are plain numbers. Which candidates to draw is
:mod:`promptsearch.search.drawing`, how they change :mod:`promptsearch.search.mutation`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray

from promptsearch.candidate import (
    CALIBRATIONS,
    CONCLUDING_TOKENS,
    CONSIDERED,
    MDL_SETS,
    MODES,
    REASONINGS,
    RERANKERS,
    RETRIEVERS,
    Candidate,
)
from promptsearch.errors import UserError
from promptsearch.search.attention import LinearAttention

__all__ = ["Chooser", "Clusters", "Lengths", "Rationales", "SearchSpace", "Space", "long_query"]

Chooser = Callable[[int, np.random.Generator], tuple[int, ...]]
_MOST_MEMBERS = 8
_SPARED_AMONG = 50  # queries of which one may be too long for demonstrations
_FEWEST_SPARING = 20  # queries of which one may be so
_CURATED = 24  # examples that a curated pool holds at least
_FEWEST_MIXED, _MOST_MIXED = 3, 12  # labels that candidates race mixed with; two have one difference, nothing to mix


@dataclass(frozen=True)
class Space:
    """What a user lets the search vary; None leaves a choice to the library.

    Choices have an order, since what a seed draws depends on it: sets are refused, lists become tuples.

    Attributes:
        shots: numbers of demonstrations to draw; changes of a set may lead anywhere between the least and the most.
        modes: among "static", "retrieved" and "routed".
        retrievers: how demonstrations of one query are found, among "nearest", "mmr", "dpp", "bm25", "hybrid" and
            "coverage".
        rerankers: among "none", "cone" and "mdl", by which the model itself chooses among the nearest; each query
            then costs ten times as much and more.
        clusters: numbers of clusters that queries may be routed by.
        templates: names of templates.
        names: pairs of names that the prompt may give input and output; empty ones keep the columns' own.
        calibrations: among "none", "batch", "contextual", "fitted", "matrix" and "readout", which reads labels off
            all that the model expects next (:mod:`promptsearch.readout`) where the model tells that.
        prior: whether labels of similar examples may be added to the model's log-probabilities.
        instructions: whether the prompt may also go without the task's instruction.
        reasoning: among "none", "cue", "gold" and "self": whether the model reasons before it answers, and what
            reasoning it is shown, see :class:`promptsearch.candidate.Candidate`. "gold" needs the task's rationale
            column; what "self" shows is written by the model and checked first, within a share of the budget.
        thinking_tokens: lengths that one piece of reasoning may have, in tokens.
        samples: numbers of pieces of reasoning that are sampled and vote; 1 takes the likeliest one.
        ensemble: prompts that one query may be put to at most, whose readouts are averaged; 1 keeps to a single one,
            since several cost as many times its tokens and pay on some tasks only.

    Raises:
        UserError: an attribute is of another type, empty, or holds what is not known.
    """

    shots: tuple[int, ...] = (0, 1, 2, 4, 8, 16, 32)
    modes: tuple[str, ...] = ("static", "retrieved", "routed")
    retrievers: tuple[str, ...] = ("nearest", "mmr", "hybrid")
    rerankers: tuple[str, ...] = ("none",)
    clusters: tuple[int, ...] = (4, 8, 16)
    templates: tuple[str, ...] | None = None
    names: tuple[tuple[str, str], ...] | None = None
    calibrations: tuple[str, ...] = CALIBRATIONS
    prior: bool = True
    instructions: bool = True
    reasoning: tuple[str, ...] = REASONINGS
    thinking_tokens: tuple[int, ...] = (32, 96)
    samples: tuple[int, ...] = (1,)
    ensemble: int = 1

    def __post_init__(self) -> None:
        for name, known in _KNOWN.items():
            given: object = getattr(self, name)
            if given is None and name == "templates":
                continue
            if not _is_sequence(given) or not given:
                raise UserError(f"{name}={given!r} is no ordered choice of at least one; give a tuple")
            unknown = [value for value in given if known is not None and value not in known]
            if unknown:
                raise UserError(f"{name} holds the unknown {unknown[0]!r}; give some of {', '.join(known or ())}")
            object.__setattr__(self, name, tuple(given))
        for name, least in (("shots", 0), ("clusters", 2), ("thinking_tokens", 1), ("samples", 1)):
            wrong = [count for count in getattr(self, name) if type(count) is not int or count < least]
            if wrong:
                raise UserError(f"{name} holds {wrong[0]!r}; give whole numbers from {least}")
        if type(self.ensemble) is not int or not 1 <= self.ensemble <= _MOST_MEMBERS:
            raise UserError(f"ensemble={self.ensemble!r} is no number of prompts; give 1 to {_MOST_MEMBERS}")
        for template in self.templates or ():
            if not isinstance(template, str):
                raise UserError(f"templates holds {template!r}, which is no name; give names of templates")
        if self.names is not None:
            object.__setattr__(self, "names", _pairs(self.names))
        for name in ("prior", "instructions"):
            if not isinstance(getattr(self, name), bool):
                raise UserError(f"{name}={getattr(self, name)!r} is no yes or no; give True or False")


def _is_sequence(given: object) -> TypeGuard[Sequence[object]]:
    """Whether this is an ordered collection of choices, which a text is not."""
    return isinstance(given, Sequence) and not isinstance(given, (str, bytes, bytearray))


def _pairs(given: object) -> tuple[tuple[str, str], ...]:
    """Names for input and output as tuples; none leave the columns' own."""
    if not _is_sequence(given):
        raise UserError(f"names={given!r} is no sequence; give a tuple of pairs like ('Review', 'Sentiment')")
    pairs: list[tuple[str, str]] = []
    for pair in given:
        texts = [text for text in pair if isinstance(text, str)] if _is_sequence(pair) and len(pair) == 2 else []
        if len(texts) != 2:
            raise UserError(f"names holds {pair!r}; give pairs of texts like ('Review', 'Sentiment')")
        pairs.append((texts[0], texts[1]))
    return tuple(pairs)


_KNOWN: Mapping[str, tuple[str, ...] | None] = {
    "shots": None,
    "modes": MODES,
    "retrievers": RETRIEVERS,
    "rerankers": RERANKERS,
    "clusters": None,
    "templates": None,
    "calibrations": CALIBRATIONS,
    "reasoning": REASONINGS,
    "thinking_tokens": None,
    "samples": None,
}


def long_query(tokens: Sequence[int]) -> int:
    """Tokens that prompts leave room for: those of the longest query, but for one in fifty (one of 20 to 49).

    A few long rows thereby forbid nothing: where a prompt leaves them no room their answers are wrong, and the race
    says whether what it shows is worth that.
    """
    spared = len(tokens) // _SPARED_AMONG or int(len(tokens) >= _FEWEST_SPARING)
    return sorted(tokens)[-1 - spared]


@dataclass(frozen=True)
class Lengths:
    """Token counts that prices are made of.

    Attributes:
        instructions: tokens of each instruction.
        demonstrations: tokens of each pool id as a demonstration.
        query: mean tokens of a query and what its answer adds.
        long_query: tokens that hardly a query has more of, see :func:`long_query`.
        context: tokens that a prompt may take.
        unshown: tokens that a query's answer takes more where no demonstration shows its form.
    """

    instructions: Mapping[str, int]
    demonstrations: Mapping[int, int]
    query: float
    long_query: int
    context: int
    unshown: float = 0.0

    @cached_property
    def mean_demonstration(self) -> float:
        """Tokens of a demonstration, on average."""
        return float(np.mean(list(self.demonstrations.values())))


@dataclass(frozen=True)
class Rationales:
    """Pool ids that have a piece of reasoning to show, of one kind.

    Attributes:
        tokens: length of each one's reasoning, by pool id.
        steps: number of its sentences, by pool id.
        doubt: how far the model disagreed with itself about it, 0 to 1, by pool id; empty where nobody asked.
    """

    tokens: Mapping[int, int]
    steps: Mapping[int, int]
    doubt: Mapping[int, float]

    @property
    def ids(self) -> tuple[int, ...]:
        """Pool ids, ascending."""
        return tuple(sorted(self.tokens))

    @property
    def mean_tokens(self) -> float:
        """Mean length of a piece of reasoning."""
        return float(np.mean(list(self.tokens.values()))) if self.tokens else 0.0


@dataclass(frozen=True)
class Clusters:
    """How queries fall into groups.

    Attributes:
        of_items: cluster of each item of the shared order, shape (items,).
        members: for each cluster the pool ids that lie in it, nearest to its centre first; never empty.
    """

    of_items: NDArray[np.int64]
    members: tuple[tuple[int, ...], ...]

    def share(self, cluster: int) -> float:
        """Share of the items in one cluster."""
        return float((self.of_items == cluster).mean()) if len(self.of_items) else 1 / len(self.members)


class SearchSpace:
    """Candidates over one pool.

    Args:
        space: what may vary.
        templates: usable templates, the usual one first.
        names: usable pairs of names for input and output, the columns' own first.
        instructions: usable instructions, the empty one for none.
        pool: ids of possible demonstrations.
        labels: label index of each pool id; all 0 for free text.
        lengths: token counts.
        clusters: usable clusterings of the queries by their number of clusters; none without routed candidates.
        choosers: selection strategies that choose a set of so many pool ids, by name.
        attention: what demonstrations say about the search items by similarity alone; None for free text.
        lengths_in: token counts of templates, by name, that score an item's options and do not show them.
        shares_beginnings: whether the model reads what many queries begin with once, or again with each.
        answering_templates: names among ``templates`` in which reasoning has no place.
        reads_reasoning_again: whether a query and its reasoning are read once more for the answer.

    Attributes:
        reasons: whether candidates that reason are searched at all; whoever knows what that costs says so.
        rationales: which pool ids have reasoning to show, by kind; a kind without any is not searched.
    """

    def __init__(
        self,
        space: Space,
        *,
        templates: Sequence[str],
        names: Sequence[tuple[str, str]] = (("", ""),),
        instructions: Sequence[str],
        pool: Sequence[int],
        labels: Sequence[int],
        lengths: Lengths,
        clusters: Mapping[int, Clusters] | None = None,
        choosers: Mapping[str, Chooser] | None = None,
        attention: LinearAttention | None = None,
        lengths_in: Mapping[str, Lengths] | None = None,
        shares_beginnings: bool = True,
        answering_templates: Sequence[str] = (),
        reads_reasoning_again: bool = True,
        names_alike: Mapping[str, Mapping[tuple[str, str], tuple[str, str]]] | None = None,
    ) -> None:
        self.space = space
        self.templates = tuple(templates)
        self.names = tuple(names)
        self.instructions = tuple(instructions)
        self.pool: NDArray[np.int64] = np.asarray(pool, dtype=np.int64)
        self.labels: NDArray[np.int64] = np.asarray(labels, dtype=np.int64)
        self.lengths = lengths
        self.clusters = dict(clusters or {})
        self.choosers = dict(choosers or {})
        self.attention = attention
        self.reasons = False
        self.rationales: dict[str, Rationales] = {}
        self._answering_templates = frozenset(answering_templates)
        self._reads_reasoning_again = reads_reasoning_again
        self.labels_by_id: Mapping[int, int] = dict(zip(self.pool.tolist(), self.labels.tolist(), strict=True))
        self._shares_beginnings = shares_beginnings
        self._lengths_in = dict(lengths_in or {})
        self._names_alike = names_alike or {}
        self.shots = tuple(sorted({count for count in space.shots if 0 <= count <= len(self.pool)}))

    def usual(self, candidate: Candidate) -> Candidate:
        """The same with the first of the names that give the same prompts: many show one or none."""
        alike = self._names_alike.get(candidate.template, {})
        names = (candidate.input_name, candidate.output_name)
        first = alike.get(names, names)
        return candidate if first == names else replace(candidate, input_name=first[0], output_name=first[1])

    # -- what there is --------------------------------------------------------------------------------------

    def label_of(self, number: int) -> int:
        """Label index of a pool id."""
        return self.labels_by_id[number]

    def members(self, clusters: int, cluster: int) -> tuple[int, ...]:
        """Pool ids in one of so many clusters, nearest to its centre first."""
        return self.clusters[clusters].members[cluster]

    @property
    def mean_length(self) -> float:
        """Tokens of a demonstration, on average."""
        return self.lengths.mean_demonstration

    def lengths_of(self, candidate: Candidate) -> Lengths:
        """Token counts of what a candidate's template shows."""
        return self._lengths_in.get(candidate.template, self.lengths)

    @property
    def reasonings(self) -> tuple[str, ...]:
        """Kinds of reasoning to search among beside none; "cue" needs nothing, the others something to show."""
        if not self.reasons or not self.plain_templates:
            return ()
        few = min(self.shots, default=0) == 0 and "static" in self.space.modes
        usable = {"cue": few, **{kind: bool(found.tokens) for kind, found in self.rationales.items()}}
        return tuple(kind for kind in self.space.reasoning if usable.get(kind, False))

    @property
    def plain_templates(self) -> tuple[str, ...]:
        """Templates that reasoning has a place in."""
        return tuple(name for name in self.templates if name not in self._answering_templates)

    def showable(self, candidate: Candidate) -> NDArray[np.int64]:
        """Pool ids that a candidate may show: those with reasoning, where it shows any."""
        if candidate.reasoning not in ("gold", "self"):
            return self.pool
        found = self.rationales.get(candidate.reasoning)
        return np.array(() if found is None else found.ids, dtype=np.int64)

    @property
    def static_shots(self) -> tuple[int, ...]:
        """Numbers of demonstrations of static candidates: none only where nothing else may be drawn."""
        counts = tuple(count for count in self.shots if count > 0)
        return counts if counts and "static" in self.space.modes else (0,)

    @property
    def most_shots(self) -> int:
        """Most demonstrations that a prompt may show."""
        return max(self.shots, default=0)

    @property
    def calibration(self) -> str:
        """The calibration that candidates race with: the one that few rows can be fitted by and that tells most.

        What a prompt can be made to say counts, more than what it says: of two, the one whose labels are well told
        apart under wrong names may be the better one. Mixing brings that out, where labels are few. Never a readout,
        which needs more rows than a race begins with.
        """
        allowed = [each for each in self.space.calibrations if each != "readout"] or ["batch"]
        mixed = "matrix" in allowed and _FEWEST_MIXED <= len(set(self.labels.tolist())) <= _MOST_MIXED
        return "matrix" if mixed else "batch" if "batch" in allowed else allowed[0]

    def curated(self, weights: Mapping[int, float]) -> tuple[int, ...]:
        """The examples whose sets did best, as many of each label (Chang and Jia 2023, arXiv 2212.10378).

        Args:
            weights: how good the sets that held an example were; examples without one are left out.

        Returns:
            Ids in ascending order; empty where too few are known.
        """
        by_label: dict[int, list[int]] = {}
        for number in sorted(weights, key=lambda each: (-weights[each], each)):
            by_label.setdefault(self.labels_by_id[number], []).append(number)
        labels = len(set(self.labels_by_id.values()))
        each = -(-_CURATED // labels)
        chosen = sorted(number for group in by_label.values() for number in group[:each])
        fewest = min(_CURATED // 2, len(self.pool))  # rare labels may have fewer
        return tuple(chosen) if len(by_label) == labels and len(chosen) >= fewest else ()

    def fits(self, candidate: Candidate) -> bool:
        """Whether queries fit after the demonstrations, but perhaps a few that are much longer than others."""
        lengths = self.lengths_of(candidate)
        room = lengths.context - lengths.long_query - self._reasoning_room(candidate)
        if candidate.mode == "retrieved":  # each query's own demonstrations are checked when they are known
            return candidate.count * self._shown_length(candidate) <= room
        if candidate.mode == "routed":
            return all(self.prefix_tokens(route) <= room for route in self.routes(candidate))
        return self.prefix_tokens(candidate) <= room

    def allows(self, candidate: Candidate) -> bool:
        """Whether the user's space holds a candidate, and it fits.

        Sets may have any number of demonstrations between the least and the most that the user names.
        """
        within = min(self.shots, default=0) <= candidate.shots <= self.most_shots
        if candidate.reranker != "none" and candidate.template in self._lengths_in:  # it compares labels
            return False
        return (
            candidate.mode in self.space.modes and within and self.reasons_alike(candidate) and self.fits(candidate)
        )

    def reasons_alike(self, candidate: Candidate) -> bool:
        """Whether a candidate's reasoning, or its lack of any, is in the space, and all it shows has some."""
        if not candidate.reasons:
            return "none" in self.space.reasoning or not self.reasonings
        if candidate.reasoning not in self.reasonings or candidate.template in self._answering_templates:
            return False
        if candidate.mode == "routed" or (candidate.reasoning == "cue") != (candidate.shots == 0):
            return False
        shown = candidate.demonstrations
        if candidate.mode == "retrieved":
            shown = candidate.among or tuple(self.pool.tolist())
        return set(shown) <= set(self.showable(candidate).tolist())

    # -- prices ---------------------------------------------------------------------------------------------

    def routes(self, candidate: Candidate) -> list[Candidate]:
        """The static candidates that a routed one consists of."""
        return [candidate.route(cluster) for cluster in range(len(candidate.routes))]

    def prefix_tokens(self, candidate: Candidate) -> float:
        """Tokens before the query (for retrieved and routed demonstrations: on average)."""
        lengths = self.lengths_of(candidate)
        instruction = lengths.instructions.get(candidate.instruction, 0)
        if candidate.mode == "retrieved":
            return instruction + candidate.count * self._shown_length(candidate)
        if candidate.mode == "routed":
            clusters = self.clusters[len(candidate.routes)]
            return sum(
                clusters.share(cluster) * self.prefix_tokens(route)
                for cluster, route in enumerate(self.routes(candidate))
            )
        reasoning = self.rationales.get(candidate.reasoning)
        shown = sum(lengths.demonstrations[number] for number in candidate.demonstrations)
        if reasoning is not None:
            shown += sum(reasoning.tokens.get(number, 0) for number in candidate.demonstrations)
        return instruction + shown

    def _shown_length(self, candidate: Candidate) -> float:
        """Tokens of a retrieved demonstration, on average."""
        reasoning = self.rationales.get(candidate.reasoning)
        return self.lengths_of(candidate).mean_demonstration + (0.0 if reasoning is None else reasoning.mean_tokens)

    def _reasoning_room(self, candidate: Candidate) -> int:
        """Tokens to keep free for reasoning and what leads from it to the answer."""
        return candidate.thinking_tokens + CONCLUDING_TOKENS if candidate.reasons else 0

    def reasoning_tokens(self, candidate: Candidate) -> float:
        """Tokens that reasoning adds to a query: each sample is written, and may be read again with the query."""
        if not candidate.reasons:
            return 0.0
        read = self.lengths_of(candidate).query + (
            self.prefix_tokens(candidate) if candidate.mode == "retrieved" else 0.0
        )
        times = 2 if self._reads_reasoning_again else 1
        return times * candidate.samples * (candidate.thinking_tokens + read) - read

    def prompt_tokens(self, candidate: Candidate) -> float:
        """Tokens that a query's prompts take, on average, with those that choosing and reasoning take."""
        if candidate.ensemble:
            return sum(self.prompt_tokens(member) for member in candidate.members)
        return (
            self.prefix_tokens(candidate)
            + self._asking_tokens(candidate)
            + self._choosing_tokens(candidate)
            + self.reasoning_tokens(candidate)
        )

    def query_tokens(self, candidate: Candidate) -> float:
        """Tokens that each further query costs, choosing its demonstrations included."""
        if candidate.ensemble:
            return sum(self.query_tokens(member) for member in candidate.members)
        if candidate.mode == "retrieved" or not self._shares_beginnings:
            twice = candidate.template in self._lengths_in and not self._shares_beginnings
            return self.prompt_tokens(candidate) + (self.prefix_tokens(candidate) if twice else 0.0)
        return self._asking_tokens(candidate) + self.reasoning_tokens(candidate)

    def _asking_tokens(self, candidate: Candidate) -> float:
        """Tokens of a query and its answer."""
        lengths = self.lengths_of(candidate)
        return lengths.query + (0.0 if candidate.shots else lengths.unshown)

    def _choosing_tokens(self, candidate: Candidate) -> float:
        """Tokens by which the model itself chooses a query's demonstrations."""
        if candidate.mode != "retrieved" or candidate.reranker == "none":
            return 0.0
        if candidate.reranker == "cone":
            lengths = self.lengths_of(candidate)
            return CONSIDERED * (lengths.mean_demonstration + lengths.query)
        return MDL_SETS * (self.lengths_of(candidate).query + self.prefix_tokens(candidate))

    def opening_tokens(self, candidate: Candidate) -> float:
        """Tokens with which queries of a candidate begin, each beginning once; none where it is read with each."""
        if candidate.ensemble:
            return sum(self.opening_tokens(member) for member in candidate.members)
        if not self._shares_beginnings:
            return 0.0
        if candidate.mode == "routed":
            return sum(self.prefix_tokens(route) for route in self.routes(candidate))
        return self.prefix_tokens(candidate) if candidate.mode == "static" else 0.0

    def price(self, candidate: Candidate, items: int, *, begun: bool = False) -> float:
        """Tokens of scoring ``items`` queries; what they begin with is paid once, unless it was ``begun`` before."""
        if items == 0:
            return 0.0
        opening = 0.0 if begun else self.opening_tokens(candidate)
        return opening + items * self.query_tokens(candidate)
