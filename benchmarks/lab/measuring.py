"""Measures one condition on one dataset under one seed, into a cell of plain values.

A cell holds for each way of scoring (:mod:`benchmarks.lab.ways`) one character an item, 1 where the answer was right.
Beside it stand values that no report reads and a reader of the file may: the mean log-probability of the right label,
and each piece of plain text's own loss.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import promptsearch as ps
from benchmarks.lab.conditions import Condition, Labelled, Passage, Surrogate, Thinking, Turns
from benchmarks.lab.demonstrations import drawn, names_of, shown
from benchmarks.lab.dual_form import surrogate_scores
from benchmarks.lab.material import Material
from benchmarks.lab.problems import Problems
from benchmarks.lab.prompts import channel_prompts, label_prompts
from benchmarks.lab.reader import Reader
from benchmarks.lab.turns import measure_turns
from benchmarks.lab.ways import bits, right_in_ways
from promptsearch.errors import ContextError, DataError
from promptsearch.probabilities import normalized

__all__ = ["Place", "Stock", "measure_cell"]

Cell = dict[str, Any]


@dataclass(frozen=True)
class Stock:
    """Everything that can be asked about.

    Attributes:
        materials: the datasets with labels, by name.
        switched: those that one engine serves in turn.
        problems: tasks with free answers.
        texts: pieces of plain text.
        thinking_tokens: tokens of a piece of reasoning at most.
    """

    materials: Mapping[str, Material]
    switched: Mapping[str, Material]
    problems: Problems
    texts: Sequence[str]
    thinking_tokens: int


@dataclass(frozen=True)
class Place:
    """Where a condition is measured.

    Attributes:
        stock: everything that can be asked about.
        dataset: name of what is asked about.
        seed: of what is drawn.
    """

    stock: Stock
    dataset: str
    seed: int

    @property
    def material(self) -> Material:
        """The dataset asked about."""
        return self.stock.materials[self.dataset]

    @property
    def other(self) -> Material:
        """Where foreign inputs come from: the dataset after it."""
        names = list(self.stock.materials)
        return self.stock.materials[names[(names.index(self.dataset) + 1) % len(names)]]


def measure_cell(condition: Condition, place: Place, reader: Reader) -> Cell:
    """One cell; only the reason where prompts do not fit the model's context, or too few rows can be shown."""
    before, begun = reader.tokens, time.perf_counter()
    try:
        cell = _MEASURES[type(condition)](condition, place, reader)
    except (ContextError, DataError) as error:
        return {"left_out": str(error)}
    return {**cell, "tokens": reader.tokens - before, "seconds": round(time.perf_counter() - begun, 2)}


def _labelled(condition: Labelled, place: Place, reader: Reader) -> Cell:
    material = place.material
    rows = shown(material, place.other, condition, place.seed)
    names = names_of(material.labels, place.seed) if condition.words else {}
    labels = [names.get(label, label) for label in material.labels]
    description = material.description if condition.described else ""
    if condition.channel:
        prompts = channel_prompts(condition.template, description, rows, labels)
        return _judged(reader.channel(prompts, material.texts), material)
    return _judged(
        reader.labels(label_prompts(condition.template, description, rows, material.texts), labels), material
    )


def _judged(log_probabilities: NDArray[np.float64], material: Material) -> Cell:
    """Right answers in both ways, and the mean log-probability of the right label among the labels."""
    logs, golds = normalized(log_probabilities), material.golds
    gold = float(logs[np.arange(len(golds)), golds].mean())
    return {**_kept(logs, golds), "gold_log_probability": round(gold, 4)}


def _kept(scores: NDArray[np.float64], golds: NDArray[np.int64]) -> Cell:
    return {way: bits(right) for way, right in right_in_ways(scores, golds).items()}


def _thinking(condition: Thinking, place: Place, reader: Reader) -> Cell:
    task = place.stock.problems.task(place.dataset)
    metric = task.require_metric()
    test = [task.examples[number] for number in task.parts.test]
    pool = place.stock.problems.shown(place.dataset, condition.shots, place.seed)
    reasoning = {"none": "none", "cue": "cue", "shown": "gold"}[condition.reasoning]
    prompt = ps.Prompt(task, pool, reader.opened, reasoning=reasoning, thinking_tokens=place.stock.thinking_tokens)
    said = prompt.predict(test)
    right = [metric(row, str(each.output or "")) > 0.5 for row, each in zip(test, said, strict=True)]
    return {"direct": bits(np.array(right))}


def _surrogate(condition: Surrogate, place: Place, reader: Reader) -> Cell:
    material = place.material
    rows = drawn(material, condition.shots, place.seed)
    if condition.control:
        rows = drawn(material, condition.shots, place.seed, besides=rows)
    vectors = np.asarray(material.encoder.encode([row.text or "" for row in rows]))
    labels = np.array([material.labels.index(row.label or "") for row in rows])
    scores = surrogate_scores(vectors, labels, material.item_vectors, len(material.labels))
    return _kept(scores, material.golds)


def _passage(condition: Passage, place: Place, reader: Reader) -> Cell:
    logs = reader.passages(place.stock.texts)
    sizes = np.array([len(text.encode("utf-8")) for text in place.stock.texts])
    return {
        "bits_per_byte": float(-logs.sum() / np.log(2) / sizes.sum()),
        "pieces": np.round(-logs / np.log(2) / sizes, 4).tolist(),
    }


def _turns(condition: Turns, place: Place, reader: Reader) -> Cell:
    return measure_turns(condition, place.stock.switched, reader, place.seed)


_MEASURES: Mapping[type[Condition], Callable[[Any, Place, Reader], Cell]] = {
    Labelled: _labelled,
    Thinking: _thinking,
    Surrogate: _surrogate,
    Passage: _passage,
    Turns: _turns,
}
