"""The planner for states: no row of two sequences, forks of whole sequences, and what that costs."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_plan import Memory, check_all_read, label_lists, prompt_lists, token_lists

from promptsearch.lm.plan import Decode, Fork, Limits, Tail, Tokens, label_tail
from promptsearch.lm.plan_singly import plan_singly

LIMITS = Limits(batch=512, sequences=64, cells=8192)


def simulate(prompts: Sequence[Tokens], tail: Tail, limits: Limits) -> Memory:
    """Run a schedule on the model of the memory; a source is forked as it stands."""
    memory = Memory(limits)
    for operation in plan_singly(prompts, tail, limits):
        if isinstance(operation, Fork):
            assert memory.sequences.get(operation.source), "a fork of nothing"
        if isinstance(operation, Decode):
            assert all(len(row.sequences) == 1 for row in operation.rows)
        memory.run([operation])
        assert len(memory.sequences) <= limits.sequences
    assert not memory.sequences, "every sequence is given back"
    return memory


@st.composite
def tight_limits(draw: st.DrawFn, prompts: Sequence[Tokens], tail: Tail) -> Limits:
    branch = max(tail.depths, default=0)
    return Limits(
        batch=max(1, branch) + draw(st.integers(0, 24)),
        sequences=1 + bool(branch) + draw(st.integers(0, 12)),
        cells=max(map(len, prompts)) + branch + draw(st.integers(0, 40)),
    )


@settings(max_examples=300)
@given(st.data())
def test_every_prompt_is_read_along_its_own_path_within_the_limits(data: st.DataObject) -> None:
    prompts = data.draw(prompt_lists())
    tail, _ = label_tail(data.draw(label_lists))
    memory = simulate(prompts, tail, data.draw(tight_limits(prompts, tail)))
    check_all_read(memory, prompts, tail)


@settings(max_examples=100)
@given(
    token_lists(150, 2), token_lists(90, 2), st.lists(token_lists(5), min_size=1, max_size=30), label_lists, st.data()
)
def test_long_shared_beginnings(
    stem: Tokens, branch: Tokens, ends: list[Tokens], labels: list[Tokens], data: st.DataObject
) -> None:
    stem, branch = stem * 2, branch * 2
    prompts = [(*stem, *(branch if number % 2 else ()), *end) for number, end in enumerate(ends)] + [stem]
    tail, _ = label_tail(labels)
    memory = simulate(prompts, tail, data.draw(tight_limits(prompts, tail)))
    check_all_read(memory, prompts, tail)
    each = max(map(len, labels)) * len(labels)
    assert memory.decoded <= sum(len(prompt) + each for prompt in set(prompts))


def test_one_static_prefix_is_decoded_once() -> None:
    prefix = tuple(range(300))
    prompts = [(*prefix, 1000 + number, *range(20)) for number in range(100)]
    assert simulate(prompts, Tail(), LIMITS).decoded == 300 + 100 * 21


def test_a_prompt_is_decoded_once_for_all_branches() -> None:
    prompts = [(number, *range(30)) for number in range(20)]
    labels = [(first, 1, 2) for first in range(50)]
    tail, _ = label_tail(labels)
    assert simulate(prompts, tail, LIMITS).decoded == 20 * 31 + 20 * 50 * 2


def test_more_branches_than_sequences() -> None:
    tail, _ = label_tail([(first, 1) for first in range(200)])
    prompts = [(1, 2, 3), (1, 2)]
    memory = simulate(prompts, tail, Limits(batch=16, sequences=3, cells=64))
    check_all_read(memory, prompts, tail)


def test_a_prompt_longer_than_a_batch_is_cut() -> None:
    prompt = tuple(range(1300))
    memory = simulate([prompt], Tail(), LIMITS)
    assert memory.seen == {(0, -1): prompt}
    assert memory.decoded == 1300


def test_sequences_of_a_batch_are_neighbours_the_longest_first() -> None:
    """Only then does llama.cpp run them together."""
    prompts = [(number, *range(5 + number * 7 % 11)) for number in range(30)]
    batches = [each for each in plan_singly(prompts, Tail(), LIMITS) if isinstance(each, Decode)]
    for batch in batches:
        order = [row.sequences[0] for row in batch.rows]
        lengths = [order.count(sequence) for sequence in dict.fromkeys(order)]
        assert list(dict.fromkeys(order)) == list(range(order[0], order[0] + len(lengths)))
        assert lengths == sorted(lengths, reverse=True)


def test_nothing_to_do() -> None:
    assert list(plan_singly([], Tail(), LIMITS)) == []


@pytest.mark.parametrize(
    "limits",
    [
        Limits(batch=1, sequences=8, cells=64),
        Limits(batch=64, sequences=1, cells=64),
        Limits(batch=64, sequences=8, cells=6),
    ],
)
def test_limits_that_cannot_hold_a_prompt_are_refused_before_anything_runs(limits: Limits) -> None:
    tail, _ = label_tail([(1, 2, 3), (2, 3)])
    with pytest.raises(ValueError, match="does not fit"):
        plan_singly([(1, 1, 1, 1, 1)], tail, limits)


def test_every_beginning_of_a_long_text() -> None:
    text = tuple(range(1400))
    prompts = [text[:end] for end in range(1, 1401)]
    memory = simulate(prompts, Tail(), Limits(batch=512, sequences=256, cells=8704))
    check_all_read(memory, prompts, Tail())
