"""Rerankers against what they say they do, on the real model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptsearch.candidate import Candidate
from promptsearch.lm.llamacpp.engine import LlamaEngine
from promptsearch.prompting import PromptBuilder
from promptsearch.reranking import Reranker, entropies
from promptsearch.template import Demonstration

SHOWN = {
    number: Demonstration({"text": text}, label)
    for number, (text, label) in enumerate(
        [
            ("The parcel never came.", "Delivery"),
            ("My card was charged twice.", "Payment"),
            ("Where is the courier?", "Delivery"),
            ("I want my money back for the second charge.", "Payment"),
            ("The box was left in the rain.", "Delivery"),
            ("The invoice shows another sum.", "Payment"),
        ]
    )
}
ITEMS = [{"text": "The driver did not ring."}, {"text": "Why was I billed again?"}]
LABELS = ("Delivery", "Payment")


@pytest.fixture(scope="module")
def builder(engine: LlamaEngine) -> PromptBuilder:
    return PromptBuilder(engine, ["text"], "team", SHOWN, 8)


def test_conditional_entropy_keeps_what_makes_the_query_likeliest(
    engine: LlamaEngine, builder: PromptBuilder
) -> None:
    """The likelihood of the query after each example, asked one by one."""
    reading = Candidate("Route it.", mode="retrieved", count=3, reranker="cone")
    found = Reranker(engine, builder).rerank(reading, ITEMS, [tuple(SHOWN)] * 2, None)
    for item, chosen in zip(ITEMS, found, strict=True):
        likelihood = {}
        for number in SHOWN:
            text = str(builder.render(Candidate("Route it."), (number,), item))
            start = text.rindex(item["text"])
            assert text[start:] == f"{item['text']}\nTeam:"
            likelihood[number] = float(engine.score([text[:start]], [item["text"]])[0, 0])
        ranked = sorted(likelihood, key=lambda number: -likelihood[number])
        worst, best_left_out = min(likelihood[n] for n in chosen), likelihood[ranked[3]]
        assert len(set(chosen)) == 3
        assert worst >= best_left_out - 0.2  # batches round differently


def test_description_length_keeps_the_surest_set(engine: LlamaEngine, builder: PromptBuilder) -> None:
    reading = Candidate("Route it.", mode="retrieved", count=2, reranker="mdl")
    reranker = Reranker(engine, builder)
    found = reranker.rerank(reading, ITEMS, [tuple(SHOWN)] * 2, LABELS)

    def uncertainty(item: dict[str, str], shown: tuple[int, ...]) -> float:
        prompt = builder.build(replace(reading, reranker="none"), item, shown).prompt
        assert prompt is not None
        return float(entropies(engine.score([prompt], builder.continuations(reading, LABELS)))[0])

    for item, chosen in zip(ITEMS, found, strict=True):
        assert len(set(chosen)) == 2
        assert uncertainty(item, chosen) <= uncertainty(item, (0, 1)) + 0.02  # the matches as they come are a set too


@pytest.mark.parametrize("reranker", ["cone", "mdl"])
def test_a_choice_depends_on_its_own_item_alone(engine: LlamaEngine, builder: PromptBuilder, reranker: str) -> None:
    reading = Candidate(mode="retrieved", count=2, reranker=reranker)
    both = Reranker(engine, builder).rerank(reading, ITEMS, [tuple(SHOWN), (5, 4, 3, 2)], LABELS)
    again = Reranker(engine, builder).rerank(reading, ITEMS, [tuple(SHOWN), (5, 4, 3, 2)], LABELS)
    assert both == again
    assert set(both[1]) <= {5, 4, 3, 2}


@given(st.lists(st.lists(st.floats(-20, 0), min_size=3, max_size=3), min_size=1, max_size=5))
def test_entropies_by_their_formula(rows: list[list[float]]) -> None:
    for row, found in zip(rows, entropies(np.array(rows)), strict=True):
        shares = np.exp(row) / np.exp(row).sum()
        assert found == pytest.approx(-sum(share * np.log(share) for share in shares), abs=1e-9)


def test_a_row_without_any_possible_label_is_the_least_certain() -> None:
    rows = np.array([[-np.inf] * 3, [-1.0] * 3, [0.0, -np.inf, -np.inf], [-np.inf, -1.0, -1.0]])
    found = entropies(rows)
    assert found.tolist() == pytest.approx([np.inf, np.log(3), 0.0, np.log(2)])
    assert found.argmin() == 2
    assert entropies(rows[:1]).tolist() == [np.inf]
