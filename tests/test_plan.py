"""The planner against a model of the memory: what is decoded, who sees it, and what it costs."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptsearch.lm.plan import (
    Decode,
    Drop,
    Fork,
    Limits,
    Operation,
    Row,
    Tail,
    Tokens,
    label_tail,
    most_cells,
    plan,
)

PLENTY = Limits(batch=512, sequences=256, cells=8192)


@dataclass
class Memory:
    """Sequences as token lists, and cells as the sets of sequences that see them."""

    limits: Limits
    sequences: dict[int, list[int]] = field(default_factory=dict)
    cells: list[set[int]] = field(default_factory=list)
    decoded: int = 0
    most_cells: int = 0
    seen: dict[tuple[int, int], Tokens] = field(default_factory=dict)

    def run(self, operations: Sequence[Operation]) -> None:
        for operation in operations:
            if isinstance(operation, Fork):
                self.fork(operation)
            elif isinstance(operation, Drop):
                self.drop(operation)
            else:
                self.decode(operation)

    def fork(self, operation: Fork) -> None:
        for target in operation.targets:
            assert 0 <= target < self.limits.sequences
            assert not self.sequences.get(target), "a fork must not land on a sequence in use"
            self.sequences[target] = list(self.sequences[operation.source])
            for cell in self.cells:
                if operation.source in cell:
                    cell.add(target)

    def drop(self, operation: Drop) -> None:
        gone = set(operation.sequences)
        for sequence in gone:
            self.sequences.pop(sequence, None)
        self.cells = [cell - gone for cell in self.cells if cell - gone]

    def decode(self, operation: Decode) -> None:
        assert 0 < len(operation.rows) <= self.limits.batch
        after = [self.append(row) for row in operation.rows]
        self.decoded += len(after)
        self.most_cells = max(self.most_cells, len(self.cells))
        assert len(self.cells) <= self.limits.cells
        check_narrowing(operation.rows)
        wanted = [read.row for read in operation.reads]
        assert wanted == sorted(wanted), "reads must come in the order of their rows"
        for read in operation.reads:
            assert (read.prompt, read.node) not in self.seen, "a prediction was read twice"
            self.seen[read.prompt, read.node] = after[read.row]

    def append(self, row: Row) -> Tokens:
        """Add a token to its sequences, which must all hold the same tokens before it."""
        assert row.sequences
        assert len(set(row.sequences)) == len(row.sequences)
        before = {tuple(self.sequences.get(sequence, ())) for sequence in row.sequences}
        assert len(before) == 1
        held = before.pop()
        assert row.position == len(held)
        for sequence in row.sequences:
            assert 0 <= sequence < self.limits.sequences
            self.sequences.setdefault(sequence, []).append(row.token)
        self.cells.append(set(row.sequences))
        return (*held, row.token)


def check_narrowing(rows: Sequence[Row]) -> None:
    """Sequences that ran together may part, but never meet again within a batch."""
    last: dict[int, frozenset[int]] = {}
    for row in rows:
        here = frozenset(row.sequences)
        for sequence in row.sequences:
            assert here <= last.get(sequence, here)
            last[sequence] = here


def tail_paths(tail: Tail) -> dict[int, Tokens]:
    """Tokens from the prompt's end to each node."""
    paths: dict[int, Tokens] = {-1: ()}
    for node, (token, parent) in enumerate(zip(tail.tokens, tail.parents, strict=True)):
        paths[node] = (*paths[parent], token)
    return paths


def simulate(prompts: Sequence[Tokens], tail: Tail, limits: Limits, held: int = 0) -> Memory:
    memory = Memory(limits)
    if held:
        memory.sequences[0] = list(prompts[0][:held])
        memory.cells = [{0} for _ in range(held)]
    operations = list(plan(prompts, tail, limits, held))
    memory.run(operations)
    assert memory.most_cells <= most_cells(operations, held) <= limits.cells
    return memory


def tree_size(sequences: Sequence[Tokens]) -> int:
    return len({sequence[:end] for sequence in sequences for end in range(1, len(sequence) + 1)})


def check_all_read(memory: Memory, prompts: Sequence[Tokens], tail: Tail) -> None:
    firsts = {prompt: prompts.index(prompt) for prompt in prompts}
    expected = {
        (number, node): prompt + path for prompt, number in firsts.items() for node, path in tail_paths(tail).items()
    }
    assert memory.seen == expected


def token_lists(longest: int, alphabet: int = 3) -> st.SearchStrategy[Tokens]:
    return st.lists(st.integers(0, alphabet - 1), min_size=1, max_size=longest).map(tuple)


@st.composite
def prompt_lists(draw: st.DrawFn) -> list[Tokens]:
    """Prompts that share prefixes of many lengths, continue one another, and repeat."""
    stems = draw(st.lists(token_lists(14, 2), min_size=1, max_size=4))
    prompts: list[Tokens] = []
    for _ in range(draw(st.integers(1, 30))):
        stem = draw(st.sampled_from(stems))
        cut = draw(st.integers(0, len(stem)))
        prompts.append((stem[:cut] + draw(token_lists(6)))[:18])
    return prompts


label_lists = st.lists(token_lists(4), min_size=1, max_size=6, unique=True)


@st.composite
def tight_limits(draw: st.DrawFn, prompts: Sequence[Tokens], tail: Tail) -> Limits:
    longest = max(map(len, prompts))
    return Limits(
        batch=len(tail.tokens) + draw(st.integers(1, 24)),
        sequences=tail.width + draw(st.integers(1, 12)),
        cells=longest + len(tail.tokens) + draw(st.integers(0, 40)),
    )


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_every_prompt_is_read_along_its_own_path_within_the_limits(data: st.DataObject) -> None:
    prompts = data.draw(prompt_lists())
    tail, _ = label_tail(data.draw(label_lists))
    memory = simulate(prompts, tail, data.draw(tight_limits(prompts, tail)))
    check_all_read(memory, prompts, tail)


