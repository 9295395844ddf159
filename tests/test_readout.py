"""Readouts: fits against what made the data, one row against many, and what a search does with them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import TellingLM, WatchedLM, WordEncoder, golds_of, last_number, numbered_task
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

import promptsearch as ps
from promptsearch.calibration import Weighing
from promptsearch.candidate import Candidate
from promptsearch.evaluation import Asker
from promptsearch.events import Event, Progress
from promptsearch.lm.base import FloatArray
from promptsearch.lm.llamacpp.engine import LlamaEngine
from promptsearch.lm.resolve import OpenedModel
from promptsearch.metrics import METRICS
from promptsearch.parts import PromptParts
from promptsearch.probabilities import normalized
from promptsearch.prompting import PromptBuilder
from promptsearch.readout import Readout, ReadoutFit, fit_readout, likeliest_tokens, packed, unpacked
from promptsearch.run.finalists import Fitter
from promptsearch.scoring import Judge

TOKENS = (2, 3, 5, 7, 11, 13, 17, 19)


def synthetic(
    count: int, labels: int = 3, *, clarity: float = 2.0, seed: int = 0
) -> tuple[FloatArray, FloatArray, NDArray[np.int64]]:
    """Labels' own log-probabilities, which know nothing, those of next tokens, which do, and the right labels."""
    rng = np.random.default_rng(seed)
    golds = rng.integers(labels, size=count)
    own = normalized(rng.normal(0, 1, (count, labels)))
    following = rng.normal(-6, 1, (count, len(TOKENS)))
    following[np.arange(count), golds] += clarity
    return own, following, golds


def fitted(count: int = 200, **options: Any) -> tuple[ReadoutFit, FloatArray, FloatArray, NDArray[np.int64]]:
    own, following, golds = synthetic(count, **options)
    fit = fit_readout(TOKENS, own, following, golds)
    assert fit is not None
    return fit, own, following, golds


def right(logs: FloatArray, golds: NDArray[np.int64]) -> float:
    return float((logs.argmax(axis=1) == golds).mean())


# -- fitting ----------------------------------------------------------------------------------------------------


def test_it_reads_what_the_labels_words_do_not_say() -> None:
    fit, own, _, golds = fitted(clarity=4.0)
    assert right(own, golds) < 0.5
    assert right(fit.held_out, golds) > 0.9
    fresh_own, fresh, fresh_golds = synthetic(300, clarity=4.0, seed=1)
    assert right(fit.readout.log_probabilities(fresh_own, fresh), fresh_golds) > 0.9


def test_what_judges_it_is_of_rows_that_it_has_not_seen() -> None:
    """With labels that nothing tells, a fit on the rows themselves looks good and a held-out one does not."""
    shares = []
    for seed in range(5):
        fit, own, following, golds = fitted(60, clarity=0.0, seed=seed)
        shares.append((right(fit.readout.log_probabilities(own, following), golds), right(fit.held_out, golds)))
    seen, held_out = np.mean(shares, axis=0)
    assert seen > 0.5
    assert held_out < 0.42  # one in three, and the noise of 300 rows


def test_rows_without_an_answer_are_left_out_and_stay_unread() -> None:
    own, following, golds = synthetic(120, clarity=4.0)
    fit = fit_readout(TOKENS, own, following, golds)
    gaps = np.array([3, 50, 119])
    holed_own, holed = np.insert(own, gaps, -np.inf, axis=0), np.insert(following, gaps, 0.0, axis=0)
    again = fit_readout(TOKENS, holed_own, holed, np.insert(golds, gaps, 0))
    assert fit is not None
    assert again is not None
    lost = ~np.isfinite(holed_own).any(axis=1)
    assert np.isneginf(again.held_out[lost]).all()
    np.testing.assert_allclose(again.held_out[~lost], fit.held_out, atol=1e-5)
    assert again.readout.classifier.rows == 120


