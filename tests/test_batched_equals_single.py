"""The engine's main shortcut against its slow twin: 200 real messages scored together and one by one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import promptsearch as ps
from promptsearch.lm.llamacpp.engine import LlamaEngine
from promptsearch.lm.llamacpp.weights import convert

ITEMS = 200


@pytest.fixture(scope="module")
def half_precision(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaEngine]:
    """The packaged model with F16 weights, as it would run where that type is the fastest."""
    path = tmp_path_factory.mktemp("weights") / "F16.gguf"
    convert(model_file, path, "F16")
    with LlamaEngine(path, name="packaged", fingerprint="F16") as engine:
        yield engine


def test_200_messages_together_and_one_by_one(half_precision: LlamaEngine) -> None:
    task = ps.example_task()
    shown = "".join(f"{example.text}\nTeam: {example.output}\n\n" for example in task.examples[:2])
    prompts = [f"{shown}{example.text}\nTeam:" for example in task.examples[2 : 2 + ITEMS]]
    labels = [f" {label}" for label in task.labels or ()]
    together = half_precision.score(prompts, labels)
    alone = np.concatenate([half_precision.score([prompt], labels) for prompt in prompts])
    assert np.mean(together.argmax(axis=1) == alone.argmax(axis=1)) >= 0.995
    likeliest = alone.argmax(axis=1)
    difference = np.abs(together - alone)
    assert difference[np.arange(ITEMS), likeliest].max() <= 0.02
    assert np.quantile(difference, 0.99) <= 0.02  # a label of one in a thousand has few digits to agree in
