"""The reasoning benchmark: its symbolic tasks, and its way through a model that is over in an instant."""

from __future__ import annotations

import argparse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.reasoning import METHODS, _line, compared, table, task_of
from benchmarks.symbolic import TASKS, make_rows
from promptsearch.lm.fake import ScriptedLM
from promptsearch.lm.resolve import open_engine


@pytest.mark.parametrize("name", sorted(TASKS))
@given(seed=st.integers(0, 10**6))
def test_the_last_words_of_a_rationale_are_the_answer(name: str, seed: int) -> None:
    rows = make_rows(name, 5, seed)
    assert rows == make_rows(name, 5, seed)
    assert len({row["input"] for row in rows}) == 5
    for row in rows:
        assert row["rationale"].rstrip(".").endswith(row["output"])
        assert "\n" not in row["input"] + row["output"] + row["rationale"]


def adds_after_reasoning(prompt: str) -> str:
    """Looks prices up in its reasoning, and only then can add them; without being shown how it does not reason."""
    query = prompt.rpartition("Input:")[2]
    told = dict(part.rsplit(" ", 1) for part in query.partition("Prices: ")[2].partition(". What")[0].split(", "))
    one, other = query.partition("do a ")[2].partition(" cost")[0].split(" and a ")
    total = int(told[one]) + int(told[other])
    if prompt.endswith("Output:"):
        return f" {total}" if f"= {total}" in query else " 0"
    shown = "Reasoning:" in prompt.rpartition("Input:")[0]
    return (
        f" {one} {told[one]}, {other} {told[other]}. {told[one]} + {told[other]} = {total}"
        if shown
        else " Well, I think so."
    )


def test_methods_are_compared_on_the_same_rows() -> None:
    options = argparse.Namespace(rows=80, test_rows=30, data=None)
    methods = METHODS[:-1]
    cell = compared(task_of("lookup", options, 0), open_engine(ScriptedLM(adds_after_reasoning)), "", 0, methods)
    values = {name: each["value"] for name, each in cell["measured"].items()}
    assert values["gold"] == values["vote"] == 1.0
    assert values["direct"] == values["zero-shot"] == values["step by step"] == 0.0
    assert values.keys() == set(methods) - {"self"}  # it never reasons unless it is shown how
    assert cell["gain"]["gold"]["low"] > 0.8
    assert cell["gain_over_zero_shot"]["direct"]["value"] == 0.0
    assert {each["n"] for each in cell["measured"].values()} == {30}
    assert cell["measured"]["vote"]["tokens"] > cell["measured"]["direct"]["tokens"]
    assert "gold 100.0" in _line(cell)
    assert "+100.0" in table({"lookup|0": cell})


def test_the_table_averages_over_the_seeds_that_have_a_method() -> None:
    def measured(value: float, tokens: int, seconds: float) -> dict[str, float]:
        return {"value": value, "n": 10, "tokens": tokens, "seconds": seconds}

    gain = {"value": 0.25, "low": 0.1, "high": 0.4}
    cells = {
        "lookup|0": {"measured": {"direct": measured(0.5, 100, 1.0)}, "gain": {}},
        "lookup|1": {
            "measured": {"direct": measured(0.6, 300, 3.0), "self": measured(0.8, 500, 5.0)},
            "gain": {"self": gain},
        },
    }
    direct, own = (line.split() for line in table(cells).splitlines() if "ms a row" in line)
    assert " ".join(direct) == "direct 55.0 20 tokens 200 ms a row"
    assert " ".join(own) == "self 80.0 50 tokens 500 ms a row +25.0 [+10.0, +40.0] over direct (1 of 2 seeds)"
