"""Rows dealt label by label."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptsearch.folds import FOLDS, spread_rows, stratified_folds

labels = st.lists(st.integers(0, 6), max_size=60).map(lambda each: np.array(each, dtype=np.int64))


@given(labels)
def test_each_fold_has_its_share_of_every_label(golds: np.ndarray) -> None:
    folds = stratified_folds(golds)
    sizes = np.bincount(folds, minlength=FOLDS)
    assert folds.shape == golds.shape
    assert sizes.max() - sizes.min() <= 1
    for label in set(golds.tolist()):
        shares = np.bincount(folds[golds == label], minlength=FOLDS)
        assert shares.max() - shares.min() <= 1


@given(labels, st.integers(1, 70))
def test_some_rows_hold_about_the_share_of_each_label(golds: np.ndarray, most: int) -> None:
    places = spread_rows(golds, most)
    assert len(places) == min(most, len(golds))
    assert (np.diff(places) > 0).all()
    for label in set(golds.tolist()):
        share = most * (golds == label).sum() / max(most, len(golds))
        assert (golds[places] == label).sum() == pytest.approx(share, abs=1.5)


def test_dspys_choices_in_turn_are_calibrated_as_in_any_other_order() -> None:
    """Rows whose five labels take turns: a fold that held every fifth row would have a label to itself."""
    pytest.importorskip("dspy")
    from promptsearch.dspy.calibrating import best_weighing

    rng = np.random.default_rng(0)
    golds = np.arange(60) % 5
    logs = 1.5 * np.eye(5)[golds] + np.array([3.0, 0.0, 0.0, -1.0, 0.0]) + 0.3 * rng.normal(size=(60, 5))
    found = best_weighing(logs, golds)
    assert found.calibration != "none"
    shuffled = rng.permutation(60)
    assert best_weighing(logs[shuffled], golds[shuffled]).calibration == found.calibration
    assert (found.scores(logs).argmax(axis=1) == golds).mean() > (logs.argmax(axis=1) == golds).mean() + 0.2