@settings(max_examples=150, deadline=None)
@given(prompt_lists(), label_lists, st.integers(0, 40))
def test_shared_tokens_are_decoded_once(prompts: list[Tokens], labels: list[Tokens], room: int) -> None:
    tail, _ = label_tail(labels)
    limits = Limits(batch=len(tail.tokens) + 1 + room, sequences=256, cells=8192)
    memory = simulate(prompts, tail, limits)
    check_all_read(memory, prompts, tail)
    distinct = set(prompts)
    assert memory.decoded == tree_size(sorted(distinct)) + len(distinct) * len(tail.tokens)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_what_a_sequence_holds_already_is_not_decoded_again(data: st.DataObject) -> None:
    prefix = data.draw(token_lists(12, 2))
    prompts = [prefix + prompt for prompt in data.draw(prompt_lists())]
    tail, _ = label_tail(data.draw(label_lists))
    limits = data.draw(tight_limits(prompts, tail))
    limits = replace(limits, sequences=limits.sequences + 1)
    memory = simulate(prompts, tail, limits, held=len(prefix))
    check_all_read(memory, prompts, tail)
    assert memory.sequences[0] == list(prefix)
    plenty = simulate(prompts, tail, PLENTY, held=len(prefix))
    distinct = set(prompts)
    assert plenty.decoded == tree_size(sorted(distinct)) - len(prefix) + len(distinct) * len(tail.tokens)


@settings(max_examples=100, deadline=None)
@given(prompt_lists(), st.integers(1, 40))
def test_never_more_than_one_by_one(prompts: list[Tokens], batch: int) -> None:
    limits = Limits(batch=batch, sequences=8, cells=64)
    memory = simulate(prompts, Tail(), limits)
    assert memory.decoded <= sum(map(len, set(prompts)))


@settings(max_examples=100, deadline=None)
@given(prompt_lists(), label_lists, st.randoms(use_true_random=False))
def test_the_order_of_prompts_changes_no_cost(
    prompts: list[Tokens], labels: list[Tokens], rng: random.Random
) -> None:
    tail, _ = label_tail(labels)
    shuffled = list(prompts)
    rng.shuffle(shuffled)
    assert simulate(prompts, tail, PLENTY).decoded == simulate(shuffled, tail, PLENTY).decoded


@given(label_lists)
def test_label_tail_holds_every_label_but_its_last_token(labels: list[Tokens]) -> None:
    tail, paths = label_tail(labels)
    texts = tail_paths(tail)
    for label, nodes in zip(labels, paths, strict=True):
        assert [texts[node] for node in nodes] == [label[:end] for end in range(len(label))]
    assert len(tail.tokens) == tree_size([label[:-1] for label in labels])
    assert all(parent < node for node, parent in enumerate(tail.parents))


@given(label_lists)
def test_label_tail_branches_are_the_leaves(labels: list[Tokens]) -> None:
    tail, _ = label_tail(labels)
    leaves = set(range(len(tail.tokens))) - set(tail.parents)
    assert tail.width == max(1, len(leaves))
    assert all(len(tail.branches[leaf]) == 1 for leaf in leaves)
    for node, parent in enumerate(tail.parents):
        assert parent < 0 or set(tail.branches[node]) <= set(tail.branches[parent])


def test_one_token_labels_need_no_tail() -> None:
    assert label_tail([(3,), (4,)]) == (Tail(), ((-1,), (-1,)))


def test_nothing_to_do() -> None:
    assert list(plan([], Tail(), PLENTY)) == []


def test_prompts_of_one_static_prefix_decode_it_once() -> None:
    prefix = tuple(range(300))
    prompts = [(*prefix, 1000 + number, *range(20)) for number in range(100)]
    assert simulate(prompts, Tail(), Limits()).decoded == 300 + 100 * 21


def test_a_chain_of_prompts_that_continue_each_other_is_one_path() -> None:
    prompts = [tuple(range(length)) for length in range(10, 1510, 10)]
    assert simulate(prompts, Tail(), Limits()).decoded == 1500


def test_a_chain_deeper_than_the_sequences_still_fits() -> None:
    prompts = [tuple(range(length)) for length in range(10, 610, 10)]
    tail, _ = label_tail([(1, 2), (2, 2)])
    memory = simulate(prompts, tail, Limits(batch=16, sequences=6, cells=640))
    check_all_read(memory, prompts, tail)


def test_a_prompt_longer_than_a_batch_is_cut() -> None:
    prompt = tuple(range(1300))
    memory = simulate([prompt], Tail(), Limits(batch=512))
    assert memory.seen == {(0, -1): prompt}
    assert memory.decoded == 1300


@pytest.mark.parametrize(
    "limits",
    [
        Limits(batch=2, sequences=8, cells=64),
        Limits(batch=64, sequences=2, cells=64),
        Limits(batch=64, sequences=8, cells=6),
    ],
)
def test_limits_that_cannot_hold_a_prompt_are_refused_before_anything_runs(limits: Limits) -> None:
    tail, _ = label_tail([(1, 2), (2, 3)])
    with pytest.raises(ValueError, match="does not fit"):
        plan([(1, 1, 1, 1, 1)], tail, limits)


def test_every_beginning_of_a_long_text() -> None:
    text = tuple(range(1400))
    prompts = [text[:end] for end in range(1, 1401)]
    memory = simulate(prompts, Tail(), Limits(batch=512, sequences=256, cells=8704))
    check_all_read(memory, prompts, Tail())
