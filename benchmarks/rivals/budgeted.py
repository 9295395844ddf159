"""Recipes that spend model tokens on a choice, as many as ours spent in all.

Invariant: what a recipe spends on its choice stays within the tokens given, but for what prices round; where it
chose on few rows, its winner is calibrated on 64 unlabelled ones beyond that. The rows that choices are made on are
ours' search and confirmation rows. Answering the test rows is not in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from benchmarks.recipes import CALIBRATION_ROWS, Bench, offsets_of
from benchmarks.rivals.decisions import anchor_votes, best_count, divergences, least_entropy, with_rest
from promptsearch.candidate import Candidate
from promptsearch.evaluation import Answers
from promptsearch.lm.base import FloatArray
from promptsearch.lm.llamacpp.engine import LlamaEngine
from promptsearch.measurement import Measurement

__all__ = ["BUDGETED", "Found", "best_of_random", "knn_prompting", "topk_calibrated", "topk_mdl"]

_TOPK_SHOTS = (1, 2, 4, 8, 16)
_MDL_SHOTS = (2, 4, 8)
_MDL_NEAREST = 30
_MDL_SETS = 10
_FEWEST_ROWS = 4
_TOKENS_KEPT = 2000
_PROBING_ANCHORS = 4
_SCORED_AT_ONCE = 64
_NEIGHBOUR_COUNTS = (1, 3, 5, 9, 17, 33)


@dataclass(frozen=True)
class Found:
    """What a recipe came to.

    Attributes:
        test: on the test rows, by variant; the one named "" is the recipe itself.
        spent: tokens before the test rows.
        details: what it chose, and from how much.
    """

    test: dict[str, Measurement]
    spent: int
    details: dict[str, Any] = field(default_factory=dict)


def best_of_random(bench: Bench, tokens: int, sets: int) -> Found:
    """The best of so many random sets of eight, each calibrated, on as many rows as the tokens pay for."""
    rng = np.random.default_rng([bench.seed, 13])
    candidates = [bench.random_shots(rng) for _ in range(sets)]
    prices = [bench.price(candidate, bench.validation) for candidate in candidates]
    opening, row = (float(np.mean([getattr(price, name) for price in prices])) for name in ("opening", "row"))
    tried = max(1, min(sets, int(tokens // (opening + _FEWEST_ROWS * row))))
    rows = max(1, min(len(bench.validation), int((tokens / tried - opening) // row)))
    items = bench.validation[:rows]
    begun = bench.spent
    answers = {candidate: bench.ask(candidate, items) for candidate in candidates[:tried]}
    worths = {candidate: bench.worth(items, answers[candidate]) for candidate in answers}
    best = max(worths, key=lambda candidate: worths[candidate])
    offsets = offsets_of(answers[best] if rows >= CALIBRATION_ROWS else _calibrating(bench, best))
    spent = bench.spent - begun
    test = bench.measure(bench.ask(best, bench.test), offsets)
    return Found({"": test}, spent, {"sets": tried, "rows": rows, "validation": worths[best][0]})


def topk_calibrated(bench: Bench, tokens: int) -> Found:
    """Each query's nearest demonstrations, calibrated; how many was chosen on as many rows as the tokens pay for."""
    begun = bench.spent
    candidates = [bench.nearest(count) for count in _TOPK_SHOTS if count <= len(bench.near.pool)]
    rows = _rows_for(bench, candidates, tokens, 1)
    items = bench.validation[:rows]
    answers = {candidate: bench.ask(candidate, items) for candidate in candidates}
    worths = {candidate: bench.worth(items, answers[candidate]) for candidate in candidates}
    best = max(worths, key=lambda candidate: worths[candidate])
    offsets = offsets_of(answers[best] if rows >= CALIBRATION_ROWS else _calibrating(bench, best))
    spent = bench.spent - begun
    test = bench.measure(bench.ask(best, bench.test), offsets)
    return Found({"": test}, spent, {"shots": best.count, "rows": rows, "validation": worths[best][0]})


def topk_mdl(bench: Bench, tokens: int) -> Found:
    """TopK + MDL: of ten ordered sets among the thirty nearest, for each query the one of least entropy."""
    begun = bench.spent
    candidates = [replace(bench.nearest(count), order="nearest-first") for count in _MDL_SHOTS]
    rows = _rows_for(bench, candidates, tokens, _MDL_SETS)
    items = bench.validation[:rows]
    answers = {candidate: _mdl_answers(bench, candidate, items) for candidate in candidates}
    worths = {candidate: bench.worth(items, answers[candidate]) for candidate in candidates}
    best = max(worths, key=lambda candidate: worths[candidate])
    spent = bench.spent - begun
    test = _mdl_answers(bench, best, bench.test)
    measured = {"": bench.measure(test), "_calibrated": bench.measure(test, offsets_of(answers[best]))}
    return Found(measured, spent, {"shots": best.count, "rows": rows, "validation": worths[best][0]})


