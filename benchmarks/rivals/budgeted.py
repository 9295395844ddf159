"""Recipes that spend model tokens on a choice, as many as ours spent in all or may spend.

Invariant: what a recipe spends on its choice stays within the tokens given, but for what prices round; where it
chose on few rows, its winner is calibrated on 64 unlabelled ones beyond that. The rows that choices are made on are
ours' search and confirmation rows; those whose next tokens are read are pool rows first and then these. Answering the
test rows is not in it.
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
from promptsearch.lm.base import FloatArray, TellsNext
from promptsearch.measurement import Measurement
from promptsearch.readout import READ_TOKENS, fit_readout, likeliest_tokens

__all__ = ["BUDGETED", "Found", "best_of_random", "knn_prompting", "readout_of", "topk_calibrated", "topk_mdl"]

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
    Anchors are pool rows and, where the tokens pay for more, the rows that other recipes choose on.
    The number of neighbours is the one that labels the anchors best by each other.
    """
    asked = _Anchored(bench, bench.random_shots(np.random.default_rng([bench.seed, 11])), tokens, _TOKENS_KEPT)
    kept = with_rest(asked.following)
    count, share = best_count(kept, asked.golds, _NEIGHBOUR_COUNTS, len(bench.labels))
    spent = asked.spent
    queries = with_rest(asked.ask(bench.test)[1])
    votes = anchor_votes(divergences(queries, kept), asked.golds, count, len(bench.labels))
    scores = np.log(votes + 1e-3)
    details = {"anchors": len(kept), "neighbours": count, "tokens_kept": len(asked.tokens), "validation": share}
    return Found({"": bench.measure_labels(scores)}, spent, details)


def readout_of(bench: Bench, tokens: int, prompt: Candidate) -> Found:
    """A prompt that nothing was chosen about, its labels told by a readout (:mod:`promptsearch.readout`).

    It is fitted on as many labelled rows as the tokens pay for, so that what a search finds has to be worth more than
    reading more rows.
    """
    asked = _Anchored(bench, prompt, tokens, READ_TOKENS)
    fitted = fit_readout(asked.tokens, asked.scores, asked.following, asked.golds)
    if fitted is None:
        raise ValueError("the tokens pay for too few rows to fit a readout on")
    spent = asked.spent
    share = float((fitted.held_out.argmax(axis=1) == asked.golds).mean())
    scores = fitted.readout.log_probabilities(*asked.ask(bench.test))
    details = {"rows": len(asked.golds), "validation": share}
    return Found({"": bench.measure_labels(scores)}, spent, details)


class _Anchored:
    """A static prompt asked about as many labelled rows as the tokens pay for: first those of the pool, then others.

    Attributes:
        tokens: next tokens whose log-probabilities are kept: the likeliest at the first rows.
        golds: index of each row's right label, shape (rows,).
        scores: log-probabilities of the labels, shape (rows, labels).
        following: those of the next tokens, shape (rows, tokens).
        spent: tokens that this took.
    """

    def __init__(self, bench: Bench, prompt: Candidate, tokens: int, kept: int) -> None:
        if not isinstance(bench.engine, TellsNext):
            raise TypeError("this recipe reads all that a model expects next; run it with a GGUF model")
        self._bench, self._engine, self._prompt = bench, bench.engine, prompt
        begun = bench.spent
        rng = np.random.default_rng([bench.seed, 15])
        shown = set(prompt.demonstrations)
        rows = [number for number in rng.permutation(bench.near.pool.ids).tolist() if number not in shown]
        rows += bench.validation
        with bench.metered(prompt):
            likely = self._engine.likely_next(self._prompts(rows[:_PROBING_ANCHORS]), kept)
        self.tokens = likeliest_tokens(likely, kept)
        price = bench.price(prompt, bench.validation)
        rows = rows[: max(1, int((tokens - (bench.spent - begun)) // price.row))]
        self.golds = bench.judge.golds(rows)
        self.scores, self.following = self.ask(rows)
        self.spent = bench.spent - begun

    def ask(self, rows: Sequence[int]) -> tuple[FloatArray, FloatArray]:
        """Log-probabilities of labels and of next tokens after each row's prompt."""
        labels = self._bench.builder.continuations(self._prompt, self._bench.labels)
        parts = []
        for start in range(0, len(rows), _SCORED_AT_ONCE):
            prompts = self._prompts(rows[start : start + _SCORED_AT_ONCE])
            with self._bench.metered(self._prompt):
                parts.append(self._engine.score_and_next(prompts, labels, self.tokens))
        scores, following = zip(*parts, strict=True)
        return np.vstack(scores), np.vstack(following)

    def _prompts(self, rows: Sequence[int]) -> list[str]:
        builder, prompt, examples = self._bench.builder, self._prompt, self._bench.task.examples
        return [builder.render(prompt, prompt.demonstrations, examples[row].fields) for row in rows]


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
    "readout-zero-shot": lambda bench, tokens: readout_of(bench, tokens, bench.zero),
    "readout-random": lambda bench, tokens: readout_of(
        bench, tokens, bench.random_shots(np.random.default_rng([bench.seed, 11]))
    ),
}
