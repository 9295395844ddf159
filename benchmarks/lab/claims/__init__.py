"""The claims of the chapter, in its order, one module each."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.lab.claim import Claim, Setting
from benchmarks.lab.claims import (
    correct_share,
    count,
    flipped_labels,
    foreign_inputs,
    gold_labels,
    implicit_steps,
    label_space,
    loss,
    order,
    pairs,
    reasoning,
    reasoning_by_size,
    selection,
    switching,
    template,
)

__all__ = ["CLAIMS"]

CLAIMS: tuple[Callable[[Setting], Claim], ...] = (
    template.claim,
    selection.claim,
    reasoning.claim,
    gold_labels.claim,
    correct_share.claim,
    count.claim,
    foreign_inputs.claim,
    label_space.claim,
    pairs.claim,
    order.claim,
    implicit_steps.claim,
    loss.claim,
    flipped_labels.claim,
    reasoning_by_size.claim,
    switching.claim,
)
"""Claim number n is the n-th one, from 1."""
