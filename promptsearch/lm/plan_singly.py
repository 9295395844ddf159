"""Schedules prompts for a memory in which each sequence has a state of its own.

A recurrent state cannot belong to several sequences while it changes, and cannot go back to an earlier token; but a
sequence as it stands can be forked. So a token goes to one sequence only: what many prompts share becomes a trunk
that they fork, each prompt runs in a sequence of its own, and each branch of the tail continues a fork of its prompt.

Invariant: pure. Operations are those of :mod:`promptsearch.lm.plan`; no row has two sequences, and a sequence is
forked at its end only. Any number of branches is run, in as many batches as the sequences ask for.
Leaves out: how a batch is run, and how many sequences the memory can afford.
"""

from __future__ import annotations

import heapq
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from promptsearch.lm.plan import (
    PROMPT_END,
    Decode,
    Drop,
    Fork,
    Limits,
    Operation,
    Read,
    Row,
    SortedPaths,
    Tail,
    Tokens,
)

__all__ = ["plan_singly"]

_BATCH_PRICE = 64  # a batch of its own for a trunk costs about what this many tokens cost within a fuller one


def plan_singly(prompts: Sequence[Tokens], tail: Tail, limits: Limits) -> Iterator[Operation]:
    """Schedule ``prompts``, each followed by ``tail``, with one sequence for each row.

    Args:
        prompts: token sequences, none empty; equal ones are decoded once and read by the first one's number.
        tail: what hangs below each prompt.
        limits: what must hold: a prompt and the longest branch fit the cells, the branch fits a batch, and there
            is a sequence for a prompt and one for its branch.

    Returns:
        Operations in the order in which they are to be run.

    Raises:
        ValueError: the limits cannot hold a prompt and its tail.
    """
    longest, branch = max(map(len, prompts), default=0), max(tail.depths, default=0)
    if longest + branch > limits.cells or branch > limits.batch or limits.sequences < 1 + (branch > 0):
        raise ValueError(
            f"a prompt of {longest} tokens with a branch of {branch} tokens does not fit {limits}; shorten the "
            "labels or the prompt"
        )
    return _Planner(prompts, tail, limits).operations()


class _Part(NamedTuple):
    """Paths ``low`` to ``high``, whose first ``depth`` tokens sequence ``trunk`` holds."""

    low: int
    high: int
    depth: int
    trunk: int | None


@dataclass(frozen=True)
class _Trunk:
    """A sequence that paths fork, and the tokens of its own."""

    sequence: int
    cells: int


@dataclass(frozen=True)
class _Leaf:
    """A prompt that waits for its batch: sequence ``trunk`` holds its first ``depth`` tokens."""

    number: int
    path: Tokens
    depth: int
    trunk: int | None

    @property
    def own(self) -> int:
        return len(self.path) - self.depth