def test_too_few_rows_give_none() -> None:
    own, following, golds = synthetic(3, labels=2)
    assert fit_readout(TOKENS, own, following, np.zeros(3, dtype=np.int64)) is None
    assert fit_readout(TOKENS, np.full((3, 2), -np.inf), following, golds) is None


FITTED, *_ = fitted(60)


@given(st.integers(1, 9), st.integers(0, 5))
def test_a_row_is_read_alone_as_among_others(count: int, seed: int) -> None:
    fit = FITTED
    own, following, _ = synthetic(count, seed=seed)
    together = fit.readout.log_probabilities(own, following)
    alone = [fit.readout.log_probabilities(own[[row]], following[[row]])[0] for row in range(count)]
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_allclose(np.exp(together).sum(axis=1), 1.0)


# -- as plain values --------------------------------------------------------------------------------------------


def test_it_survives_as_plain_values() -> None:
    fit, own, following, _ = fitted()
    again = Readout.from_dict(json.loads(json.dumps(fit.readout.to_dict())), 3)
    np.testing.assert_array_equal(
        again.log_probabilities(own, following), fit.readout.log_probabilities(own, following)
    )


@pytest.mark.parametrize(
    "change",
    [
        {"tokens": [1, 2]},
        {"tokens": [-1, *TOKENS[1:]]},
        {"tokens": [*TOKENS[:-1], 2**70]},
        {"tokens": [*TOKENS[:-1], 18.0]},
        {"tokens": [*TOKENS[:-1], TOKENS[0]]},
        {"means": "AAAA"},
        {"means": "no base64!"},
        {"scale": 0.0},
        {"scale": float("nan")},
        {"classifier": {}},
    ],
)
def test_values_that_no_fit_could_have_found(change: dict[str, Any]) -> None:
    values = {**fitted(60)[0].readout.to_dict(), **change}
    with pytest.raises((KeyError, TypeError, ValueError)):
        Readout.from_dict(values, 3)


@given(arrays.arrays(np.float64, st.integers(0, 40), elements=st.floats(-60, 0) | st.just(-np.inf)))
def test_packing_keeps_a_hundredth_of_a_nat(logs: FloatArray) -> None:
    text = packed(logs)
    kept = unpacked(text, len(logs))
    np.testing.assert_allclose(kept, np.maximum(logs, -30.0), atol=0.01)
    assert packed(kept) == text  # once more changes nothing
    with pytest.raises(ValueError, match="were packed"):
        unpacked(text, len(logs) + 1)


def test_the_likeliest_tokens_are_those_of_all_prompts() -> None:
    likely = [[(4, -0.1), (9, -3.0)], [(9, -0.2), (1, -2.0)], []]
    assert likeliest_tokens(likely, 2) == (4, 9)
    assert likeliest_tokens(likely, 9) == (1, 4, 9)
    assert likeliest_tokens([], 3) == ()


# -- in a search ------------------------------------------------------------------------------------------------


def search(lm: Any, task: ps.Task, **options: Any) -> ps.Result:
    given: dict[str, Any] = {"encoder": WordEncoder(), "progress": False, **options}
    return ps.optimize(task, lm, "1500 evaluations", **given)


def test_a_search_finds_that_reading_helps_and_says_what_it_gains() -> None:
    task = numbered_task(400)
    heard: list[Event] = []
    lm = TellingLM(golds_of(task), reliability=0.6)
    result = search(lm, task, space=ps.Space(modes=("static",)), progress=heard.append)
    assert result.test_without_prior.value > 0.85
    by_words = result.baselines["without_readout_alone"]
    assert by_words.value < result.test_without_prior.value - 0.1
    gain = result.against_without_prior["without_readout_alone"]
    assert gain.value == pytest.approx(result.test_without_prior.value - by_words.value)
    assert result.prompt.weighing is not None
    assert result.prompt.weighing.readout is not None
    assert "the same by labels' own words" in str(result)
    assert "next tokens, fitted on" in " ".join(str(result).split())
    assert "read" in {event.phase for event in heard if isinstance(event, Progress)}
    assert result.cost.evaluations <= 1500
    splits = task.split(0)
    rows = [task.examples[number] for number in splits.test][: result.test.n]
    assert result.prompt.evaluate(rows) == result.test
    assert result.prompt.evaluate_twice(rows)[1] == result.test_without_prior


