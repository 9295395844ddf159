"""The ridge datamodel: against scikit-learn, on data whose truth is known, and on data that hold nothing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge

from promptsearch.candidate import Candidate
from promptsearch.lm.base import FloatArray
from promptsearch.search.base import Scores
from promptsearch.search.datamodel import _PENALTIES, _Features, _log_evidence, _ridge, fit_datamodel
from promptsearch.search.log_knowledge import candidate_effects, reliability

POOL = 40
LABELS = {number: number % 2 for number in range(POOL)}


def draw(rng: np.random.Generator, count: int, shots: int = 5) -> list[Candidate]:
    return [Candidate(demonstrations=tuple(rng.choice(POOL, shots, replace=False).tolist())) for _ in range(count)]


def scored(candidates: list[Candidate], truth: FloatArray, rng: np.random.Generator) -> dict[Candidate, Scores]:
    """Coin tosses of true means; half of the candidates saw 24 items, half 96."""
    tosses = (rng.random((len(candidates), 96)) < np.clip(0.6 + truth, 0.02, 0.98)[:, None]) * 1.0
    lengths = [24 if place % 2 else 96 for place in range(len(candidates))]
    return {
        each: Scores(row[:length], row[:length])
        for each, row, length in zip(candidates, tosses, lengths, strict=True)
    }


def by_worth(candidates: list[Candidate], worth: FloatArray) -> FloatArray:
    return np.array([worth[list(each.demonstrations)].sum() for each in candidates])


@pytest.mark.parametrize("seed", range(3))
def test_the_closed_form_is_refitting_without_each(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, effects, trust = rng.normal(size=(25, 40)), rng.normal(size=25), rng.uniform(0.3, 0.9, 25)
    weights, left_out, penalty = _ridge(rows, effects, trust)
    model = Ridge(alpha=penalty, fit_intercept=False).fit(rows, effects, sample_weight=trust)
    np.testing.assert_allclose(weights, model.coef_, atol=1e-8)
    for place in range(25):
        others = np.arange(25) != place
        model = Ridge(alpha=penalty, fit_intercept=False)
        model.fit(rows[others], effects[others], sample_weight=trust[others])
        assert left_out[place] == pytest.approx(float(model.predict(rows[[place]])[0]), abs=1e-8)


def test_the_penalty_makes_the_effects_likeliest() -> None:
    """Against the density of the normal distribution that the penalty implies, at its likeliest noise."""
    rng = np.random.default_rng(0)
    rows, targets = rng.normal(size=(12, 20)), rng.normal(size=12)
    spectrum, vectors = np.linalg.eigh(rows @ rows.T)

    def slow(penalty: float) -> float:
        shape = rows @ rows.T / penalty + np.eye(12)
        noise = targets @ np.linalg.solve(shape, targets) / 12
        return float(-0.5 * (np.linalg.slogdet(noise * shape)[1] + targets @ np.linalg.solve(noise * shape, targets)))

    for penalty in _PENALTIES:
        assert _log_evidence(spectrum, vectors.T @ targets, penalty) == pytest.approx(slow(penalty) + 6)


def test_it_predicts_sets_that_were_never_scored() -> None:
    told, found = [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        worth = rng.normal(0, 0.04, POOL)
        candidates = draw(rng, 150)
        model = fit_datamodel(scored(candidates, by_worth(candidates, worth), rng), LABELS)
        assert model is not None
        assert model.candidates == 150
        told.append(model.rank_correlation)
        fresh = draw(rng, 150)
        found.append(spearmanr(model.predict(fresh), by_worth(fresh, worth)).statistic)
    assert np.mean(found) > 0.7
    assert 0.3 < np.mean(told) < np.mean(found)  # measured effects are noisier than true ones


def test_it_does_not_trust_itself_where_there_is_nothing_to_know() -> None:
    told = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        candidates = draw(rng, 50, 3) + draw(rng, 50, 6)
        truth = np.repeat([0.0, 0.1], 50) + rng.normal(0, 0.08, 100)
        model = fit_datamodel(scored(candidates, truth, rng), LABELS)
        assert model is not None
        told.append(model.rank_correlation)
    assert abs(np.mean(told)) < 0.08
    assert sum(each >= 0.3 for each in told) <= 4


def test_position_labels_and_wording_count() -> None:
    """The label of the last demonstration and the template decide; examples do not."""
    rng = np.random.default_rng(0)
    drawn = [
        Candidate(template=f"t{number % 3}", demonstrations=each.demonstrations)
        for number, each in enumerate(draw(rng, 120))
    ]
    truth = np.array([0.12 * LABELS[each.demonstrations[-1]] + 0.1 * (each.template == "t2") for each in drawn])
    model = fit_datamodel(scored(drawn, truth, rng), LABELS)
    assert model is not None
    assert model.is_trusted
    base = (2, 4, 1, 3)  # the last one's label is 1
    good, bad = Candidate(template="t2", demonstrations=base), Candidate(template="t2", demonstrations=base[::-1])
    worse = Candidate(template="t1", demonstrations=base[::-1])
    predicted = model.predict([good, bad, worse])
    assert predicted[0] > predicted[1] + 0.03
    assert predicted[1] > predicted[2] + 0.03


def test_features_by_hand() -> None:
    candidate = Candidate("Say.", "t1", demonstrations=(4, 7, 5))
    features = _Features.of([candidate], LABELS)
    row = dict(zip(features.columns, features.rows([candidate])[0].tolist(), strict=True))
    assert row == {
        ("shots",): 2.0,
        **{("shown", number): 1.0 for number in (4, 7, 5)},
        ("near", 5): 1.0,
        ("near", 7): 0.5,
        ("near", 4): 0.25,
        ("label", 0): pytest.approx(1.0),
        ("label", 1): pytest.approx(2.0),
        ("last label", 0, 1): 2.0,
        ("last label", 1, 1): 2.0,
        ("wording", 0, "Say."): 3.0,
        ("wording", 1, "t1"): 3.0,
        ("wording", 2, ("", "")): 3.0,
    }
    assert features.rows([Candidate(demonstrations=(9,))])[0].sum() == pytest.approx(1.0 + 3.0 + 2.0 + 3.0)


def test_predictions_are_of_differences_from_the_average() -> None:
    rng = np.random.default_rng(1)
    candidates = draw(rng, 80)
    scores = scored(candidates, by_worth(candidates, rng.normal(0, 0.04, POOL)), rng)
    model = fit_datamodel(scores, LABELS)
    assert model is not None
    trust = np.array([reliability(scores[each].items) for each in candidates])
    assert trust @ model.predict(candidates) == pytest.approx(0, abs=1e-9)
    effects = np.array(list(candidate_effects(scores).values())) / trust
    assert np.abs(model.predict(candidates)).max() < np.abs(effects).max()


def test_what_it_knows_nothing_of() -> None:
    rng = np.random.default_rng(0)
    candidates = draw(rng, 20)
    model = fit_datamodel(scored(candidates, np.zeros(20), rng), LABELS, 0.1)
    assert model is not None
    assert model.rank_correlation is None  # fewer than 30
    assert not model.is_trusted
    predicted = model.predict([Candidate(), Candidate(mode="retrieved", count=2), candidates[0]])
    assert np.isnan(predicted).tolist() == [True, True, False]


def test_too_few_candidates_make_no_model() -> None:
    rng = np.random.default_rng(0)
    candidates = draw(rng, 30)
    scores = scored(candidates, np.zeros(30), rng)
    assert fit_datamodel(scores, LABELS, 2.0) is None
    assert fit_datamodel(scores, LABELS) is not None
    assert fit_datamodel({}, LABELS) is None
    assert fit_datamodel({Candidate(): Scores(np.ones(9), np.ones(9))}, LABELS) is None


def test_candidates_that_are_all_alike_in_score() -> None:
    candidates = draw(np.random.default_rng(0), 40)
    model = fit_datamodel({each: Scores(np.ones(24), np.ones(24)) for each in candidates}, LABELS)
    assert model is not None
    assert model.rank_correlation is None
    assert model.predict(candidates) == pytest.approx(np.zeros(40))
