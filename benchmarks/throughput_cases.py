"""The cases of ``benchmarks.throughput``: the exact prompts that every contender gets.

Invariant: a case is plain text and depends on the data, the encoder and :data:`SEED` alone. Prompts come in groups
that share their demonstrations, in the order that is kindest to reusing the last prompt's beginning.
Leaves out: who answers them, and how long that takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import INSTRUCTIONS, Dataset, read_dataset
from promptsearch.embed.cache import CachedEncoder
from promptsearch.embed.transformer import resolve_encoder
from promptsearch.pool import Pool
from promptsearch.prompting import retrieved_order
from promptsearch.template import TEMPLATES, Demonstration, Renderer

__all__ = ["CASES", "FULL", "QUICK", "SEED", "SHOTS", "Case", "Sizes", "Worked", "balanced_rows", "make_case"]

SEED = 0
SHOTS = 8
_TEMPLATE = TEMPLATES["fields"]
_BEGUN_WORDS = 20

CASES = {
    "a": "one static prompt of 8 demonstrations, SST-2, 2 labels",
    "b": "orders of the same 8 demonstrations, SST-2, 2 labels",
    "c": "8 nearest demonstrations for each query, TREC, 6 labels",
    "d": "one static prompt of 8 demonstrations, BANKING77, 77 labels",
    "e": "beginnings of news articles that go on, AG News",
    "first": "first answer of a fresh process from a saved prompt of 8 demonstrations",
}


@dataclass(frozen=True)
class Worked:
    """The task behind a static prompt, for contenders that write their own prompt."""

    instruction: str
    demonstrations: tuple[tuple[str, str], ...]
    queries: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """Prompts to be answered.

    Attributes:
        key: one of :data:`CASES`.
        groups: prompts by group; those of a group share their demonstrations.
        labels: what is chosen from; empty where text is generated.
        max_tokens: tokens to generate for each prompt; 0 where labels are chosen.
        worked: the task itself, where one static prompt serves all queries.
    """

    key: str
    groups: tuple[tuple[str, ...], ...]
    labels: tuple[str, ...] = ()
    max_tokens: int = 0
    worked: Worked | None = None

    @property
    def prompts(self) -> list[str]:
        """All prompts, group by group."""
        return [prompt for group in self.groups for prompt in group]

    @property
    def continuations(self) -> list[str]:
        """The labels as they follow a prompt."""
        return [f" {label}" for label in self.labels]

    def part(self, groups: int | None, each: int | None) -> Case:
        """The first prompts of the first groups; None for all."""
        kept = tuple(group[:each] for group in self.groups[:groups])
        worked = self.worked and replace(self.worked, queries=self.worked.queries[:each])
        return replace(self, groups=kept, worked=worked)


@dataclass(frozen=True)
class Sizes:
    """How many prompts there are, and how many of them slow contenders answer.

    Attributes:
        groups: groups of each case (orders, or queries with demonstrations of their own).
        each: prompts of each group.
        max_tokens: tokens to generate in case e.
        pool: rows that demonstrations are retrieved from.
        parts: for a kind of contender and a case, the groups and prompts of each that it answers; all where it
            is not named.
    """

    groups: Mapping[str, int]
    each: Mapping[str, int]
    max_tokens: int
    pool: int
    parts: Mapping[tuple[str, str], tuple[int, int]]

    def part_of(self, kind: str, case: Case) -> Case:
        """What a kind of contender answers of a case."""
        groups, each = self.parts.get((kind, case.key), (None, None))
        return case.part(groups, each)


FULL = Sizes(
    groups={"a": 1, "b": 24, "c": 100, "d": 1, "e": 64},
    each={"a": 200, "b": 50, "c": 1, "d": 50, "e": 1},
    max_tokens=64,
    pool=2000,
    parts={
        ("ours as-is", "a"): (1, 100),
        ("ours as-is", "b"): (2, 50),
        ("ours as-is", "c"): (16, 1),
        ("ours as-is", "d"): (1, 20),
        ("ours as-is", "e"): (24, 1),
        ("completion", "a"): (1, 50),
        ("completion", "b"): (2, 50),
        ("completion", "c"): (20, 1),
        ("completion", "e"): (8, 1),
        ("server", "a"): (1, 30),
        ("dspy", "a"): (1, 20),
        ("labels one by one", "d"): (1, 10),
    },
)
QUICK = Sizes(
    groups={"a": 1, "b": 3, "c": 6, "d": 1, "e": 4},
    each={"a": 10, "b": 4, "c": 1, "d": 3, "e": 1},
    max_tokens=12,
    pool=200,
    parts={
        ("ours as-is", "b"): (2, 3),
        ("ours as-is", "c"): (3, 1),
        ("ours as-is", "d"): (1, 2),
        ("ours as-is", "e"): (2, 1),
        ("completion", "a"): (1, 4),
        ("completion", "b"): (2, 3),
        ("completion", "c"): (3, 1),
        ("completion", "e"): (2, 1),
        ("server", "a"): (1, 3),
        ("dspy", "a"): (1, 2),
        ("labels one by one", "d"): (1, 2),
    },
)


def make_case(key: str, folder: Path, sizes: Sizes) -> Case:
    """The prompts of a case.

    Args:
        key: ``"a"`` to ``"e"``.
        folder: the datasets.
        sizes: how many prompts.
    """
    makers = {"a": _static, "b": _orders, "c": _retrieved, "d": _static, "e": _generation}
    names = {"a": "sst2", "b": "sst2", "c": "trec", "d": "banking77", "e": "agnews"}
    return makers[key](key, read_dataset(folder, names[key]), sizes)


def balanced_rows(rows: Sequence[Mapping[str, Any]], labels: Sequence[str], count: int) -> list[dict[str, Any]]:
    """Random rows, as many of each label as goes, in random order."""
    rng = np.random.default_rng([SEED, 20])
    waiting: dict[str, list[int]] = {label: [] for label in rng.permutation(list(labels)).tolist()}
    for place in rng.permutation(len(rows)).tolist():
        waiting[rows[place]["output"]].append(place)
    chosen: list[int] = []
    while len(chosen) < count and any(waiting.values()):
        for places in waiting.values():
            if places and len(chosen) < count:
                chosen.append(places.pop())
    return [dict(rows[place]) for place in rng.permutation(chosen).tolist()]


def _static(key: str, data: Dataset, sizes: Sizes) -> Case:
    shown = balanced_rows(data.train, data.labels, SHOTS)
    queries = _queries(data, sizes.each[key])
    instruction = INSTRUCTIONS[data.name]
    worked = Worked(
        instruction,
        tuple((row["input"], row["output"]) for row in shown),
        tuple(queries),
        tuple(data.labels),
    )
    prompts = tuple(_prompt(instruction, shown, query) for query in queries)
    return Case(key, (prompts,), tuple(data.labels), worked=worked)


def _orders(key: str, data: Dataset, sizes: Sizes) -> Case:
    """Distinct random orders, each with the same queries."""
    shown = balanced_rows(data.train, data.labels, SHOTS)
    queries = _queries(data, sizes.each[key])
    rng = np.random.default_rng([SEED, 21])
    orders: dict[tuple[int, ...], None] = {}
    while len(orders) < sizes.groups[key]:
        orders.setdefault(tuple(rng.permutation(SHOTS).tolist()))
    groups = tuple(
        tuple(_prompt(INSTRUCTIONS[data.name], [shown[place] for place in order], query) for query in queries)
        for order in orders
    )
    return Case(key, groups, tuple(data.labels))


def _retrieved(key: str, data: Dataset, sizes: Sizes) -> Case:
    """Each query with its own nearest rows, the nearest last."""
    encoder = CachedEncoder(resolve_encoder(None))
    rows = data.train[: sizes.pool]
    queries = _queries(data, sizes.groups[key])
    pool = Pool(np.arange(len(rows)), encoder.encode([row["input"] for row in rows]), encoder=encoder.fingerprint)
    found = pool.nearest(encoder.encode(queries), SHOTS)
    groups = []
    for query, nearest in zip(queries, found.ids.tolist(), strict=True):
        shown = [rows[place] for place in retrieved_order(nearest, "nearest-last")]
        groups.append((_prompt(INSTRUCTIONS[data.name], shown, query),))
    return Case(key, tuple(groups), tuple(data.labels))


def _generation(key: str, data: Dataset, sizes: Sizes) -> Case:
    """Articles cut in the middle of a sentence: answers to questions end before they are 64 tokens long."""
    beginnings = [" ".join(query.split()[:_BEGUN_WORDS]) for query in _queries(data, sizes.groups[key])]
    return Case(key, tuple((beginning,) for beginning in beginnings), max_tokens=sizes.max_tokens)


def _queries(data: Dataset, count: int) -> list[str]:
    places = np.random.default_rng([SEED, 22]).permutation(len(data.test))[:count]
    return [data.test[place]["input"] for place in places.tolist()]


def _prompt(instruction: str, shown: Sequence[Mapping[str, Any]], query: str) -> str:
    """Plain text, which every contender tokenizes alike: it holds no control tokens."""
    demonstrations = [Demonstration({"input": row["input"]}, row["output"]) for row in shown]
    renderer = Renderer(("input",), "output", None)
    return str(renderer.render(_TEMPLATE, instruction, demonstrations, {"input": query}))
