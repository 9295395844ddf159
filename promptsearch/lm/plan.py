"""Turns many token sequences into few batches, so that what they share is decoded once.

All prompts of a call form one prefix tree over tokens. Below every prompt hangs the same *tail*: the tree
of label tokens whose predictions are wanted. A part of the tree that fits one batch becomes a *unit*; where
it does not fit, the edge that its paths share becomes a *trunk*: a sequence of its own, which units of the same
batch see and units of later batches fork. Trunks and units fill the same batches, and what no later unit needs
is dropped with the batch that used it last.

Invariant: pure. Tokens in, schedule out; every prompt's tokens are decoded in order along its path, every
row is visible to exactly the sequences that pass through it, and no batch exceeds the limits. While the
sequences last, no token of the tree is decoded twice.
Leaves out: how a batch is run, and what its predictions mean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

__all__ = [
    "PROMPT_END",
    "Decode",
    "Drop",
    "Fork",
    "Limits",
    "Operation",
    "Read",
    "Row",
    "SortedPaths",
    "Tail",
    "common_length",
    "label_tail",
    "most_cells",
    "plan",
]

Tokens = tuple[int, ...]

PROMPT_END = -1
"""Stands for the node of the tail from which its first tokens are predicted: a prompt's last token."""


@dataclass(frozen=True)
class Limits:
    """What one batch and the model's memory may hold.

    Attributes:
        batch: tokens in a batch.
        sequences: sequence ids (0 to this minus one).
        cells: tokens that the memory holds at once.
    """

    batch: int = 512
    sequences: int = 256
    cells: int = 8192


