"""The benchmark of texts asked for one after another: what it counts and how it tells ratios."""

from __future__ import annotations

import pytest

pytest.importorskip("dspy")

from benchmarks import one_by_one
from promptsearch.lm.fake import FakeLM
from promptsearch.lm.resolve import open_engine


def test_every_way_answers_each_prompt_in_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def way(name: str, text: str) -> one_by_one.Way:
        def ask(prompts: list[str]) -> list[str]:
            asked.append((name, len(prompts)))
            return [text, f" {text} "][: len(prompts)]

        return ask

    ways = {"speculative": way("speculative", "a b"), "singly": way("singly", "a b"), "class": way("class", "c")}
    monkeypatch.setattr(one_by_one, "_ways", lambda opened, stop: ways)
    cell = one_by_one.measure_case(open_engine(FakeLM(lambda prompt, continuation: 0.0)), ["x", "y"], "\n", 3)
    assert asked == [(name, 1) for name in ways] + [(name, 2) for name in ways] * 3
    assert cell["same"] == {"speculative": 2, "singly": 2, "class": 0}
    assert {len(seconds) for seconds in cell["seconds"].values()} == {3}
    assert cell["written"] > 0


def test_the_table_has_medians_of_ratios() -> None:
    seconds = {"speculative": [1.0, 2.0, 4.0], "singly": [2.0, 3.0, 4.0]}
    cell = {"prompts": 2, "written": 9, "seconds": seconds, "same": {"speculative": 2, "singly": 2}}
    _, first, second = one_by_one.table({"chat": cell}).strip().split("\n")
    assert first.split()[:3] == ["speculative", "2.00", "s"]
    assert "1.50 times as long; 2 of 2" in second