class _Planner:
    """Walks the prefix tree of sorted prompts depth first, and gathers leaves until they fill a batch."""

    def __init__(self, prompts: Sequence[Tokens], tail: Tail, limits: Limits) -> None:
        self.tail = tail
        self.limits = limits
        self.branches = _branches(tail)
        self.longest_branch = max((len(nodes) for nodes, _ in self.branches), default=0)
        self.tree = SortedPaths(prompts)
        self.paths, self.numbers, self.common = self.tree.paths, self.tree.numbers, self.tree.common
        self.free = list(range(limits.sequences))  # a heap: neighbours in a batch get neighbouring sequences
        self.leaves: list[_Leaf] = []
        self.waiting = 0  # tokens of the leaves
        self.held = 0  # cells of trunks, and of a long leaf's beginning

    def operations(self) -> Iterator[Operation]:
        """Visit parts of the tree: paths whose first tokens a trunk holds, or the end of a trunk."""
        parts: list[_Part | _Trunk] = [_Part(0, len(self.paths), 0, None)] if self.paths else []
        while parts:
            part = parts.pop()
            if isinstance(part, _Trunk):
                yield from self._end_trunk(part)
                continue
            low, high, depth, trunk = part
            if low == high:
                continue
            if high - low == 1:
                yield from self._add_leaf(low, depth, trunk)
                continue
            shared = min(self.common[low + 1 : high])
            if self._worth_a_trunk(high - low, shared - depth):
                parts += yield from self._grow_trunk(part, shared)
            else:
                children = [_Part(start, end, depth, trunk) for start, end in self.tree.children(low, high, shared)]
                parts += reversed(children)
        yield from self._flush()

    def _worth_a_trunk(self, paths: int, length: int) -> bool:
        """Whether an edge saves more than its batch costs, and leaves sequences for a path below it."""
        saved = (paths - 1) * length
        needed = self._trunks_held() + 2 + bool(self.branches)
        return saved >= _BATCH_PRICE and needed <= self.limits.sequences

    def _trunks_held(self) -> int:
        return self.limits.sequences - len(self.free)

    def _grow_trunk(self, part: _Part, shared: int) -> Generator[Operation, None, list[_Part | _Trunk]]:
        """Decode the shared edge into a sequence of its own; what is left to visit: below it, then its end."""
        yield from self._flush()
        low, high, depth, above = part
        trunk = _Trunk(heapq.heappop(self.free), shared - depth)
        if above is not None:
            yield Fork(above, (trunk.sequence,))
        path = self.paths[low]
        yield from self._decode_alone(path, depth, shared, trunk.sequence, self.numbers[low])
        self.held += trunk.cells
        if shared == len(path):  # the shortest path ends here, and is read
            yield from self._run_tails([(self.numbers[low], len(path), trunk.sequence)])
            low += 1
        return [trunk, _Part(low, high, shared, trunk.sequence)]

    def _end_trunk(self, trunk: _Trunk) -> Iterator[Operation]:
        yield from self._flush()
        yield Drop((trunk.sequence,))
        heapq.heappush(self.free, trunk.sequence)
        self.held -= trunk.cells

    def _decode_alone(self, path: Tokens, start: int, end: int, sequence: int, number: int) -> Iterator[Operation]:
        """Decode a part of a path in batches of its own; the path's last token is read."""
        for first in range(start, end, self.limits.batch):
            last = min(end, first + self.limits.batch)
            reads = (Read(number, PROMPT_END, last - first - 1),) if last == len(path) else ()
            yield Decode(tuple(Row(path[at], at, (sequence,)) for at in range(first, last)), reads)

    def _add_leaf(self, index: int, depth: int, trunk: int | None) -> Iterator[Operation]:
        """Put a path among those of the next batch; a longer one than a batch runs by itself."""
        leaf = _Leaf(self.numbers[index], self.paths[index], depth, trunk)
        if leaf.own > self.limits.batch:
            yield from self._flush()
            yield from self._run_alone(leaf)
            return
        if not self._has_room(leaf):
            yield from self._flush()
        self.leaves.append(leaf)
        self.waiting += leaf.own

    def _has_room(self, leaf: _Leaf) -> bool:
        """Whether a leaf fits beside the others: batch, cells, and sequences for it and all of its branches."""
        rows = self.waiting + leaf.own
        sequences = (len(self.leaves) + 1) * (1 + len(self.branches))
        return (
            rows <= self.limits.batch
            and self.held + rows + self.longest_branch <= self.limits.cells
            and sequences <= len(self.free)
        )

    def _run_alone(self, leaf: _Leaf) -> Iterator[Operation]:
        sequence = heapq.heappop(self.free)
        if leaf.trunk is not None:
            yield Fork(leaf.trunk, (sequence,))
        yield from self._decode_alone(leaf.path, leaf.depth, len(leaf.path), sequence, leaf.number)
        self.held += leaf.own
        yield from self._run_tails([(leaf.number, len(leaf.path), sequence)])
        self.held -= leaf.own
        yield Drop((sequence,))
        heapq.heappush(self.free, sequence)

    def _flush(self) -> Iterator[Operation]:
        """Run the leaves that wait, then their tails."""
        if not self.leaves:
            return
        # llama.cpp runs sequences of one length together, and neighbouring ones only
        leaves = sorted(self.leaves, key=lambda leaf: -leaf.own)
        self.leaves, waiting, self.waiting = [], self.waiting, 0
        rows: list[Row] = []
        reads: list[Read] = []
        sequences = [heapq.heappop(self.free) for _ in leaves]
        for leaf, sequence in zip(leaves, sequences, strict=True):
            if leaf.trunk is not None:
                yield Fork(leaf.trunk, (sequence,))
            rows += [Row(leaf.path[at], at, (sequence,)) for at in range(leaf.depth, len(leaf.path))]
            reads.append(Read(leaf.number, PROMPT_END, len(rows) - 1))
        yield Decode(tuple(rows), tuple(reads))
        self.held += waiting
        ends = zip(leaves, sequences, strict=True)
        yield from self._run_tails([(leaf.number, len(leaf.path), sequence) for leaf, sequence in ends])
        self.held -= waiting
        yield Drop(tuple(sequences))
        for sequence in sequences:
            heapq.heappush(self.free, sequence)

    def _run_tails(self, ends: Sequence[tuple[int, int, int]]) -> Iterator[Operation]:
        """Run all branches below prompts, each given as (number, length, sequence that holds it)."""
        pending = [(end, branch) for branch in self.branches for end in ends]
        while pending:
            room = min(self.limits.batch, self.limits.cells - self.held)
            lengths = accumulate(len(nodes) for _, (nodes, _) in pending)
            fitting = sum(length <= room for length in lengths)
            count = min(fitting, len(self.free))
            chunk, pending = pending[:count], pending[count:]
            sequences = tuple(heapq.heappop(self.free) for _ in chunk)
            rows: list[Row] = []
            reads: list[Read] = []
            for ((number, length, source), (nodes, read)), sequence in zip(chunk, sequences, strict=True):
                yield Fork(source, (sequence,))
                for depth, node in enumerate(nodes):
                    if node in read:
                        reads.append(Read(number, node, len(rows)))
                    rows.append(Row(self.tail.tokens[node], length + depth, (sequence,)))
            yield Decode(tuple(rows), tuple(reads))
            yield Drop(sequences)
            for sequence in sequences:
                heapq.heappush(self.free, sequence)


def _branches(tail: Tail) -> list[tuple[tuple[int, ...], frozenset[int]]]:
    """The nodes of each branch from the top, the longest branch first, and which of them it is to read."""
    if not tail.tokens:
        return []
    paths: list[list[int]] = [[] for _ in range(tail.width)]
    for node, passing in enumerate(tail.branches):
        for branch in passing:
            paths[branch].append(node)
    seen: set[int] = set()
    found = []
    for nodes in sorted(paths, key=len, reverse=True):
        found.append((tuple(nodes), frozenset(nodes) - seen))
        seen.update(nodes)
    return found