def test_words_go_without_the_prior_where_the_readout_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt deploys with its prior or without it, and so does what is measured beside it."""
    golds = np.arange(40) % 2
    fit = fit_readout((1, 2), np.zeros((40, 2)), np.eye(2)[golds], golds)
    assert fit is not None
    read = Weighing("readout", (0.0, 0.0), readout=fit.readout)
    words, words_alone = Weighing("batch", (0.0, 0.0), prior_weight=0.5), Weighing("batch", (0.0, 0.0))
    judge = Judge((), ("bad", "good"), METRICS["accuracy"], {})
    fitter = Fitter(None, judge, ("readout",))  # type: ignore[arg-type]
    monkeypatch.setattr(fitter, "usable_calibrations", lambda *_: ("readout",))
    fits = {fitter.judge: (read, words), fitter.alone: (read, words_alone)}
    monkeypatch.setattr(fitter, "_best_fits", lambda asked, *_: fits[asked])
    found = fitter.fit(Candidate(), range(40))
    assert (found.weighing, found.words, found.words_alone) == (read, words_alone, words_alone)
    fits[fitter.judge] = (replace(read, prior_weight=0.5), words)
    found = fitter.fit(Candidate(), range(40))
    assert (found.words, found.words_alone) == (words, words_alone)


def test_it_can_be_left_out() -> None:
    task = numbered_task(400)
    space = ps.Space(calibrations=("batch", "fitted"))
    result = search(TellingLM(golds_of(task), reliability=0.6), task, space=space)
    assert "without_readout" not in result.baselines
    assert result.prompt.parts.read_tokens == ()
    assert "read" not in result.cost.seconds


def test_it_is_not_taken_where_it_tells_nothing() -> None:
    task = numbered_task(400)
    result = search(TellingLM(golds_of(task), clarity=0.0, reliability=0.95), task)
    assert result.test_without_prior.value > 0.85


def test_demonstrations_found_for_each_query_are_read_too_and_routes_are_not() -> None:
    task = numbered_task(400)
    for mode, reads in (("retrieved", True), ("routed", False)):
        space = ps.Space(modes=(mode,), clusters=(2, 4), shots=(1, 2))
        result = search(TellingLM(golds_of(task), reliability=0.55), task, space=space)
        assert result.prompt.mode == mode
        assert ("without_readout" in result.baselines) == reads
        assert (result.test_without_prior.value > 0.8) == reads


def test_rows_read_beyond_the_race_are_search_and_pool_rows_that_are_not_shown() -> None:
    task = numbered_task(400)
    lm = TellingLM(golds_of(task), reliability=0.6)
    calls: dict[str, int] = {}

    def listen(event: Event) -> None:
        if isinstance(event, Progress):
            calls[event.phase] = len(lm.calls)

    result = search(lm, task, space=ps.Space(modes=("static",)), progress=listen)
    read = [prompt for call in lm.calls[calls["search"] : calls["read"]] for prompt in call]
    splits = task.split(0)
    pool, searched = (
        {last_number(task.examples[number].text) for number in part} for part in (splits.pool, splits.search)
    )
    assert len(read) > 20
    own_rows = set()
    for prompt in read:
        *shown, own = re.findall(r"#(\d+)\.", prompt)
        assert own in pool | searched
        assert own not in shown
        own_rows.add(own)
    assert own_rows & pool
    assert result.prompt.weighing is not None
    assert result.prompt.weighing.readout is not None
    assert result.prompt.weighing.readout.rows >= result.validation.n + 24


@pytest.mark.parametrize("clarity", [0.0, 6.0])
def test_shuffled_labels_gain_nothing(clarity: float) -> None:
    """Next tokens that know the labels that the rows would have, and labels that are shuffled."""
    gains, tests = [], []
    for seed in range(4):
        task = numbered_task(240)
        order = np.random.default_rng([seed, 1]).permutation(len(task.examples))
        golds = golds_of(task)
        shuffled = [
            {"text": row.text, "label": task.examples[int(place)].output}
            for row, place in zip(task.examples, order, strict=True)
        ]
        of = ps.Task(shuffled, inputs="text", output="label")
        result = search(TellingLM(golds, clarity=clarity, reliability=0.5, seed=seed), of, seed=seed)
        gains.append(result.improvement_without_prior)
        tests.append(result.test.value)
    assert sum(gain.low <= 0 <= gain.high for gain in gains) >= 2
    assert abs(np.mean([gain.value for gain in gains])) < 0.12
    assert abs(np.mean(tests) - 0.5) < 0.1


def test_items_that_do_not_fit_are_too_long_and_change_nothing_else() -> None:
    task = numbered_task(240)
    lm = TellingLM(golds_of(task), reliability=0.6, context_tokens=400)
    result = search(lm, task, space=ps.Space(modes=("static",), shots=(1, 2)))
    assert result.prompt.parts.read_tokens
    long, short = "word " * 500 + "#1.", "a few words #1."
    assert result.prompt(long).failure == "too long"
    assert [each.failure for each in result.prompt.predict([short, long])] == [None, "too long"]
    rows = [{"text": f"{row.text}", "label": row.output} for row in task.examples[:200]] * 2
    rows = [*rows[:256], {"text": long, "label": "good"}]
    measured = result.prompt.evaluate(rows)
    assert measured.n == 257
    assert dict(measured.failures) == {"too long": 1}


@pytest.mark.parametrize("calibrations", [("readout",), ("readout", "none")])
def test_spaces_of_readouts_alone(calibrations: tuple[str, ...]) -> None:
    task = numbered_task(240)
    space = ps.Space(calibrations=calibrations)
    told = search(TellingLM(golds_of(task), reliability=0.6), task, space=space)
    assert told.test_without_prior.value > 0.85
    assert search(WatchedLM(golds_of(task), reliability=0.8), task, space=space).test.value > 0.5
    noise = search(TellingLM(golds_of(task), clarity=0.0, reliability=0.5), task, space=space)
    assert max(trial.value for trial in noise.trials if trial.items >= 48) < 0.9  # none raced on rows of its own fit


def test_nothing_is_kept_for_reading_where_nothing_can_be_read() -> None:
    task = numbered_task(240)
    for space in (ps.Space(modes=("retrieved",)), ps.Space(modes=("routed",), clusters=(2,), shots=(1, 2))):
        plan = search(TellingLM(golds_of(task)), task, space=space).facts["plan"]
        assert plan["read"] == 0
    plan = ps.optimize(
        task, TellingLM(golds_of(task)), "3000 evaluations", encoder=WordEncoder(), progress=False
    ).facts["plan"]
    assert 0 < plan["read"] <= ps.Space().ensemble * len(task.split(0).pool)


def test_prompts_that_find_demonstrations_are_still_found() -> None:
    """Next tokens tell nothing and neighbours everything: the race's best is not pushed out by fixed prompts."""
    task = numbered_task(600)
    golds = golds_of(task)

    def reliability(prompt: str) -> float:
        own = golds.get(last_number(prompt) or "")
        shown = [golds.get(number) for number in re.findall(r"#(\d+)\.", prompt)[:-1]]
        return 0.95 if len(shown) == 1 and shown[0] == own else 0.55

    lm = TellingLM(golds, clarity=0.0, reliability=reliability)
    result = ps.optimize(
        task, lm, "4000 evaluations", encoder=WordEncoder(), progress=False, space=ps.Space(prior=False)
    )
    long = [trial for trial in result.trials if trial.items >= 96]
    best = max(long, key=lambda trial: trial.value)
    assert result.test.value > best.value - 0.15