def ordered_sets(nearest: Sequence[int], count: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Ten ordered sets among the thirty nearest: the nearest themselves, the nearest last, and random ones."""
    known = list(nearest[:_MDL_NEAREST])
    count = min(count, len(known))
    first = tuple(reversed(known[:count]))
    others = (rng.choice(known, size=count, replace=False) for _ in range(_MDL_SETS - 1))
    return [first, *(tuple(int(number) for number in chosen) for chosen in others)]


def _mdl_answers(bench: Bench, candidate: Candidate, items: Sequence[int]) -> Answers:
    """The answers under each item's set of least entropy."""
    thirty = bench.matches(replace(candidate, reranker="mdl"), items)
    sets = {
        item: ordered_sets(match, candidate.count, np.random.default_rng([bench.seed, 14, item]))
        for item, match in zip(items, thirty, strict=True)
    }
    asked = [bench.ask(candidate, items, {item: sets[item][place] for item in items}) for place in range(_MDL_SETS)]
    logs = np.stack([answers.log_probabilities for answers in asked], axis=1)
    chosen = logs[np.arange(len(items)), least_entropy(logs)]
    return Answers(chosen, (), np.asarray(np.isfinite(chosen).any(axis=1)))


def knn_prompting(bench: Bench, tokens: int) -> Found:
    """The kNN prompting of Xu et al.: a static prompt, and as many labelled anchors as the tokens pay for.

    A distribution is kept over the 2,000 tokens that are likeliest at the first anchors, and all others together.
    The number of neighbours is the one that labels the anchors best by each other.
    """
    begun = bench.spent
    prompt = bench.random_shots(np.random.default_rng([bench.seed, 11]))
    rng = np.random.default_rng([bench.seed, 15])
    shown = set(prompt.demonstrations)
    others = [number for number in rng.permutation(bench.near.pool.ids).tolist() if number not in shown]
    words = _likeliest_tokens(bench, prompt, others[:_PROBING_ANCHORS])
    price = bench.price(prompt, bench.validation)
    anchors = others[: max(1, int((tokens - (bench.spent - begun)) // price.row))]
    kept = _distributions(bench, prompt, anchors, words)
    labels = bench.judge.golds(anchors)
    count, share = best_count(kept, labels, _NEIGHBOUR_COUNTS, len(bench.labels))
    spent = bench.spent - begun
    queries = _distributions(bench, prompt, bench.test, words)
    votes = anchor_votes(divergences(queries, kept), labels, count, len(bench.labels))
    scores = np.log(votes + 1e-3)
    details = {"anchors": len(anchors), "neighbours": count, "tokens_kept": len(words), "validation": share}
    return Found({"": bench.measure_labels(scores)}, spent, details)


def _likeliest_tokens(bench: Bench, prompt: Candidate, anchors: Sequence[int]) -> list[str]:
    """The texts of the tokens that are likeliest on average after some prompts."""
    texts = _single_tokens(bench.engine)
    groups = [texts[start : start + _TOKENS_KEPT] for start in range(0, len(texts), _TOKENS_KEPT)]
    means: list[float] = []
    for group in groups:
        means += np.exp(_scores(bench, prompt, anchors, group)).mean(axis=0).tolist()
    best = np.argsort(-np.asarray(means), kind="stable")[:_TOKENS_KEPT]
    return [texts[place] for place in sorted(best.tolist())]


def _single_tokens(engine: Any) -> list[str]:
    """Texts that are one token each after a prompt."""
    if not isinstance(engine, LlamaEngine):
        raise TypeError("kNN prompting reads the tokens of a GGUF model; run it with one")
    found: list[str] = []
    for token in range(engine.vocabulary.size):
        try:
            text = engine.vocabulary.piece(token).decode("utf-8")
        except UnicodeDecodeError:  # a part of a character
            continue
        if engine.vocabulary.tokenize_continuation(text) == (token,):
            found.append(text)
    return found


def _distributions(bench: Bench, prompt: Candidate, items: Sequence[int], words: Sequence[str]) -> FloatArray:
    """Log-probabilities of next tokens after each item's prompt, all others in the last column."""
    parts = [
        _scores(bench, prompt, items[start : start + _SCORED_AT_ONCE], words)
        for start in range(0, len(items), _SCORED_AT_ONCE)
    ]
    return with_rest(np.vstack(parts))


def _scores(bench: Bench, prompt: Candidate, items: Sequence[int], words: Sequence[str]) -> FloatArray:
    prompts = [
        bench.builder.render(prompt, prompt.demonstrations, bench.task.examples[item].fields) for item in items
    ]
    with bench.metered(prompt):
        return bench.engine.score(prompts, words)


def _rows_for(bench: Bench, candidates: Sequence[Candidate], tokens: int, times: int) -> int:
    """Rows on which all candidates can be tried, each asked so many times."""
    row = sum(times * bench.price(candidate, bench.validation).row for candidate in candidates)
    return max(1, min(len(bench.validation), int(tokens // row)))


def _calibrating(bench: Bench, candidate: Candidate) -> Answers:
    return bench.ask(candidate, bench.search[:CALIBRATION_ROWS])


BUDGETED: dict[str, Callable[[Bench, int], Found]] = {
    "topk-calibrated": topk_calibrated,
    "topk-mdl": topk_mdl,
    "best-of-10-random": lambda bench, tokens: best_of_random(bench, tokens, 10),
    "best-of-64-random": lambda bench, tokens: best_of_random(bench, tokens, 64),
    "knn-prompting": knn_prompting,
}
