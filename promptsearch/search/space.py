"""The space of candidates over pool ids: what can be drawn, and how a candidate can change.

Invariant: every candidate that comes out of here fits the context, by the lengths that were given.
Leaves out: texts, models, scores. Lengths and labels are plain numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from promptsearch.candidate import CALIBRATIONS, MODES, Candidate
from promptsearch.errors import UserError

__all__ = ["Lengths", "Preferences", "SearchSpace", "Space"]

Preferences = Mapping[str, Mapping[Any, float]]
_Level = TypeVar("_Level")
_EAGERNESS = 50.0  # a choice that did two points better is drawn e times as often
_FIRST_LOOK = 24  # items over which a candidate's prefix is paid off when it is first looked at


@dataclass(frozen=True)
class Space:
    """What a user lets the search vary; None leaves a choice to the library.

    Attributes:
        shots: numbers of demonstrations to try.
        modes: among "static" and "retrieved".
        templates: names of templates.
        names: pairs of names that the prompt may give input and output; empty ones keep the columns' own.
        calibrations: among "none", "batch", "contextual" and "fitted".
        prior: whether labels of similar examples may be added to the model's log-probabilities.
        instructions: whether the prompt may also go without the task's instruction.
    """

    shots: tuple[int, ...] = (0, 1, 2, 4, 8, 16, 32)
    modes: tuple[str, ...] = ("static", "retrieved")
    templates: tuple[str, ...] | None = None
    names: tuple[tuple[str, str], ...] | None = None
    calibrations: tuple[str, ...] = ("batch", "contextual", "fitted", "none")
    prior: bool = True
    instructions: bool = True

    def __post_init__(self) -> None:
        for name, known in (("shots", None), ("modes", MODES), ("templates", None), ("calibrations", CALIBRATIONS)):
            given: object = getattr(self, name)
            if given is None and name == "templates":
                continue
            if isinstance(given, str) or not isinstance(given, Collection) or not given:
                raise UserError(f"{name}={given!r} leaves nothing to search; give a tuple of at least one")
            unknown = [value for value in given if known is not None and value not in known]
            if unknown:
                raise UserError(f"{name} holds the unknown {unknown[0]!r}; give some of {', '.join(known or ())}")
            object.__setattr__(self, name, tuple(given))
        wrong = [count for count in self.shots if type(count) is not int or count < 0]
        if wrong:
            raise UserError(f"shots holds {wrong[0]!r}; give whole numbers from 0")


@dataclass(frozen=True)
class Lengths:
    """Token counts that prices are made of.

    Attributes:
        instructions: tokens of each instruction.
        demonstrations: tokens of each pool id as a demonstration.
        query: mean tokens of a query and what its answer adds.
        longest_query: tokens of the longest query.
        context: tokens that a prompt may take.
    """

    instructions: Mapping[str, int]
    demonstrations: Mapping[int, int]
    query: float
    longest_query: int
    context: int


class SearchSpace:
    """Draws and changes candidates.

    Args:
        space: what may vary.
        templates: usable templates, the usual one first.
        names: usable pairs of names for input and output, the columns' own first.
        instructions: usable instructions, the empty one for none.
        pool: ids of possible demonstrations.
        labels: label index of each pool id; all 0 for free text.
        lengths: token counts.
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
    ) -> None:
        self.space = space
        self.templates = tuple(templates)
        self.names = tuple(names)
        self.instructions = tuple(instructions)
        self.pool: NDArray[np.int64] = np.asarray(pool, dtype=np.int64)
        self.labels: NDArray[np.int64] = np.asarray(labels, dtype=np.int64)
        self.lengths = lengths
        self._label_of = dict(zip(self.pool.tolist(), self.labels.tolist(), strict=True))
        self._mean_length = float(np.mean([lengths.demonstrations[number] for number in self.pool.tolist()]))
        self._by_label = [self.pool[self.labels == label] for label in np.unique(self.labels)]
        self.shots = tuple(sorted({count for count in space.shots if 0 <= count <= len(self.pool)}))

    # -- prices ---------------------------------------------------------------------------------------------

    def prefix_tokens(self, candidate: Candidate) -> float:
        """Tokens before the query (for retrieved demonstrations: on average)."""
        instruction = self.lengths.instructions.get(candidate.instruction, 0)
        if candidate.mode == "retrieved":
            return instruction + candidate.count * self._mean_length
        return instruction + sum(self.lengths.demonstrations[number] for number in candidate.demonstrations)

    def query_tokens(self, candidate: Candidate) -> float:
        """Tokens that each further query costs."""
        own = self.lengths.query
        return own + self.prefix_tokens(candidate) if candidate.mode == "retrieved" else own

    def price(self, candidate: Candidate, items: int, *, begun: bool = False) -> float:
        """Tokens of scoring ``items`` queries; what they begin with is paid once, unless it was ``begun`` before."""
        if items == 0:
            return 0.0
        opening = 0.0 if begun else self.opening_tokens(candidate)
        return opening + items * self.query_tokens(candidate)

    def opening_tokens(self, candidate: Candidate) -> float:
        """Tokens with which all queries of a candidate begin."""
        return self.prefix_tokens(candidate) if candidate.mode == "static" else 0.0

    def fits(self, candidate: Candidate) -> bool:
        """Whether the longest query fits after the demonstrations."""
        if candidate.mode == "retrieved":  # each query's own demonstrations are checked when they are known
            return candidate.count * self._mean_length + self.lengths.longest_query <= self.lengths.context
        return self.prefix_tokens(candidate) + self.lengths.longest_query <= self.lengths.context

    @property
    def calibration(self) -> str:
        """The calibration that candidates race with."""
        return "batch" if "batch" in self.space.calibrations else self.space.calibrations[0]

    def allows(self, candidate: Candidate) -> bool:
        """Whether the user's space holds a candidate, and it fits."""
        allowed = candidate.mode in self.space.modes and candidate.shots in self.shots
        return allowed and self.fits(candidate)

    # -- drawing --------------------------------------------------------------------------------------------

    def draw(self, rng: np.random.Generator, preferences: Preferences | None = None) -> Candidate:
        """A random static candidate that fits.

        Args:
            rng: randomness.
            preferences: how much better candidates with a given choice did; better choices are drawn more often.
        """
        known = preferences or {}
        for _ in range(50):
            count = int(self._prefer("shots", self._static_shots(), self._shot_odds(), known, rng))
            candidate = self._worded(known, rng, demonstrations=self.draw_demonstrations(count, rng))
            if self.fits(candidate):
                return candidate
        return Candidate(instruction=self.instructions[0], template=self.templates[0])

    def draw_retrieved(self, rng: np.random.Generator, preferences: Preferences | None = None) -> Candidate | None:
        """A random candidate that retrieves, None where the space has none."""
        counts = [count for count in self.shots if count > 0]
        if "retrieved" not in self.space.modes or not counts:
            return None
        candidate = self._worded(
            preferences or {},
            rng,
            mode="retrieved",
            count=int(rng.choice([count for count in counts if count <= 8] or counts[:1])),
            order="nearest-last" if rng.random() < 0.75 else "nearest-first",
        )
        return candidate if self.fits(candidate) else None

    def _worded(self, preferences: Preferences, rng: np.random.Generator, **others: Any) -> Candidate:
        """A candidate with drawn instruction, template and names."""
        names = self._prefer("names", self.names, _even(self.names), preferences, rng)
        odds = [0.4 * max(1, len(self.templates) - 1), *_even(self.templates[1:])]  # the usual one, two times in five
        return Candidate(
            instruction=self._prefer("instruction", self.instructions, _even(self.instructions), preferences, rng),
            template=self._prefer("template", self.templates, odds, preferences, rng),
            input_name=names[0],
            output_name=names[1],
            calibration=self.calibration,
            **others,
        )

    def _prefer(
        self,
        factor: str,
        levels: Sequence[_Level],
        odds: Sequence[float],
        preferences: Preferences,
        rng: np.random.Generator,
    ) -> _Level:
        """One level of a factor, by its odds and by what is known of it."""
        known = preferences.get(factor, {})
        weights = np.array(
            [odd * np.exp(_EAGERNESS * known.get(level, 0.0)) for level, odd in zip(levels, odds, strict=True)]
        )
        return levels[int(rng.choice(len(levels), p=weights / weights.sum()))]

    def draw_demonstrations(self, count: int, rng: np.random.Generator) -> tuple[int, ...]:
        """Random demonstrations: mostly as many of each label, sometimes as the labels fall, in random order."""
        if count == 0:
            return ()
        if len(self._by_label) == 1 or rng.random() < 0.2:
            return tuple(int(number) for number in rng.choice(self.pool, size=count, replace=False))
        taken: list[int] = []
        queues = [rng.permutation(group).tolist() for group in self._by_label]
        while len(taken) < count and any(queues):
            for place in rng.permutation(len(queues)):
                if queues[place] and len(taken) < count:
                    taken.append(int(queues[place].pop()))
        return tuple(taken[place] for place in rng.permutation(len(taken)))

    def _shot_odds(self) -> list[float]:
        """Dear numbers of demonstrations are drawn more rarely: the same tokens try more cheap ones."""
        return [
            1 / max(1.0, count * self._mean_length + _FIRST_LOOK * self.lengths.query)
            for count in self._static_shots()
        ]

    def _static_shots(self) -> tuple[int, ...]:
        counts = tuple(count for count in self.shots if count > 0)
        return counts if counts and "static" in self.space.modes else (0,)

    # -- changing -------------------------------------------------------------------------------------------

    def mutate(
        self, candidate: Candidate, weights: Mapping[int, float], rng: np.random.Generator
    ) -> Candidate | None:
        """A neighbour of a candidate, None where the drawn change does not apply or does not fit.

        Args:
            candidate: what to change.
            weights: how good the sets that held an example were, relative to all (0 is average); examples
                with high weights are drawn more often.
            rng: randomness.
        """
        if candidate.mode == "retrieved":
            changes: list[Callable[..., Candidate | None]] = [
                self._change_template,
                self._change_instruction,
                self._change_names,
                self._change_count,
                self._change_order,
            ]
        else:
            changes = [
                *(self._swap,) * 4,
                *(self._add,) * 2,
                self._drop,
                *(self._reorder,) * 2,
                self._end_with_other_label,
                self._change_template,
                self._change_instruction,
                *(self._change_names,) * min(2, len(self.names) - 1),
            ]
        change = changes[int(rng.integers(len(changes)))]
        changed = change(candidate, weights, rng)
        return changed if changed is not None and changed != candidate and self.fits(changed) else None

    def recombine(self, left: Candidate, right: Candidate, rng: np.random.Generator) -> Candidate | None:
        """The left candidate with some of the right one's demonstrations in place of its own."""
        if left.mode != "static" or right.mode != "static" or not left.demonstrations:
            return None
        others = [number for number in right.demonstrations if number not in left.demonstrations]
        if not others:
            return None
        mixed = list(left.demonstrations)
        for number in others[: max(1, len(mixed) // 2)]:
            mixed[int(rng.integers(len(mixed)))] = number
        changed = replace(left, demonstrations=tuple(dict.fromkeys(mixed)))
        return changed if self.fits(changed) else None

    def _pick(
        self, excluded: Sequence[int], weights: Mapping[int, float], rng: np.random.Generator, label: int | None
    ) -> int | None:
        """An example outside ``excluded``: one that did well half of the time, else any."""
        if weights and rng.random() < 0.5:
            known = [number for number in weights if number not in excluded]
            known = [number for number in known if label is None or self._label_of[number] == label]
            if known:
                strength = np.exp(np.clip([20 * weights[number] for number in known], -10, 10))
                return int(rng.choice(known, p=strength / strength.sum()))
        group = self.pool if label is None else self.pool[self.labels == label]
        rest = np.setdiff1d(group, np.asarray(excluded, dtype=np.int64))
        return int(rng.choice(rest)) if len(rest) else None

    def _swap(self, candidate: Candidate, weights: Mapping[int, float], rng: np.random.Generator) -> Candidate | None:
        shown = list(candidate.demonstrations)
        if not shown:
            return None
        place = int(rng.integers(len(shown)))
        label = self._label_of[shown[place]] if rng.random() < 0.7 else None
        number = self._pick(shown, weights, rng, label)
        if number is None:
            return None
        shown[place] = number
        return replace(candidate, demonstrations=tuple(shown))

    def _add(self, candidate: Candidate, weights: Mapping[int, float], rng: np.random.Generator) -> Candidate | None:
        shown = list(candidate.demonstrations)
        if len(shown) >= max(self._static_shots()):
            return None
        number = self._pick(shown, weights, rng, None)
        if number is None:
            return None
        shown.insert(int(rng.integers(len(shown) + 1)), number)
        return replace(candidate, demonstrations=tuple(shown))

    def _drop(self, candidate: Candidate, weights: Mapping[int, float], rng: np.random.Generator) -> Candidate | None:
        shown = list(candidate.demonstrations)
        if len(shown) < 2:
            return None
        shown.pop(int(rng.integers(len(shown))))
        return replace(candidate, demonstrations=tuple(shown))

    def _reorder(
        self, candidate: Candidate, weights: Mapping[int, float], rng: np.random.Generator
    ) -> Candidate | None:
        """Reverse, rotate, swap neighbours, or shuffle."""
        shown = list(candidate.demonstrations)
        if len(shown) < 2:
            return None
        way = int(rng.integers(4))
        place = int(rng.integers(len(shown) - 1))
        if way == 0:
            shown.reverse()
        elif way == 1:
            shown = shown[place + 1 :] + shown[: place + 1]
        elif way == 2:
            shown[place], shown[place + 1] = shown[place + 1], shown[place]
        else:
            shown = [shown[at] for at in rng.permutation(len(shown))]
        return replace(candidate, demonstrations=tuple(shown))

    def _end_with_other_label(
        self, candidate: Candidate, weights: Mapping[int, float], rng: np.random.Generator
    ) -> Candidate | None:
        """Move a demonstration of another label to the end: models lean towards the last label seen."""
        shown = list(candidate.demonstrations)
        others = [place for place, number in enumerate(shown) if self._label_of[number] != self._label_of[shown[-1]]]
        if not others:
            return None
        shown.append(shown.pop(others[int(rng.integers(len(others)))]))
        return replace(candidate, demonstrations=tuple(shown))

    def _change_template(
        self, candidate: Candidate, weights: Mapping[int, float], rng: np.random.Generator
    ) -> Candidate | None:
        return replace(candidate, template=str(rng.choice(self.templates)))

    def _change_instruction(
        self, candidate: Candidate, weights: Mapping[int, float], rng: np.random.Generator
    ) -> Candidate | None:
        return replace(candidate, instruction=str(rng.choice(self.instructions)))

    def _change_names(
        self, candidate: Candidate, weights: Mapping[int, float], rng: np.random.Generator
    ) -> Candidate | None:
        input_name, output_name = self.names[int(rng.integers(len(self.names)))]
        return replace(candidate, input_name=input_name, output_name=output_name)

    def _change_count(
        self, candidate: Candidate, weights: Mapping[int, float], rng: np.random.Generator
    ) -> Candidate | None:
        counts = [count for count in self.shots if count > 0]
        return replace(candidate, count=int(rng.choice(counts)))

    def _change_order(
        self, candidate: Candidate, weights: Mapping[int, float], rng: np.random.Generator
    ) -> Candidate | None:
        other = "nearest-first" if candidate.order == "nearest-last" else "nearest-last"
        return replace(candidate, order=other)


def _even(levels: Sequence[object]) -> list[float]:
    return [1.0] * len(levels)