def numbers(result: ps.Result) -> dict[str, Any]:
    values = result.to_dict()
    return {**values, "cost": {name: values["cost"][name] for name in ("tokens", "calls", "evaluations")}}


def test_a_stopped_run_goes_on_to_the_same_result(tmp_path: Path) -> None:
    task = numbered_task(240)
    whole = TellingLM(golds_of(task), reliability=0.6)
    expected = search(whole, task)
    for call in (3, len(whole.calls) - 8):
        folder = tmp_path / str(call)
        lm = TellingLM(golds_of(task), reliability=0.6, on_call=lambda number, at=call: _die(number, at))
        with pytest.raises(RuntimeError, match="power"):
            search(lm, task, run=folder)
        again = search(TellingLM(golds_of(task), reliability=0.6), task, run=folder)
        assert numbers(again) == numbers(expected)
        assert again.prompt.predict(["a #1."]) == expected.prompt.predict(["a #1."])


def _die(number: int, at: int) -> None:
    if number == at:
        raise RuntimeError("the power went out")


def test_models_that_do_not_tell_go_without() -> None:
    task = numbered_task(240)
    result = search(WatchedLM(golds_of(task), reliability=0.8), task)
    assert "without_readout" not in result.baselines


def test_macro_f1_names_rare_labels_more_readily() -> None:
    rows = [row for n, row in enumerate(numbered_task(600).examples) if n % 2 == 0 or n % 10 == 1]
    of = ps.Task(
        [{**row.fields, "label": row.output} for row in rows],
        inputs="text",
        output="label",
        metric="macro_f1",
    )
    result = search(TellingLM(golds_of(of), clarity=2.0, reliability=0.55), of, space=ps.Space(prior=False))
    found = [each.output for each in result.prompt.predict([row.fields["text"] for row in rows])]
    assert 0.08 < np.mean([output == "good" for output in found]) < 0.5  # one in six is