@dataclass(frozen=True)
class Tail:
    """The token tree below every prompt.

    Attributes:
        tokens: token of each node, parents before children.
        parents: index of each node's parent; :data:`PROMPT_END` is the prompt's last token.
        branches: for each node, the numbers of the branches that pass through it.
        width: number of branches, at least 1.
    """

    tokens: tuple[int, ...] = ()
    parents: tuple[int, ...] = ()
    branches: tuple[tuple[int, ...], ...] = ()
    width: int = 1

    @property
    def depths(self) -> tuple[int, ...]:
        """Depth of each node; 1 follows the prompt directly."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(1 if parent < 0 else depths[parent] + 1)
        return tuple(depths)


def label_tail(labels: Sequence[Tokens]) -> tuple[Tail, tuple[tuple[int, ...], ...]]:
    """The tree of what must be decoded to score every label.

    The last token of a label is predicted, never decoded, so a set of one-token labels has an empty tree.

    Args:
        labels: token sequence of each label, none empty.

    Returns:
        The tail, and for each label the nodes whose predictions give its tokens (:data:`PROMPT_END`:
        the prompt's last token).
    """
    nodes: dict[Tokens, int] = {}
    parents: list[int] = []
    paths: list[tuple[int, ...]] = []
    for label in labels:
        path = [PROMPT_END]
        for end in range(1, len(label)):
            prefix = label[:end]
            if prefix not in nodes:
                nodes[prefix] = len(parents)
                parents.append(path[-1])
            path.append(nodes[prefix])
        paths.append(tuple(path))
    inner = set(parents)
    leaves = [node for node in range(len(parents)) if node not in inner]
    branches: list[list[int]] = [[] for _ in parents]
    for branch, leaf in enumerate(leaves):
        node = leaf
        while node >= 0:
            branches[node].append(branch)
            node = parents[node]
    tail = Tail(
        tokens=tuple(prefix[-1] for prefix in nodes),
        parents=tuple(parents),
        branches=tuple(tuple(passing) for passing in branches),
        width=max(1, len(leaves)),
    )
    return tail, tuple(paths)


class Row(NamedTuple):  # a tuple, since a plan makes tens of thousands
    """One token of a batch, and the sequences that see it."""

    token: int
    position: int
    sequences: tuple[int, ...]


class Read(NamedTuple):
    """A wanted prediction: at a batch's ``row``, after ``node`` of ``prompt`` (:data:`PROMPT_END`: its last one)."""

    prompt: int
    node: int
    row: int


@dataclass(frozen=True)
class Fork:
    """Make ``targets`` continue what sequence ``source`` holds."""

    source: int
    targets: tuple[int, ...]


@dataclass(frozen=True)
class Drop:
    """Forget sequences."""

    sequences: tuple[int, ...]


@dataclass(frozen=True)
class Decode:
    """Run a batch, then take the wanted predictions."""

    rows: tuple[Row, ...]
    reads: tuple[Read, ...]


Operation = Fork | Drop | Decode


def plan(prompts: Sequence[Tokens], tail: Tail, limits: Limits, held: int = 0) -> Iterator[Operation]:
    """Schedule ``prompts``, each followed by ``tail``.

    Args:
        prompts: token sequences, none empty; equal ones are decoded once and read by the first one's number.
        tail: what hangs below each prompt.
        limits: what must hold; a prompt and its tail must fit the cells, the tail and one token a batch, and
            the tail's branches leave a sequence for the trunk of a prompt that exceeds a batch.
        held: that many tokens, with which all prompts begin and which leave each at least one more, are in
            sequence 0 already; no operation drops them.

    Returns:
        Operations in the order in which they are to be run.

    Raises:
        ValueError: the limits cannot hold a prompt and its tail.
    """
    longest = max(map(len, prompts), default=0)
    if (
        longest + len(tail.tokens) > limits.cells
        or len(tail.tokens) + 1 > limits.batch
        or tail.width + 1 + (held > 0) > limits.sequences
    ):
        raise ValueError(
            f"a prompt of {longest} tokens with a tail of {len(tail.tokens)} tokens and {tail.width} "
            f"branches does not fit {limits}; split the labels or shorten the prompt"
        )
    return _Planner(prompts, tail, limits, held).operations()


def most_cells(operations: Iterable[Operation], held: int = 0) -> int:
    """The largest number of tokens that the memory holds at once while ``operations`` run.

    A sequence's own tokens count until it is dropped: those who forked it are dropped before.
    """
    own: Counter[int] = Counter()
    most = held
    for operation in operations:
        if isinstance(operation, Decode):
            own.update(row.sequences[0] for row in operation.rows)
            most = max(most, held + own.total())
        elif isinstance(operation, Drop):
            for sequence in operation.sequences:
                own.pop(sequence, None)
    return most


class SortedPaths:
    """The prefix tree of prompts, as their sorted paths.

    Attributes:
        paths: the distinct prompts, sorted.
        numbers: for each, the number of the first prompt that is equal to it.
        common: for each, how many tokens it shares with the one before; 0 for the first.
    """

    def __init__(self, prompts: Sequence[Tokens]) -> None:
        numbers: dict[Tokens, int] = {}
        for number, prompt in enumerate(prompts):
            numbers.setdefault(prompt, number)
        self.paths = sorted(numbers)
        self.numbers = [numbers[path] for path in self.paths]
        before = [(), *self.paths]
        self.common = [common_length(left, right) for left, right in zip(before, self.paths, strict=False)]

    def children(self, low: int, high: int, shared: int) -> Iterator[tuple[int, int]]:
        """Parts of the paths ``low`` to ``high`` that share more than their first ``shared`` tokens."""
        start = low
        for index in range(low + 1, high):
            if self.common[index] <= shared:
                yield start, index
                start = index
        yield start, high


@dataclass
class _Trunk:
    """A sequence that holds what several units below it share.

    Attributes:
        sequence: its number.
        cells: tokens of its own that the memory holds.
        pending: places of its own tokens in the open batch.
    """

    sequence: int
    cells: int = 0
    pending: list[int] = field(default_factory=list)


@dataclass
class _Batch:
    """A batch being filled, and what ends with it.

    Attributes:
        rows: token, position, and the sequences that see it; a trunk's rows gain the units below it.
        reads: wanted predictions.
        sequences: to be dropped once it has run.
        cells: tokens that the memory holds for trunks that end with it.
    """

    rows: list[tuple[int, int, list[int]]] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    sequences: list[int] = field(default_factory=list)
    cells: int = 0


class _Planner:
    """Walks the prefix tree of sorted prompts depth first, with one batch open."""

    def __init__(self, prompts: Sequence[Tokens], tail: Tail, limits: Limits, held: int) -> None:
        self.tail = tail
        self.tail_depths = tail.depths
        self.limits = limits
        self.tree = SortedPaths(prompts)
        self.paths, self.numbers, self.common = self.tree.paths, self.tree.numbers, self.tree.common
        own = (len(path) - common for path, common in zip(self.paths, self.common, strict=True))
        self.own_before = [0, *accumulate(own)]  # own tokens of all paths before each
        self.free = list(range(limits.sequences - 1, -1, -1))
        self.batch = _Batch()
        self.trunks: list[_Trunk] = []  # from the root to where the walk is
        self.start = held
        if held:
            self.trunks.append(_Trunk(self.free.pop(), held))

    def operations(self) -> Iterator[Operation]:
        """Visit parts of the tree, each as (low, high, depth): paths whose first ``depth`` tokens the trunks hold."""
        parts: list[tuple[int, int, int] | None] = [(0, len(self.paths), self.start)] if self.paths else []
        while parts:
            part = parts.pop()
            if part is None:  # all below a trunk has been visited
                yield from self._end_trunk()
                continue
            low, high, depth = part
            if self._fits(low, high, depth):
                yield from self._add_unit(low, high, depth)
                continue
            shared = self._shared_depth(low, high, depth)
            if shared > depth and (high - low == 1 or self._sequences_allow_a_trunk()):
                yield from self._grow_trunk(low, depth, shared)
                parts += [None, (low, high, shared)]
            else:
                children = [(start, end, depth) for start, end in self.tree.children(low, high, shared)]
                parts += reversed(children)
        yield from self._flush()

    def _fits(self, low: int, high: int, depth: int) -> bool:
        """Whether the paths below ``depth`` make one batch that the memory holds beside the trunks."""
        count = high - low
        if count * self.tail.width > self.limits.sequences - len(self.trunks):
            return False
        return self._rows_below(low, high, depth) <= min(self.limits.batch, self.limits.cells - self._trunk_cells())

    def _trunk_cells(self) -> int:
        """Tokens of the trunks, whether the memory holds them or the open batch."""
        return sum(trunk.cells + len(trunk.pending) for trunk in self.trunks)

    def _rows_below(self, low: int, high: int, depth: int) -> int:
        """Tokens to decode for paths ``low`` to ``high`` with their tails, from ``depth`` on."""
        own = len(self.paths[low]) - depth + self.own_before[high] - self.own_before[low + 1]
        return own + (high - low) * len(self.tail.tokens)

    def _shared_depth(self, low: int, high: int, depth: int) -> int:
        """Where a trunk below ``depth`` ends: at the last token that all paths share.

        One path alone leaves to its unit what a last batch can hold.
        """
        if high - low > 1:
            return min(self.common[low + 1 : high])
        length = len(self.paths[low])
        surplus = self._rows_below(low, high, depth) - self.limits.batch
        batches = -(-max(surplus, 1) // self.limits.batch)
        return min(length, depth + batches * self.limits.batch)

    def _sequences_allow_a_trunk(self) -> bool:
        """Whether sequences are left for a path below it that exceeds a batch."""
        return len(self.trunks) + 2 + self.tail.width <= self.limits.sequences

    def _grow_trunk(self, low: int, depth: int, shared: int) -> Iterator[Operation]:
        """Put a shared edge into the open batch and those after it, as a sequence of its own."""
        if not self.free:
            yield from self._flush()
        trunk = _Trunk(self.free.pop())
        yield from self._follow_trunks([trunk.sequence])
        self.trunks.append(trunk)
        path = self.paths[low]
        for position in range(depth, shared):
            if self._full(1):
                yield from self._flush()
            trunk.pending.append(len(self.batch.rows))
            self.batch.rows.append((path[position], position, [trunk.sequence]))
        if shared == len(path):
            self.batch.reads.append(Read(self.numbers[low], PROMPT_END, len(self.batch.rows) - 1))

    def _end_trunk(self) -> Iterator[Operation]:
        """Drop the innermost trunk: at once, or with the batch that still needs it."""
        trunk = self.trunks.pop()
        if self.batch.rows:
            self.batch.sequences.append(trunk.sequence)
            self.batch.cells += trunk.cells
        else:
            yield Drop((trunk.sequence,))
            self.free.append(trunk.sequence)

    def _follow_trunks(self, sequences: list[int]) -> Iterator[Operation]:
        """Let new sequences continue what the trunks hold, in memory and in the open batch."""
        if any(trunk.cells for trunk in self.trunks):
            yield Fork(self.trunks[-1].sequence, tuple(sequences))
        for trunk in self.trunks:
            for row in trunk.pending:
                self.batch.rows[row][2].extend(sequences)

    def _full(self, rows: int) -> bool:
        """Whether the open batch, or the memory once it runs, cannot take ``rows`` more."""
        cells = self.batch.cells + sum(trunk.cells for trunk in self.trunks) + len(self.batch.rows) + rows
        return len(self.batch.rows) + rows > self.limits.batch or cells > self.limits.cells

    def _add_unit(self, low: int, high: int, depth: int) -> Iterator[Operation]:
        """Put a part of the tree that fits into the open batch, or into the next one."""
        rows = self._rows_below(low, high, depth)
        if rows == 0:  # a path that its trunk has read to the end, without a tail
            return
        width = self.tail.width
        if self._full(rows) or (high - low) * width > len(self.free):
            yield from self._flush()
        sequences = [self.free.pop() for _ in range((high - low) * width)]
        yield from self._follow_trunks(sequences)
        self.batch.sequences += sequences
        for index in range(low, high):
            first = depth if index == low else self.common[index]
            self._add_path(index, high, first, sequences[(index - low) * width :])

    def _add_path(self, index: int, high: int, first: int, sequences: list[int]) -> None:
        """Add the rows of one path from position ``first`` on, and its tail."""
        path, width, batch = self.paths[index], self.tail.width, self.batch
        ends = self._parting(index, high, first)
        seen_by = sequences[: (1 + len(ends)) * width]
        for position in range(first, len(path)):
            if ends and ends[-1] <= position:
                while ends and ends[-1] <= position:
                    ends.pop()
                seen_by = seen_by[: (1 + len(ends)) * width]
            batch.rows.append((path[position], position, seen_by))
        if first < len(path):  # otherwise its trunk has read it
            batch.reads.append(Read(self.numbers[index], PROMPT_END, len(batch.rows) - 1))
        for node, token in enumerate(self.tail.tokens):
            passing = [sequences[branch] for branch in self.tail.branches[node]]
            batch.rows.append((token, len(path) - 1 + self.tail_depths[node], passing))
            batch.reads.append(Read(self.numbers[index], node, len(batch.rows) - 1))

    def _parting(self, index: int, high: int, first: int) -> list[int]:
        """Where each following path that shares position ``first`` leaves this one; never ascending."""
        ends: list[int] = []
        end = len(self.paths[index])
        for other in range(index + 1, high):
            end = min(end, self.common[other])
            if end <= first:
                break
            ends.append(end)
        return ends

    def _flush(self) -> Iterator[Operation]:
        """Close the open batch: the memory then holds what it brought to the trunks."""
        if not self.batch.rows:
            return
        batch, self.batch = self.batch, _Batch()
        rows = tuple(Row(token, position, tuple(sequences)) for token, position, sequences in batch.rows)
        yield Decode(rows, tuple(batch.reads))
        for trunk in self.trunks:
            trunk.cells += len(trunk.pending)
            trunk.pending = []
        yield Drop(tuple(batch.sequences))
        self.free += reversed(batch.sequences)


def common_length(left: Tokens, right: Tokens) -> int:
    """Number of tokens with which both begin."""
    length = min(len(left), len(right))
    if left[:length] == right[:length]:
        return length
    low, high = 0, length  # bisect on slices: compares run in C
    while low < high:
        middle = (low + high + 1) // 2
        if left[:middle] == right[:middle]:
            low = middle
        else:
            high = middle - 1
    return low
