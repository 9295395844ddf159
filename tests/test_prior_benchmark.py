"""The benchmark of the prior's parts, on made-up rows."""

from __future__ import annotations

import pytest
from fakes import WordEncoder, numbered_task

from benchmarks.prior import PARTS, limited, measured, table
from promptsearch.embed.cache import CachedEncoder
from promptsearch.run.workbench import embed_splits, with_prior


def test_parts_are_measured_apart_and_together() -> None:
    task, encoder = numbered_task(300), CachedEncoder(WordEncoder())
    cell = measured(task, 0, encoder)
    near = with_prior(task, embed_splits(task, task.split(0), encoder, lambda done, total: None))
    test = near.splits.test
    right = {number: (task.labels or ()).index(task.examples[number].output) for number in test}
    for part, logs in (("vote", near.votes), ("together", near.priors)):
        hits = [int(logs[number].argmax()) == right[number] for number in test]
        assert cell[part]["value"] == pytest.approx(sum(hits) / len(hits))
    assert {cell[part]["n"] for part in PARTS if part in cell} == {len(test)}
    assert "further" not in cell
    assert cell["rows"] == near.splits.sizes
    (_, line) = table({"made up|300|0": cell}).split("\n")
    assert line.startswith("made up")
    assert all(f"{100 * cell[part]['value']:.1f}" in line for part in PARTS if part in cell)


def test_rows_without_vectors_are_counted_apart() -> None:
    """A budget of no tokens takes the fewest rows; one of many leaves none without vectors."""
    task, encoder = numbered_task(1500), CachedEncoder(WordEncoder())
    small, large = (limited(task, 0, encoder, tokens) for tokens in (1, 10**7))
    assert small["rows"]["pool"] <= 200
    assert small["rows"]["further"] > 0
    assert small["further"]["n"] == small["together"]["n"] == large["together"]["n"]
    assert large["rows"]["further"] == 0
    assert large["further"] == large["together"]
