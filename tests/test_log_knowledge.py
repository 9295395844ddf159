"""What the log says: fair comparison of candidates that saw different items."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from promptsearch.candidate import Candidate
from promptsearch.search.base import Scores
from promptsearch.search.log_knowledge import candidate_effects, conditional_accuracy, reliability, showing

logs = st.dictionaries(
    st.lists(st.integers(0, 9), unique=True, max_size=4).map(lambda shown: Candidate(demonstrations=tuple(shown))),
    st.lists(st.floats(0, 1), max_size=12).map(lambda values: Scores(np.array(values), np.array(values[::-1]))),
    max_size=8,
)


def raced(
    seed: int, arms: int = 120, pool: int = 60, harder_later: float = 0.0
) -> tuple[dict[Candidate, Scores], dict[Candidate, float], list[float]]:
    """A log of successive halving over sets whose examples each add something; true means; what each adds."""
    rng = np.random.default_rng(seed)
    items = 192
    worth = rng.normal(0, 0.03, pool)
    ease = rng.normal(0, 0.25, items) - harder_later * np.linspace(-1, 1, items)
    shown = [rng.choice(pool, 6, replace=False) for _ in range(arms)]
    chances = np.clip([0.6 + worth[each].sum() + ease for each in shown], 0.02, 0.98)
    values = (rng.random(chances.shape) < chances) * 1.0
    alive, seen = np.arange(arms), np.zeros(arms, dtype=int)
    for stop in (24, 48, 96, 192):
        seen[alive] = stop
        alive = alive[np.argsort(-values[alive, :stop].mean(axis=1))[: -(-len(alive) // 2)]]
    candidates = [Candidate(demonstrations=tuple(each.tolist())) for each in shown]
    scores = {
        each: Scores(values[place, : seen[place]], values[place, : seen[place]])
        for place, each in enumerate(candidates)
    }
    return scores, dict(zip(candidates, chances.mean(axis=1).tolist(), strict=True)), worth.tolist()


def slow_effects(scores: dict[Candidate, Scores]) -> dict[Candidate, float]:
    """The least squares problem of the docstring, one row for each score and each penalty."""
    arms = [arm for arm, seen in scores.items() if seen.items]
    most = max((scores[arm].items for arm in arms), default=0)
    rows, targets = [], []
    for place, arm in enumerate(arms):
        both = zip(scores[arm].values, scores[arm].confidence, strict=True)
        for item, value in enumerate((score + confidence) / 2 for score, confidence in both):
            row = np.zeros(len(arms) + most)
            row[place] = row[len(arms) + item] = 1.0
            rows.append(row)
            targets.append(value)
        penalty = np.zeros(len(arms) + most)
        penalty[place] = 32.0**0.5
        rows.append(penalty)
        targets.append(0.0)
    if not rows:
        return {}
    found = np.linalg.lstsq(np.array(rows), np.array(targets), rcond=None)[0]
    return dict(zip(arms, found[: len(arms)].tolist(), strict=True))


@given(logs)
def test_effects_are_their_slow_twin(scores: dict[Candidate, Scores]) -> None:
    effects = candidate_effects(scores)
    assert effects == pytest.approx(slow_effects(scores), abs=1e-8)
    assert sum(effects.values()) == pytest.approx(0, abs=1e-8)


@given(logs, st.lists(st.floats(-5, 5), min_size=12, max_size=12))
def test_what_all_find_easy_changes_nothing(scores: dict[Candidate, Scores], ease: list[float]) -> None:
    def moved(seen: Scores) -> Scores:
        return Scores(seen.values + np.array(ease[: seen.items]), seen.confidence - 2.0)

    shifted = {arm: moved(seen) for arm, seen in scores.items()}
    assert candidate_effects(shifted) == pytest.approx(candidate_effects(scores), abs=1e-8)


def test_a_single_candidate_is_average() -> None:
    assert candidate_effects({}) == {}
    assert list(candidate_effects({Candidate(): Scores(np.ones(5), np.ones(5))}).values()) == pytest.approx([0])
    assert candidate_effects({Candidate(): Scores(np.empty(0), np.empty(0))}) == {}


def test_long_looks_are_not_taken_for_bad_where_late_items_are_hard() -> None:
    """Survivors see the hard end; their plain means fall below those of candidates that left early."""
    effects, plain = [], []
    for seed in range(10):
        scores, truth, _ = raced(seed, harder_later=0.3)
        wanted = list(truth.values())
        effects.append(spearmanr(list(candidate_effects(scores).values()), wanted).statistic)
        plain.append(spearmanr([seen.values.mean() for seen in scores.values()], wanted).statistic)
    assert np.mean(effects) > np.mean(plain) + 0.2
    assert np.mean(effects) > 0.55


def slow_conditional_accuracy(scores: dict[Candidate, Scores], shrinkage: float) -> dict[int, float]:
    """By its words: effects of all that hold the example, and as many more of 0 as shrinkage says."""
    held = {arm: seen for arm, seen in scores.items() if arm.demonstrations and seen.items}
    effects = slow_effects(held)
    found = {}
    for number in {number for arm in held for number in arm.demonstrations}:
        mine = [arm for arm in held if number in arm.demonstrations]
        weight = sum(held[arm].items / (held[arm].items + 32) for arm in mine)
        found[number] = sum(effects[arm] for arm in mine) / (weight + shrinkage)
    return found


@given(logs, st.floats(0.1, 10))
def test_conditional_accuracy_is_its_slow_twin(scores: dict[Candidate, Scores], shrinkage: float) -> None:
    found = conditional_accuracy(scores, shrinkage)
    assert found == pytest.approx(slow_conditional_accuracy(scores, shrinkage), abs=1e-8)
    assert list(found) == sorted(found)


def test_conditional_accuracy_ranks_examples_by_worth() -> None:
    found = []
    for seed in range(10):
        scores, _, worth = raced(seed)
        known = conditional_accuracy(scores)
        found.append(spearmanr(list(known.values()), [worth[number] for number in known]).statistic)
    assert np.mean(found) > 0.6


def test_only_fixed_demonstrations_tell_of_examples() -> None:
    few = Scores(np.ones(4), np.ones(4))
    shown = Candidate(demonstrations=(1, 2))
    scores = {shown: few, Candidate(): few, Candidate(mode="retrieved", count=3): few}
    assert showing(scores) == {shown: few}
    assert set(conditional_accuracy(scores)) == {1, 2}


def test_reliability_grows_with_items() -> None:
    assert reliability(0) == 0
    assert reliability(32) == 0.5
    assert reliability(24) < reliability(200) < 1
