"""Made-up objectives whose truth is known, and a study that tosses coins."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from promptsearch.candidate import Candidate
from promptsearch.search.base import Allowance, Request, Scores, Strategy
from promptsearch.search.space import Chooser, Clusters, Lengths, SearchSpace, Space

ZERO = Candidate("Say.", "t0")


def share(*parts: object) -> float:
    """A number in [0, 1) that these values determine."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48


def make(
    *,
    pool: int = 40,
    templates: int = 9,
    labels: int = 2,
    clusters: Mapping[int, Clusters] | None = None,
    choosers: Mapping[str, Chooser] | None = None,
    clusters_tried: tuple[int, ...] = (4, 8, 16),
    **space: object,
) -> SearchSpace:
    """A space over ids 0, 1, ... of 25 tokens each."""
    ids = list(range(pool))
    return SearchSpace(
        Space(clusters=clusters_tried, **space),  # type: ignore[arg-type]
        templates=[f"t{number}" for number in range(templates)],
        instructions=("Say.", ""),
        pool=ids,
        labels=[number % labels for number in ids],
        lengths=Lengths({"Say.": 2, "": 0}, dict.fromkeys(ids, 25), 20.0, 40, 2000),
        clusters=clusters,
        choosers=choosers,
    )


def clustered(pool: int, items: int, *numbers: int) -> dict[int, Clusters]:
    """Items and pool ids that fall into so many clusters by their remainder."""
    return {
        number: Clusters(
            np.arange(items) % number,
            tuple(tuple(range(cluster, pool, number)) for cluster in range(number)),
        )
        for number in numbers
    }


def first_ones(count: int, rng: np.random.Generator) -> tuple[int, ...]:
    """A selection strategy that chooses the first examples, in random order."""
    return tuple(rng.permutation(count).tolist())


def by_template(candidate: Candidate) -> float:
    """One template is best, and the instruction helps a little."""
    return 0.5 + 0.05 * int(candidate.template[1:]) + (0.03 if candidate.instruction else 0.0)


def by_examples(candidate: Candidate) -> float:
    """Every fifth example of the pool helps, every seventh harms."""
    return float(
        np.clip(0.55 + sum(0.08 * (n % 5 == 0) - 0.08 * (n % 7 == 0) for n in candidate.demonstrations), 0.1, 0.95)
    )


@dataclass
class Watched:
    """What a strategy asked for, what that cost, and what it returned."""

    requests: list[Request]
    spent: float
    finalists: list[Candidate]
    scores: dict[Candidate, Scores]


def run(
    strategy: Strategy,
    space: SearchSpace,
    allowance: Allowance,
    quality: Callable[[Candidate], float],
    *,
    seed: int = 0,
    anchors: Sequence[Candidate] = (ZERO,),
    most_requests: int = 2000,
) -> Watched:
    """Answer a strategy's requests with coin tosses of a candidate's quality."""
    race = strategy(space, anchors, allowance, np.random.default_rng(seed))
    watched = Watched([], 0.0, [], {})
    try:
        request = next(race)
        while True:
            watched.requests.append(request)
            assert len(watched.requests) <= most_requests, "a strategy that never ends"
            assert 1 <= request.items <= allowance.items
            for candidate in request.candidates:
                before = watched.scores[candidate].items if candidate in watched.scores else 0
                new = max(0, request.items - before)
                watched.spent += allowance.price(space, candidate, new, begun=before > 0)
                tosses = np.array([share(candidate.key, item, seed) for item in range(request.items)])
                right = quality(candidate)
                watched.scores[candidate] = Scores((tosses < right) * 1.0, 0.5 * (tosses < right) + 0.5 * right)
            request = race.send({candidate: watched.scores[candidate] for candidate in request.candidates})
    except StopIteration as finished:
        watched.finalists = finished.value
    return watched
