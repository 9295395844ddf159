"""The honesty benchmarks' arithmetic, and their way through a model that is over in an instant."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import WatchedLM, WordEncoder, golds_of, numbered_rows, numbered_task
from hypothesis import given
from hypothesis import strategies as st

import promptsearch as ps
from benchmarks import null, optimism, reported
from benchmarks.common import Dataset, mean_with_half_width
from benchmarks.outside import (
    best_search_value,
    calibrated,
    item_scores,
    race_score,
    search_rows,
    test_rows,
    uncalibrated,
    winning_trial,
)
from promptsearch.lm.resolve import open_engine
from promptsearch.run import workbench
from promptsearch.select.registry import selector

test_rows.__test__ = False  # type: ignore[attr-defined]
LABELS = ("bad", "good", "odd")


def by_shots(prompt: str) -> float:
    return min(0.95, 0.6 + 0.04 * prompt.count("#"))


def dataset(name: str = "made-up", seed: int = 0, count: int = 240) -> Dataset:
    words = ("calm", "odd", "stone", "river", "paper", "light")  # letters alone, as names are
    numbered = enumerate(numbered_rows(count, seed=seed))
    rows = [{"input": f"{words[n % 6]} {row['text']}", "output": row["label"]} for n, row in numbered]
    third = count // 4
    return Dataset(name, rows[: 2 * third], rows[2 * third : 3 * third], rows[3 * third :], ["bad", "good"])


# -- worlds -----------------------------------------------------------------------------------------------------


@given(st.integers(1, 60), st.integers(0, 9))
def test_labels_by_lot_are_even(count: int, seed: int) -> None:
    drawn = null.labels_by_lot(count, LABELS, np.random.default_rng(seed))
    counts = Counter(drawn)
    assert len(drawn) == count
    assert max(counts.values()) - min(counts[label] for label in LABELS) <= 1
    assert drawn == null.labels_by_lot(count, LABELS, np.random.default_rng(seed))


def test_no_constant_answer_gains_where_labels_are_by_lot() -> None:
    task = null.shuffled_task(dataset(), dataset("other"), 0, {"train": 100, "test": 50})
    for part in (task.parts.train, task.parts.validation, task.parts.test):
        counts = Counter(task.examples[number].output for number in part)
        assert set(counts) == {"bad", "good"}
        assert counts["bad"] == counts["good"]
    truth = {row["input"]: row["output"] for part in ("train", "dev", "test") for row in getattr(dataset(), part)}
    kept = [truth[example.text] == example.output for example in task.examples]
    assert 0.3 < np.mean(kept) < 0.7  # nothing connects texts and labels
    again = null.shuffled_task(dataset(), dataset("other"), 0, {"train": 100, "test": 50})
    assert again.fingerprint == task.fingerprint
    assert (
        null.shuffled_task(dataset(), dataset("other"), 1, {"train": 100, "test": 50}).fingerprint != task.fingerprint
    )


def test_foreign_texts_are_shown_and_own_ones_asked() -> None:
    ours, other = (
        dataset(),
        Dataset("other", [{"input": f"far {n}", "output": "x"} for n in range(80)], [], [], ["x"]),
    )
    task = null.foreign_task(ours, other, 0, {"train": 60, "test": 40})
    assert all(task.examples[number].text.startswith("far") for number in task.parts.train)
    assert Counter(task.examples[number].output for number in task.parts.train) == {"bad": 30, "good": 30}
    truth = {row["input"]: row["output"] for row in (*ours.dev, *ours.test)}
    asked = [task.examples[number] for number in (*task.parts.validation, *task.parts.test)]
    assert all(truth[example.text] == example.output for example in asked)


def test_random_names_are_pairs_of_the_texts_words() -> None:
    texts = ["A blue whale sings", "the whale, 12 of them, naps"]
    names = null.random_names(texts, 20, np.random.default_rng(0))
    words = {word.lower() for pair in names for word in pair}
    assert words <= {"blue", "whale", "sings", "the", "them", "naps"}
    assert all(left != right and left.istitle() and right.istitle() for left, right in names)
    assert names == null.random_names(texts, 20, np.random.default_rng(0))


def test_only_what_an_experiment_is_about_varies() -> None:
    task = null.real_task(dataset(), dataset(), 0, {"train": 100, "test": 50})
    for name, varied in (
        ("demonstrations", {"demonstrations"}),
        ("separators", {"template", "input_name", "output_name"}),
    ):
        space = null.EXPERIMENTS[name].space(task, 0)
        lm = WatchedLM({}, reliability=0.7)
        result = ps.optimize(task, lm, "900 evaluations", encoder=WordEncoder(), space=space, progress=False)
        tried = [trial.candidate.to_dict() for trial in result.trials]
        differing = {key for key in tried[0] if len({str(each[key]) for each in tried}) > 1} - {"calibration"}
        assert differing == varied
        assert result.test == result.test_without_prior


# -- measuring again --------------------------------------------------------------------------------------------


def searched(**options: Any) -> tuple[ps.Task, WatchedLM, ps.Result]:
    task = numbered_task()
    lm = WatchedLM(golds_of(task), reliability=by_shots)
    given_: dict[str, Any] = {"encoder": WordEncoder(), "progress": False, **options}
    return task, lm, ps.optimize(task, lm, "1500 evaluations", **given_)


@pytest.mark.parametrize("mode", ["static", "retrieved", "routed"])
def test_rows_are_laid_out_as_the_search_had_them(mode: str) -> None:
    space = ps.Space(modes=(mode,), prior=False, calibrations=("batch", "fitted", "none"))
    task, lm, result = searched(space=space)
    rows = search_rows(task, result, WordEncoder(), 0)
    splits = task.split(0)
    assert {example.id for example in rows.raced} <= set(splits.search)
    assert {example.id for example in rows.fitted} - {example.id for example in rows.raced} <= set(splits.confirm)
    assert {example.id for example in test_rows(task, rows.near.splits)} == set(splits.test)
    opened = open_engine(lm)
    again = calibrated(
        result.prompt, opened, result.prompt.candidate, result.prompt.candidate.calibration, rows.fitted
    )
    assert again.weighing is not None
    assert result.prompt.weighing is not None
    assert again.weighing.offsets == pytest.approx(result.prompt.weighing.offsets, abs=1e-4)
    assert again.weighing.sharpness == pytest.approx(result.prompt.weighing.sharpness, rel=1e-3)
    again = race_score(result.prompt, opened, result.prompt.candidate, "batch", rows.raced)
    assert again == pytest.approx(rows.trial.value)
    with pytest.raises(RuntimeError, match="rows"):
        search_rows(numbered_task(200), result, WordEncoder(), 0)


def test_item_scores_are_what_evaluate_measures() -> None:
    task, lm, result = searched()
    rows = [task.examples[number] for number in task.split(0).test]
    assert item_scores(result.prompt, rows).mean() == pytest.approx(result.prompt.evaluate(rows).value)
    zero = uncalibrated(result.prompt, open_engine(lm), ps.Prompt(task, (), lm).candidate)
    measured = rows[: result.test.n]
    assert item_scores(zero, measured).mean() == pytest.approx(result.baselines["zero_shot"].value)


def test_the_winning_trial_is_the_prompts_own() -> None:
    _, _, result = searched()
    trial = winning_trial(result)
    assert trial.candidate.reading == result.prompt.candidate.reading
    assert best_search_value(result) >= trial.value or trial.items < max(each.items for each in result.trials)


def test_the_average_is_over_what_the_search_draws_before_it_knows_anything() -> None:
    for experiment in null.EXPERIMENTS.values():
        assert not experiment.sampled or experiment.space(
            null.real_task(dataset(), dataset(), 0, {"train": 100, "test": 50}), 0
        ).modes == ("static",)
    space = ps.Space(modes=("static",), shots=(2,), templates=("fields",), names=(), instructions=False)
    task, _, result = searched()
    opened, encoder = open_engine(WatchedLM({}, reliability=0.7)), WordEncoder()
    rows = search_rows(task, result, encoder, 0)
    chosen = []
    with pytest.MonkeyPatch.context() as patch:

        def watched(name: str, *given: Any) -> Any:
            chosen.append(name)
            return selector(name, *given)

        patch.setattr(workbench, "selector", watched)
        drawn = null._sampled(task, space, opened, rows, 40, 0)
    assert {(each.mode, each.shots, each.calibration) for each in drawn} == {("static", 2, "batch")}
    assert 2 <= len(chosen) <= 25  # a quarter of the sets
    assert {number for each in drawn for number in each.demonstrations} <= set(rows.near.splits.pool)


@pytest.mark.parametrize("kind", sorted(null.EXPERIMENTS))
def test_a_null_cell_is_whole(kind: str) -> None:
    experiment = null.EXPERIMENTS[kind]
    task = experiment.task(dataset(), dataset("other", 1), 0, {"train": 120, "test": 60})
    opened = open_engine(WatchedLM({}, reliability=0.7))
    sample = 3 if experiment.sampled else 0
    cell = null.measure_null(
        task, experiment.space(task, 0), opened, WordEncoder(), 0, budget="900 evaluations", sample=sample
    )
    assert not experiment.sampled or cell["winner"]["mode"] == "static"
    wanted = {"zero_shot", "zero_shot_alike"} | ({"average"} if sample else {"label_vote"})
    assert set(cell["against"]) == wanted
    for name in wanted & {"zero_shot_alike", "average"}:
        each = cell["against"][name]
        assert each["optimism"] == pytest.approx(each["search_gain"] - each["value"])
        assert each["low"] <= each["value"] <= each["high"]
    assert cell["against"]["zero_shot"]["n"] == 60
    assert kind in null.table({f"{kind}|made-up|0": cell})


# -- over seeds -------------------------------------------------------------------------------------------------


def null_cell(value: float, optimism_: float) -> dict[str, Any]:
    difference = {"value": value, "low": value - 0.05, "high": value + 0.05}
    return {
        "against": {"zero_shot_alike": {**difference, "search_gain": value + optimism_, "optimism": optimism_}},
        "reported": {"improvement": difference, "label_vote": difference},
        "test": {"value": 0.5 + value, "low": 0.45 + value, "high": 0.55 + value},
        "chance": 0.5,
        "search": {"winner": 0.6},
    }


def test_a_summary_counts_intervals_that_hold_zero() -> None:
    cells = {f"labels|a|{seed}": null_cell(value, 0.1) for seed, value in enumerate((-0.06, 0.0, 0.04, 0.06))}
    found = null.summary(cells)["labels", "a", "zero_shot_alike"]
    assert (found["seeds"], found["hold_zero"], found["above"], found["below"]) == (4, 2, 1, 1)
    assert found["gain"]["mean"] == pytest.approx(0.01)
    assert found["search_gain"]["mean"] == pytest.approx(0.11)
    chance = null.summary(cells)["labels", "a", "chance"]
    assert chance["hold_zero"] == 2
    assert chance["optimism"]["mean"] == pytest.approx(0.6 - 0.51)
    assert ("separators", "a", "chance") not in null.summary({"separators|a|0": null_cell(0, 0)})


def test_means_over_seeds_have_students_width() -> None:
    found = mean_with_half_width([1.0, 2.0, 3.0, 6.0])
    assert found["mean"] == 3.0
    assert found["half"] == pytest.approx(3.182446 * 2.160247 / 2)  # t of 3 degrees of freedom
    assert np.isnan(mean_with_half_width([1.0])["half"])


# -- optimism ---------------------------------------------------------------------------------------------------


def optimism_cell(reported: float, full: float, part: int = 50, whole: int = 200) -> dict[str, Any]:
    return {
        "full": {"value": full, "n": whole},
        "test": {"value": reported, "n": part, "low": reported - 0.1, "high": reported + 0.1},
        "validation": {"value": full + 0.02},
        "best_search": full + 0.05,
        "winner_search": full + 0.04,
        "tokens": 1,
    }


def test_a_part_of_the_rows_errs_as_a_finite_population() -> None:
    """The formula against drawing."""
    cell = optimism_cell(0.7, 0.7)
    rng = np.random.default_rng(0)
    rows = np.array([1.0] * 140 + [0.0] * 60)
    drawn = [rng.permutation(rows)[:50].mean() for _ in range(4000)]
    assert reported.sampling_error(cell) == pytest.approx(np.std(drawn), rel=0.05)
    held = np.mean([abs(value - 0.7) <= 1.96 * np.sqrt(0.7 * 0.3 / 50) for value in drawn])
    assert reported.expected_coverage(cell) == pytest.approx(held, abs=0.015)
    assert reported.expected_coverage(optimism_cell(0.7, 0.7, 200, 200)) == 1.0
    assert reported.sampling_error(optimism_cell(0.7, 0.7, 200, 200)) == 0.0


def test_rows_not_read_are_the_rest() -> None:
    assert reported.rest_value(optimism_cell(0.8, 0.7)) == pytest.approx((140 - 40) / 150)
    assert reported.rest_value(optimism_cell(0.7, 0.7, 200, 200)) is None


def test_optimism_is_signed_and_absolute() -> None:
    cells = [optimism_cell(0.75, 0.7), optimism_cell(0.65, 0.7), optimism_cell(0.85, 0.7)]
    found = optimism.summary(cells)
    assert found["reported"]["signed"]["mean"] == pytest.approx(0.05)
    assert found["reported"]["absolute"]["mean"] == pytest.approx(0.25 / 3)
    assert found["best of the race"]["signed"]["mean"] == pytest.approx(0.05)
    assert found["covered"]["held"] == 2
    assert "2 of 3" in optimism.table({f"a|{seed}": cell for seed, cell in enumerate(cells)})


def test_an_optimism_cell_is_whole(tmp_path: Path) -> None:
    task = numbered_task()
    opened = open_engine(WatchedLM(golds_of(task), reliability=by_shots))
    cell = optimism.measure_optimism(task, opened, WordEncoder(), 0, "900 evaluations")
    assert cell["full"]["n"] == len(task.split(0).test) >= cell["test"]["n"]
    assert optimism.table({"a|0": cell, "b|0": cell}).count("searches") == 3
