"""Prompts brought into memories, on a memory that copies late, as llama.cpp does, and checks what a batch holds."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from promptsearch.errors import BackendError
from promptsearch.lm.llamacpp.context import Context
from promptsearch.lm.llamacpp.reading_order import TILE, in_tiles
from promptsearch.lm.llamacpp.stem import FIRST_PLACE, Stem
from promptsearch.lm.plan import Row

Tokens = tuple[int, ...]
PLACES = 6
TILED = in_tiles((0,) * 600, 0)[0]


def after(path: Sequence[int]) -> int:
    """What follows a text: no two texts have the same."""
    return zlib.crc32(repr(tuple(path)).encode())


class Memory(Context):
    """One stream a sequence. A copy is made by the next batch, of what the source holds then.

    Tokens that were read in tiles are held as marked ones: that is how a batch of a tile and more reads them.
    """

    def __init__(self, sequences: int) -> None:
        self.sequences = sequences
        self.batch = self.at_once = 512
        self.tokens_decoded = 0
        self.held: list[list[int]] = [[] for _ in range(sequences)]
        self.fails_at = -1
        self._stored: list[list[int]] = [[] for _ in range(sequences)]
        self._copies: list[tuple[int, int]] = []

    def clear(self, room: int | None = None) -> None:
        self.held = [[] for _ in self.held]

    def fork(self, source: int, targets: Sequence[int]) -> None:
        for target in targets:
            self.held[target] = list(self.held[source])
            self._copies.append((source, target))

    def cut(self, sequence: int, length: int) -> None:
        del self.held[sequence][length:]

    def drop(self, sequences: Sequence[int]) -> None:
        for sequence in sequences:
            self.held[sequence] = []

    def decode(self, rows: Sequence[Row], outputs: Sequence[int]) -> NDArray[Any]:
        self.fails_at -= 1
        if self.fails_at == 0:
            raise BackendError("out of order")
        assert len(rows) <= self.batch
        for source, target in self._copies:
            self._stored[target] = list(self._stored[source])
        self._copies = []
        self._check(rows, outputs)
        counts = Counter(row.sequences[0] for row in rows)
        found = []
        for number, row in enumerate(rows):
            (sequence,) = row.sequences
            assert row.position == len(self.held[sequence])
            token = row.token + TILED * (counts[sequence] >= TILE)
            self.held[sequence].append(token)
            self._stored[sequence][row.position :] = [token]
            assert self._stored[sequence] == self.held[sequence], "it attends to what was not copied"
            if number in outputs:
                found.append(after(self.held[sequence]))
        self.tokens_decoded += len(rows)
        return np.array(found, dtype=np.int64).reshape(-1, 1)

    @staticmethod
    def _check(rows: Sequence[Row], outputs: Sequence[int]) -> None:
        """llama.cpp runs neighbouring sequences together: each such run has rows and predictions enough."""
        counts: dict[int, int] = {}
        for row in rows:
            counts[row.sequences[0]] = counts.get(row.sequences[0], 0) + 1
        assert list(counts) == sorted(counts)
        wanted = [rows[number].sequences[0] for number in outputs]
        runs = groupby(enumerate(counts), key=lambda pair: pair[1] - pair[0])
        for _, run in runs:
            together = [sequence for _, sequence in run]
            assert sum(counts[sequence] for sequence in together) >= 2
            assert sum(wanted.count(sequence) for sequence in together) != 1
        assert max(counts.values()) < TILE or len(set(counts.values())) == 1


def bring_all(stem: Stem, prompts: Sequence[Tokens], places: int) -> tuple[int, int]:
    """Bring prompts, so many at a time; tokens decoded, and tokens that were there."""
    memory = stem.context
    assert isinstance(memory, Memory)
    before, paths = memory.tokens_decoded, sorted(prompts)
    restored = stem.begin(paths)
    for start in range(0, len(paths), places):
        part = paths[start : start + places]
        brought = stem.bring(part, range(FIRST_PLACE, FIRST_PLACE + len(part)))
        assert sorted(sequence for sequence, _ in brought) == list(range(FIRST_PLACE, FIRST_PLACE + len(part)))
        for path, (sequence, logits) in zip(part, brought, strict=True):
            assert memory.held[sequence] == list(path)
            assert logits.tolist() == [after(path)]
        memory.drop(range(FIRST_PLACE, FIRST_PLACE + len(part)))
    assert not any(memory.held[1:])
    return memory.tokens_decoded - before, restored


short_starts = st.lists(st.integers(0, 2), max_size=130)
long_starts = st.integers(20, 140).map(lambda repeats: [1, 2, 0, 2, 1] * repeats)
starts = short_starts | long_starts
ends = st.lists(st.integers(0, 2), min_size=1, max_size=70)


@st.composite
def calls(draw: st.DrawFn) -> list[list[Tokens]]:
    """Calls whose prompts share beginnings, within a call and from call to call, and are often equal."""
    start = draw(starts)
    texts = draw(
        st.lists(st.tuples(st.sampled_from([0, len(start) // 2, len(start)]), ends), min_size=1, max_size=12)
    )
    openings = st.sampled_from([0, len(start) // 2, len(start)])
    prompts = [in_tiles((*start[:cut], *end), min(draw(openings), cut)) for cut, end in texts]
    some = st.lists(st.sampled_from(prompts), min_size=1, max_size=20)
    longer = [(*prompt, 1, 2, 1) for prompt in prompts]  # goes on from what it was
    return draw(st.lists(some | st.just(longer), min_size=1, max_size=4))


@settings(max_examples=200)
@given(calls(), st.integers(1, 40))
def test_prompts_are_held_and_counted_alike_whatever_ran_before(asked: list[list[Tokens]], places: int) -> None:
    """Warm and cold, however many places there are."""
    warm = Stem(Memory(FIRST_PLACE + places))
    for prompts in asked:
        cold, nothing = bring_all(Stem(Memory(FIRST_PLACE + 40)), prompts, 40)
        decoded, restored = bring_all(warm, prompts, places)
        assert nothing == 0
        assert decoded + restored == cold


@settings(max_examples=60)
@given(calls(), st.integers(1, 12))
def test_a_failure_leaves_nothing_that_counts(asked: list[list[Tokens]], at: int) -> None:
    stem = Stem(memory := Memory(FIRST_PLACE + 40))
    for prompts in asked:
        memory.fails_at = at
        try:
            bring_all(stem, prompts, 40)
        except BackendError:
            stem.forget()
        memory.fails_at = -1
        bring_all(stem, prompts, 40)


def test_a_long_prompt_of_an_earlier_call_is_gone_on_from() -> None:
    stem = Stem(Memory(FIRST_PLACE + PLACES))
    long = tuple(range(10, 900))
    bring_all(stem, [long], PLACES)
    assert bring_all(stem, [(*long, 1, 2, 3), (5000, 6, 7, 8)], PLACES)[1] == pytest.approx(len(long), abs=2)
