"""Several tasks in turn on one engine: what a switch costs, beside training a small classifier for each task.

A task's first query decodes its demonstrations, a later one finds their state kept (see
:mod:`promptsearch.lm.llamacpp.prefix`). The classifier is a logistic regression on embeddings, trained anew at each
switch, its texts embedded anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.lab.conditions import Turns
from benchmarks.lab.demonstrations import drawn
from benchmarks.lab.material import Material
from benchmarks.lab.prompts import label_prompts
from benchmarks.lab.reader import Reader
from benchmarks.lab.ways import right_in_ways
from promptsearch.embed.cache import CachedEncoder
from promptsearch.probabilities import normalized, one_thread

__all__ = ["measure_turns"]

_ITEMS = 40  # that both are asked about


def measure_turns(condition: Turns, materials: Mapping[str, Material], reader: Reader, seed: int) -> dict[str, Any]:
    """Seconds of one round through all tasks, of a second one, and of training a classifier for each.

    Accuracies of model and classifier stand in the first seed's cell.
    """
    found: dict[str, Any] = {}
    reader.labels(label_prompts("label", "", [], ["warm up"]), ["yes", "no"])
    reader.forget()
    rows = {name: drawn(material, condition.shots, seed) for name, material in materials.items()}
    first = {name: _ask(material, rows[name], reader) for name, material in materials.items()}
    second = {name: _ask(material, rows[name], reader) for name, material in materials.items()}
    for name, material in materials.items():
        _ask(material, rows[name], reader)  # switches back, so that the next one is no switch
        found[name] = {
            "first_switch": first[name],
            "later_switch": second[name],
            "no_switch": _ask(material, rows[name], reader),
            "training_on_shots": _train(material, condition.shots, seed)[0],
        }
        found[name]["training_on_rows"], classifier = _train(material, condition.rows, seed)
        if seed == 0:
            found[name]["model_accuracy"] = _accuracy(material, rows[name], reader)
            found[name]["classifier_accuracy"] = classifier(material)
    return {"tasks": found}


def _ask(material: Material, rows: list[Any], reader: Reader) -> float:
    """Seconds of one query, always the same one."""
    prompts = label_prompts("label", "", rows, material.texts[:1])
    begun = time.perf_counter()
    reader.labels(prompts, material.labels)
    return time.perf_counter() - begun


def _accuracy(material: Material, rows: list[Any], reader: Reader) -> float:
    """The model's, calibrated, on the first items."""
    logs = normalized(reader.labels(label_prompts("label", "", rows, material.texts[:_ITEMS]), material.labels))
    return float(right_in_ways(logs, material.golds[:_ITEMS])["calibrated"].mean())


def _train(material: Material, count: int, seed: int) -> tuple[float, Callable[[Material], float]]:
    """Seconds of embedding and training on rows, and what tells the classifier's accuracy on the first items."""
    from sklearn.linear_model import LogisticRegression

    rows = drawn(material, count, seed)
    encoder = material.encoder
    plain = encoder.encoder if isinstance(encoder, CachedEncoder) else encoder
    plain.encode(["warm up"])
    begun = time.perf_counter()
    vectors = np.asarray(plain.encode([row.text or "" for row in rows]))
    with one_thread():
        classifier = LogisticRegression(C=10.0, max_iter=1000).fit(vectors, [row.label for row in rows])
    seconds = time.perf_counter() - begun

    def accuracy(of: Material) -> float:
        said = classifier.predict(of.item_vectors[:_ITEMS])
        return float(np.mean(said == np.array([item.label for item in of.items[:_ITEMS]])))

    return seconds, accuracy