def test_on_the_packaged_model(engine: LlamaEngine, tmp_path: Path) -> None:
    """A readout of a real model reads the same alone, together, and after saving."""
    task = ps.example_task()
    candidate = Candidate(instruction=task.instructions[0])
    builder = PromptBuilder(engine, task.inputs, task.output, {}, 8)
    prompts = [builder.render(candidate, (), row.fields) for row in task.examples[:4]]
    tokens = likeliest_tokens(engine.likely_next(prompts, 64), 64)
    asker = Asker(engine, builder, task.labels, tokens=tokens)
    rows = task.examples[:56]
    answers = asker.answers(asker.ask(candidate, [row.fields for row in rows], [()] * len(rows)))
    assert answers.following is not None
    golds = np.array([task.labels.index(row.output) for row in rows]) if task.labels else np.empty(0, dtype=np.int64)
    fit = fit_readout(tokens, answers.log_probabilities, answers.following, golds)
    assert fit is not None
    words = Weighing("none", (0.0,) * 7)
    read = Weighing("readout", (0.0,) * 7, readout=fit.readout)
    parts = PromptParts(task, candidate, {}, read, weighing_words=words, weighing_words_alone=words)
    prompt = ps.Prompt.from_parts(parts, OpenedModel(engine, ""))
    texts = [row.text for row in task.examples[60:72]]
    together, alone = prompt.predict(texts), [prompt(text) for text in texts]
    shares = [[list(each.probabilities.values()) for each in said] for said in (together, alone)]
    np.testing.assert_allclose(shares[0], shares[1], atol=0.05)
    assert ps.load(prompt.save(tmp_path / "p.json"), engine).predict(texts) == together
