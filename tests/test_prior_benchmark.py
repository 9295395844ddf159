"""The benchmark of the prior's parts, on made-up rows."""

from __future__ import annotations

import pytest
from fakes import WordEncoder, numbered_task

from benchmarks.prior import PARTS, measured, table
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
    assert {cell[part]["n"] for part in PARTS} == {len(test)}
    assert cell["rows"] == near.splits.sizes
    (_, line) = table({"made up|300|0": cell}).split("\n")
    assert line.startswith("made up")
    assert all(f"{100 * cell[part]['value']:.1f}" in line for part in PARTS)
