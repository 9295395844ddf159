"""The laboratory: its statistics, what it shows a model, a whole run on a made-up model, and the pages that ship."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import WordEncoder
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny_models import write_model

from benchmarks.common import Results
from benchmarks.lab import documents, reports
from benchmarks.lab.__main__ import main as run_program
from benchmarks.lab.bench import Bench
from benchmarks.lab.claim import Claim, Contrast, Setting
from benchmarks.lab.claims import CLAIMS
from benchmarks.lab.claims.correct_share import SHARES
from benchmarks.lab.claims.implicit_steps import Agreement
from benchmarks.lab.conditions import Condition, Labelled, Passage, Surrogate
from benchmarks.lab.crossed import average, crossed_mean
from benchmarks.lab.demonstrations import NAMES, names_of, shown
from benchmarks.lab.documents import documented, show
from benchmarks.lab.dual_form import largest_gap, surrogate_scores
from benchmarks.lab.effects import (
    Best,
    BySize,
    LeftOut,
    Less,
    OfModel,
    Range,
    Shift,
    Spread,
    Sum,
    difference,
    expected_range,
    slope,
)
from benchmarks.lab.material import Material, Row, plain_text
from benchmarks.lab.measuring import Place, Stock
from benchmarks.lab.pages import _section
from benchmarks.lab.problems import Problems
from benchmarks.lab.prompts import channel_prompts, label_prompts
from benchmarks.lab.reader import Models, Reader, quantized
from benchmarks.lab.reports import CONTRADICTED, HOLDS, MIXED, NOT_SHOWN, PARTLY, overall, verdict
from benchmarks.lab.scales import QUICK, Scale
from benchmarks.lab.settings import DECIDING, command_of, continued, setting_of, settings_of
from benchmarks.lab.ways import bits, scores_of
from benchmarks.lab.words import Words
from promptsearch.errors import DataError, ModelError, UserError
from promptsearch.lm.fake import FakeLM
from promptsearch.lm.llamacpp.engine import LlamaEngine
from promptsearch.lm.resolve import OpenedModel
from promptsearch.measurement import paired_difference
from promptsearch.template import PLAIN_TEMPLATES, TEMPLATES, Demonstration, Renderer

ROOT = Path(__file__).parent.parent
LABELS = ("bad", "good", "odd")


# -- the dual form ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_both_sides_of_the_dual_form_are_equal(seed: int) -> None:
    assert largest_gap(np.random.default_rng(seed)) < 1e-10


def test_the_surrogate_adds_up_similarities() -> None:
    rng = np.random.default_rng(0)
    shown_vectors, queries = rng.standard_normal((6, 8)), rng.standard_normal((5, 8))
    labels = np.array([0, 1, 2, 0, 1, 0])
    expected = [
        [
            sum(float(query @ vector) for vector, each in zip(shown_vectors, labels, strict=True) if each == label)
            for label in range(3)
        ]
        for query in queries
    ]
    np.testing.assert_allclose(surrogate_scores(shown_vectors, labels, queries, 3), expected, atol=1e-12)


# -- statistics -------------------------------------------------------------------------------------------------


def made_up_effects(rng: np.random.Generator, seeds: int, items: int, of_seeds: float) -> NDArray[np.float64]:
    parts = rng.standard_normal((seeds, 1)) * of_seeds, rng.standard_normal((1, items))
    return parts[0] + parts[1] + rng.standard_normal((seeds, items))


@pytest.mark.parametrize(
    ("seeds", "of_seeds", "least"),
    [(5, 0.5, 0.90), (5, 0.0, 0.92), (3, 0.5, 0.88), (3, 0.2, 0.88), (2, 0.0, 0.92), (2, 0.3, 0.92)],
)
def test_intervals_cover_effects_of_seeds_and_items(seeds: int, of_seeds: float, least: float) -> None:
    rng = np.random.default_rng(1)
    found = [crossed_mean(made_up_effects(rng, seeds, 40, of_seeds)) for _ in range(400)]
    assert least <= np.mean([each.low <= 0 <= each.high for each in found])
    if seeds > 2:  # two seeds say so little that the interval is wide
        assert np.mean([each.low <= 0 <= each.high for each in found]) <= 0.99


def test_intervals_that_forget_the_seeds_would_not_cover() -> None:
    rng = np.random.default_rng(1)
    tables = [made_up_effects(rng, 5, 40, 0.5) for _ in range(400)]
    found = [crossed_mean(table.mean(axis=0, keepdims=True) / 10) for table in tables]
    assert np.mean([each.low <= 0 <= each.high for each in found]) < 0.8


def test_one_seed_is_a_paired_difference() -> None:
    effects = np.array([[1.0, 0.0, 0.0, -1.0, 1.0, 0.0, 1.0, 0.0]])
    found, expected = crossed_mean(effects), paired_difference(effects[0], np.zeros(8))
    assert (found.value, found.low, found.high) == (expected.value, expected.low, expected.high)
    same = crossed_mean(np.full((3, 20), 0.5))
    assert same.low < same.value == 0.5 < same.high


def test_an_average_of_datasets_is_narrower_than_each() -> None:
    rng = np.random.default_rng(2)
    parts = [crossed_mean(made_up_effects(rng, 5, 60, 0.1)) for _ in range(4)]
    found = average(parts)
    assert found.value == pytest.approx(np.mean([each.value for each in parts]))
    assert found.high - found.low < max(each.high - each.low for each in parts)
    assert found.items == 240
    assert average(parts[:1]) == parts[0]


class Table:
    """Scores of conditions as given; another model's or way's are a tenth smaller for each letter of its name."""

    def __init__(self, scores: dict[Condition, NDArray[np.float64]], factor: float = 1.0) -> None:
        self.scores = scores
        self.factor = factor

    def of(self, condition: Condition, model: str | None = None) -> NDArray[np.float64]:
        return self.factor * 0.9 ** len(model or "") * self.scores[condition]

    def in_way(self, way: str) -> Table:
        return Table(self.scores, self.factor * 0.9 ** len(way))

    def by_model(self, model: str) -> Table:
        return self.in_way(model)

    def loss(self, model: str) -> float:
        raise KeyError(model)

    def seconds(self, condition: Condition, what: str) -> NDArray[np.float64]:
        raise KeyError(what)


def table(shares: Sequence[float], seeds: int = 3, items: int = 200) -> tuple[list[Labelled], Table]:
    rng = np.random.default_rng(3)
    conditions = [Labelled(4, order=number) for number in range(len(shares))]
    scores = (rng.random((seeds, items)) < each for each in shares)
    return conditions, Table({one: each.astype(float) for one, each in zip(conditions, scores, strict=True)})


def test_effects_are_what_they_say() -> None:
    conditions, scores = table([0.2, 0.4, 0.8])
    means = [scores.of(each).mean() for each in conditions]
    assert difference(conditions[2], conditions[0]).values(scores).mean() == pytest.approx(means[2] - means[0])
    assert Sum({conditions[0]: 1.0}, constant=-0.5).values(scores).mean() == pytest.approx(means[0] - 0.5)
    rising = slope(dict(zip(conditions, (0.0, 0.3, 1.0), strict=True)))
    assert rising.values(scores).mean() == pytest.approx(np.polyfit((0.0, 0.3, 1.0), means, 1)[0])
    assert Best(conditions, conditions[0]).values(scores).mean() == pytest.approx(means[2] - means[0])
    assert Best(conditions).values(scores).mean() == pytest.approx(means[2] - np.mean(means))
    assert Range(conditions).values(scores).mean() == pytest.approx(means[2] - means[0])
    gain = difference(conditions[2], conditions[0])
    assert Less(gain, gain).values(scores).mean() == 0
    assert Shift(gain, "x", "xx").values(scores).mean() == pytest.approx((0.9 - 0.81) * (means[2] - means[0]))
    assert OfModel(gain, "x").values(scores).mean() == pytest.approx(0.9 * (means[2] - means[0]))
    by_size = BySize(gain, {"x": 1000, "xx": 4000}).values(scores).mean()
    assert by_size == pytest.approx((0.81 - 0.9) * (means[2] - means[0]) / 2)  # two doublings


def test_the_range_found_on_other_items_is_a_lower_bound() -> None:
    shares = np.linspace(0.45, 0.55, 8).tolist()
    conditions, scores = table(shares, seeds=60, items=80)
    found = Range(conditions).values(scores).mean()
    assert 0 < found < 0.1
    assert Range(conditions).least


def test_the_spread_is_without_the_items_noise() -> None:
    """Of 12 orders whose true accuracies have a standard deviation of 8 points, and of 12 that are equal."""
    rng = np.random.default_rng(5)
    assert expected_range(2) == pytest.approx(1.1284, abs=1e-3)
    assert expected_range(12) == pytest.approx(3.2585, abs=1e-3)
    conditions = [Labelled(4, order=number) for number in range(12)]
    found, covered = [], []
    for _ in range(60):
        shares = rng.normal(0.6, 0.08, (12, 5, 1))
        easy = rng.normal(0, 0.15, (1, 1, 96))
        values = (rng.random((12, 5, 96)) < np.clip(shares + easy, 0, 1)).astype(float)
        seen = crossed_mean(Spread(conditions).values(Table(dict(zip(conditions, values, strict=True)))))
        found.append(seen.value)
        covered.append(seen.low <= 0.08 * expected_range(12) <= seen.high)
    assert np.mean(found) == pytest.approx(0.08 * expected_range(12), abs=0.015)
    assert np.mean(covered) > 0.85


def test_orders_that_change_nothing_have_a_range_of_zero() -> None:
    rng = np.random.default_rng(6)
    conditions = [Labelled(4, order=number) for number in range(12)]
    same = np.broadcast_to(rng.random((1, 5, 96)) < 0.5, (12, 5, 96)).astype(float)
    found = crossed_mean(Spread(conditions).values(Table(dict(zip(conditions, same, strict=True)))))
    assert found.value == 0
    assert -0.05 < found.low < 0 < found.high < 0.05
    assert verdict(found.low, found.high, 0.10, None) == CONTRADICTED


@pytest.mark.parametrize("deviation", [0.0, 0.01, 0.02])
def test_a_range_estimated_as_zero_has_an_interval_that_covers_what_the_items_cannot_tell(deviation: float) -> None:
    """With zeros for each item alone, it would end at three points, below ranges that are often taken for none."""
    rng = np.random.default_rng(7)
    conditions = [Labelled(4, order=number) for number in range(12)]
    values, covered, ends = [], [], []
    for _ in range(60):
        shares = rng.normal(0.6, deviation, (12, 5, 1)) + rng.normal(0, 0.15, (1, 1, 96))
        scores = (rng.random((12, 5, 96)) < np.clip(shares, 0, 1)).astype(float)
        seen = crossed_mean(Spread(conditions).values(Table(dict(zip(conditions, scores, strict=True)))))
        values.append(seen.value)
        if abs(seen.value) < 1e-9:
            covered.append(seen.low <= deviation * expected_range(12) <= seen.high)
            ends.append(seen.high)
    assert len(covered) > 5
    assert np.mean(covered) > 0.9
    assert 0.08 < np.mean(ends) < 0.15
    assert min(values) > -1e-9


def test_an_average_names_the_datasets_that_it_is_over() -> None:
    setting = setting_of(SETTINGS)
    before, *others = conditions = Labelled(), Labelled(8), Surrogate(), Surrogate(control=True)
    contrast = Contrast(Words("agreement", "一致"), Agreement(*conditions), above=0)
    claim = Claim(1, "x", *[Words("x", "x")] * 3, datasets=("sst2", "trec"), contrasts=(contrast,), seeds=1)

    def shown_with(sst2: dict[str, str], trec: dict[str, str]) -> list[str]:
        """The row of an effect, given the answers before demonstrations; with all of them right there is none."""
        cells = {
            f"{setting.main}|{dataset}|{condition.name}|0": answers
            for dataset, own in (("sst2", sst2), ("trec", trec))
            for condition, answers in [
                (before, own),
                *((each, dict.fromkeys(claim.ways, "1011")) for each in others),
            ]
        }
        made = reports.report(claim, cells, setting)
        (row,) = _section(made["models"][0], made, "en", several=False)["findings"]
        return [row["name"], *row["cells"]]

    some, none = (dict.fromkeys(claim.ways, answers) for answers in ("0010", "1111"))
    one_way = {"direct": "0010", "calibrated": "1111"}
    name, direct, calibrated = shown_with(some, some)
    assert name == "agreement"
    assert "(on" not in direct + calibrated
    name, direct, calibrated = shown_with(some, none)
    assert name == "agreement (on sst2)"
    assert "(on" not in direct + calibrated
    name, direct, calibrated = shown_with(some, one_way)
    assert name == "agreement"
    assert direct.endswith(" (on sst2, trec): **undecided**")
    assert calibrated.endswith(" (on sst2): **undecided**")
    name, direct, calibrated = shown_with(none, none)
    assert (name, direct) == ("agreement", "could not be measured: **undecided**")


def test_agreement_is_a_share_of_the_corrections() -> None:
    rng = np.random.default_rng(4)
    names = (Labelled(), Labelled(8), Surrogate(), Surrogate(control=True))
    tables = [(rng.random((3, 100)) < share).astype(float) for share in (0.4, 0.6, 0.7, 0.5)]
    scores = Table(dict(zip(names, tables, strict=True)))
    before, after, own, control = tables
    corrected = (before == 0) & (after == 1)
    expected = own[corrected].mean() - control[corrected].mean()
    assert Agreement(*names).values(scores).mean() == pytest.approx(expected)
    with pytest.raises(LeftOut):
        Agreement(*names).values(Table({**scores.scores, names[0]: np.ones((3, 100))}))


def test_equal_conditions_have_no_range() -> None:
    """A plain range of 24 equal orders on 80 items would be some twenty points."""
    conditions, scores = table([0.5] * 24, seeds=40, items=80)
    plain = np.ptp(np.stack([scores.of(each).mean(axis=1) for each in conditions]), axis=0).mean()
    found = crossed_mean(Range(conditions).values(scores))
    assert plain > 0.18
    assert abs(found.value) < 0.02
    assert found.low < 0 < found.high


def test_scores_are_kept_as_bits() -> None:
    right = np.array([True, False, True])
    assert bits(right) == "101"
    np.testing.assert_array_equal(scores_of("101"), right.astype(float))


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(-1, 1), st.booleans(), st.booleans())
def test_verdicts_follow_from_intervals(low: float, width: float, number: float, is_above: bool, least: bool) -> None:
    high = low + width
    said = verdict(low, high, number if is_above else None, None if is_above else number, least)
    if low <= number <= high or (least and high < number):
        assert said == NOT_SHOWN
    else:
        assert said == (HOLDS if (low > number) == is_above else CONTRADICTED)
    assert verdict(low, high, None, None) == ""


def test_a_claim_of_several_parts() -> None:
    assert overall([]) == overall([NOT_SHOWN]) == NOT_SHOWN
    assert overall([HOLDS, HOLDS]) == HOLDS
    assert overall([HOLDS, CONTRADICTED, NOT_SHOWN]) == MIXED
    assert overall([HOLDS, NOT_SHOWN]) == PARTLY
    assert overall([CONTRADICTED, NOT_SHOWN]) == CONTRADICTED


# -- what is shown ----------------------------------------------------------------------------------------------


def material(name: str = "made-up", labels: Sequence[str] = LABELS, rows: int = 90, items: int = 6) -> Material:
    pool = [Row(f"{name} text {number} {'x' * (number % 7)}", labels[number % len(labels)]) for number in range(rows)]
    asked = [Row(f"{name} question {number}", labels[number % len(labels)]) for number in range(items)]
    return Material(name, labels, pool, asked, WordEncoder())


OWN, OTHER = material(), material("another")


def demonstrations(condition: Labelled, seed: int = 0) -> list[Row]:
    return shown(OWN, OTHER, condition, seed)


@given(st.integers(1, 24), st.integers(0, 50))
def test_smaller_sets_begin_larger_ones(count: int, seed: int) -> None:
    many = demonstrations(Labelled(24), seed)
    assert demonstrations(Labelled(count), seed) == many[:count]
    labels = [row.label for row in many[:count]]
    assert max(map(labels.count, LABELS)) - min(map(labels.count, LABELS)) <= 1
    assert len({row.text for row in many}) == 24
    assert all(row in OWN.pool for row in many)


@given(st.sampled_from(SHARES), st.integers(1, 16), st.integers(0, 50))
def test_shares_of_labels_are_right(share: float, count: int, seed: int) -> None:
    gold = demonstrations(Labelled(count), seed)
    changed = demonstrations(Labelled(count, labels=f"share {share}"), seed)
    assert [row.text for row in changed] == [row.text for row in gold]
    assert sum(one.label == other.label for one, other in zip(changed, gold, strict=True)) == round(share * count)
    if count % 3 == 0 and (count - round(share * count)) % 3 == 0:  # what is changed can be exchanged
        assert sorted(str(row.label) for row in changed) == sorted(str(row.label) for row in gold)


@given(st.integers(0, 50))
def test_orders_are_all_different(seed: int) -> None:
    found = {tuple(demonstrations(Labelled(4, order=number), seed)) for number in range(24)}
    assert len(found) == 24
    assert all(sorted(map(repr, each)) == sorted(map(repr, next(iter(found)))) for each in found)
    assert len({tuple(demonstrations(Labelled(8, order=number), seed)) for number in range(20)}) == 20


def test_too_few_rows_are_an_error_and_not_a_smaller_set() -> None:
    few = material("few", rows=9)
    with pytest.raises(DataError, match="3 rows of this kind"):
        shown(OWN, material("two", rows=3), Labelled(8, inputs="foreign"), 0)
    with pytest.raises(DataError, match="0 rows of this kind"):
        shown(few, OTHER, Labelled(8, inputs="one label"), 0)
    with pytest.raises(DataError, match="9 rows of this kind"):
        shown(few, OTHER, Labelled(16), 0)


@given(st.integers(3, 16), st.integers(0, 50))
def test_one_thing_changes_at_a_time(count: int, seed: int) -> None:
    gold = demonstrations(Labelled(count), seed)
    texts, labels = [row.text for row in gold], [row.label for row in gold]
    permuted = demonstrations(Labelled(count, labels="permuted"), seed)
    pairs = {(one.label, other.label) for one, other in zip(gold, permuted, strict=True)}
    assert len(pairs) == 3
    assert all(one != other for one, other in pairs)
    foreign = demonstrations(Labelled(count, inputs="foreign"), seed)
    assert [row.label for row in foreign] == labels
    assert all(row.text in {each.text for each in OTHER.pool} for row in foreign)
    for how in ("alike", "representative"):
        chosen = demonstrations(Labelled(count, inputs=how), seed)
        assert [row.label for row in chosen] == labels
        assert len({row.text for row in chosen}) == count
    assert len({row.label for row in demonstrations(Labelled(count, inputs="one label"), seed)}) == 1
    assert [row.text for row in demonstrations(Labelled(count, parts="inputs"), seed)] == texts
    assert {row.label for row in demonstrations(Labelled(count, parts="inputs"), seed)} == {None}
    assert [row.label for row in demonstrations(Labelled(count, parts="labels"), seed)] == labels
    ordered = demonstrations(Labelled(count, order=3), seed)
    assert sorted(map(repr, ordered)) == sorted(map(repr, gold))
    names = names_of(LABELS, seed)
    worded = demonstrations(Labelled(count, words=True), seed)
    assert [row.label for row in worded] == [names[label or ""] for label in labels]


@given(
    st.sampled_from([each.name for each in PLAIN_TEMPLATES]),
    st.text(max_size=20),
    st.lists(st.tuples(st.text(max_size=10), st.sampled_from(LABELS)), max_size=3),
)
def test_whole_pairs_look_as_the_package_shows_them(form: str, text: str, pairs: list[tuple[str, str]]) -> None:
    (prompt,) = label_prompts(form, "Say it.", [Row(*pair) for pair in pairs], [text])
    demonstrations = [Demonstration({"input": one}, label) for one, label in pairs]
    renderer = Renderer(["input"], "output", None)
    expected = renderer.render(TEMPLATES[form], "Say it.", demonstrations, {"input": text})
    assert (prompt, prompt.shared) == (expected, expected.shared)


def test_labels_get_different_words() -> None:
    many = [str(number) for number in range(3 * len(NAMES))]
    assert len(set(names_of(many, 0).values())) == len(many)


@given(
    st.sampled_from([each.name for each in PLAIN_TEMPLATES]),
    st.text(max_size=20),
    st.lists(st.tuples(st.text(max_size=10), st.sampled_from(LABELS)), max_size=3),
)
def test_prompts_begin_alike_and_hold_texts_as_data(form: str, text: str, pairs: list[tuple[str, str]]) -> None:
    rows = [Row(*pair) for pair in pairs]
    prompts = label_prompts(form, "Say it.", rows, [text, "other"])
    assert prompts[0].startswith(prompts[1][: prompts[1].shared])
    assert prompts[0][prompts[0].shared :].startswith(text)
    assert not any(segment.control for prompt in prompts for segment in prompt.segments)
    for row in rows:
        assert f"{row.text}" in prompts[0]
    for prompt, label in zip(channel_prompts(form, "", rows, LABELS), LABELS, strict=True):
        assert prompt[prompt.shared :].startswith(label)


# -- a whole run ------------------------------------------------------------------------------------------------

TINY = Scale(
    datasets=("sst2", "trec"),
    tasks=("lookup", "coin_flip"),
    items=6,
    thinking_items=3,
    pieces=3,
    switched=("sst2", "trec", "third"),
    seeds=2,
    thinking_seeds=2,
    counts=(0, 4, 8, 16),
    thinking_shots=2,
    orders=3,
    order_seeds=2,
    templates=("label", "arrow"),
    quantizations=("Q8_0", "Q2_K"),
    order_dataset_count=1,
    channel_dataset_count=1,
)
SWITCHED = {"sst2": LABELS[:2], "trec": LABELS, "third": LABELS}


class MadeUpModels:
    """Models that are over in an instant; the rounded ones err more."""

    main = "made-up"
    names = ("made-up", "larger")

    def __init__(self) -> None:
        self.opened: list[str] = []

    def reader(self, name: str) -> Reader:
        self.opened.append(name)
        share = {"made-up": 0.7, "larger": 0.9}.get(name, 0.5)
        return Reader(OpenedModel(FakeLM(answer_of, reliability=share, name=name), ""))


def answer_of(prompt: str) -> str | None:
    number = re.findall(r"question (\d+)", prompt)
    return LABELS[int(number[-1]) % 2] if number else None


FACTS = {"made-up": {"sha256": "1", "parameters": 1000}, "larger": {"sha256": "2", "parameters": 8000}}
SETTINGS = settings_of(TINY, FACTS, {"sst2": 2, "trec": 3, "third": 3}, {})


def bench(path: Path, models: MadeUpModels, setting: Setting) -> Bench:
    materials = {name: material(name, labels) for name, labels in SWITCHED.items()}
    main_ones = {name: materials[name] for name in TINY.datasets}
    texts = plain_text(list(main_ones.values()), None, 3)
    stock = Stock(main_ones, materials, Problems(Path(), 3), texts, 20)
    return Bench(setting, stock, models, Results(path, SETTINGS, "a made-up model"))  # type: ignore[arg-type]


@pytest.fixture
def tiny() -> Setting:
    return setting_of(SETTINGS)


def kept(path: Path) -> dict[str, Any]:
    """What is kept, less what a clock measured."""
    document = json.loads(path.read_text("utf-8"))
    for cell in document["cells"].values():
        cell.pop("seconds", None)
        cell.pop("tokens", None)
        cell.pop("tasks", None)
    return dict(document["cells"])


def test_all_claims_run_and_go_on_where_they_were_stopped(tmp_path: Path, tiny: Setting) -> None:
    claims = [make(tiny) for make in CLAIMS]
    assert [claim.number for claim in claims] == list(range(1, 16))
    whole = bench(tmp_path / "whole.json", MadeUpModels(), tiny)
    whole.run(claims, lambda job: None)
    assert whole.jobs(claims) == []

    heard = []

    def stop(job: Any) -> None:
        heard.append(job.key)
        if len(heard) % 60 == 0:
            raise KeyboardInterrupt

    for _ in range(100):
        try:
            bench(tmp_path / "parts.json", MadeUpModels(), tiny).run(claims, stop)
        except KeyboardInterrupt:
            continue
        break
    assert kept(tmp_path / "parts.json") == kept(tmp_path / "whole.json")
    assert len(heard) - len(set(heard)) == (len(heard) - 1) // 60  # only what was interrupted was asked again

    document = documented(json.loads((tmp_path / "whole.json").read_text("utf-8")))
    assert all(each["models"] for each in document["claims"])
    assert all(each["models"][0]["verdict"] for each in document["claims"])
    models = [len(each["models"]) for each in document["claims"]]
    assert models == [2 if number in (13, 14) else 1 for number in range(1, 16)]
    show(document, tmp_path)
    for name in documents.PAGES.values():
        text = (tmp_path / name).read_text("utf-8")
        assert len(re.findall(r"^## \d+\. ", text, re.MULTILINE)) == 15
        for figure in re.findall(r"!\[.*?\]\((.*?)\)", text):
            assert (tmp_path / figure).read_text("utf-8").lstrip().startswith("<?xml")
        assert_numbers_are_of(document, text)


def test_a_part_can_be_run_alone(tmp_path: Path, tiny: Setting) -> None:
    one = bench(tmp_path / "one.json", MadeUpModels(), tiny)
    claims = [make(tiny) for make in CLAIMS]
    one.run([claims[5]], lambda job: None)
    found = documented(json.loads((tmp_path / "one.json").read_text("utf-8")))["claims"]
    assert [each["number"] for each in found if each["models"]] == [6]
    show(documented(json.loads((tmp_path / "one.json").read_text("utf-8"))), tmp_path)
    lines = (tmp_path / "laboratory.md").read_text("utf-8").splitlines()
    assert sum("not measured" in line for line in lines) == 14


def test_further_models_leave_what_was_measured_as_it_was(tmp_path: Path, tiny: Setting) -> None:
    alone = settings_of(TINY, {"made-up": FACTS["made-up"]}, {"sst2": 2, "trec": 3, "third": 3}, {})
    first = bench(tmp_path / "one.json", MadeUpModels(), setting_of(alone))
    first.run([make(first.setting) for make in CLAIMS], lambda job: None)
    read = json.loads((tmp_path / "one.json").read_text("utf-8"))
    before = documented({**read, "settings": alone})["claims"]
    after = documented({**read, "settings": SETTINGS})["claims"]
    same = [one["number"] for one, other in zip(before, after, strict=True) if one["models"] == other["models"]]
    assert set(range(1, 16)) - set(same) <= {10, 12, 13, 14}
    assert all(each["models"] for each in after if each["number"] not in (13, 14))


def test_what_does_not_fit_the_context_is_left_out_and_said(tmp_path: Path, tiny: Setting) -> None:
    class Narrow(MadeUpModels):
        def reader(self, name: str) -> Reader:
            return Reader(OpenedModel(FakeLM(answer_of, context_tokens=60), ""))

    narrow = bench(tmp_path / "narrow.json", Narrow(), tiny)
    count = CLAIMS[5](tiny)
    narrow.run([count], lambda job: None)
    found = documented(json.loads((tmp_path / "narrow.json").read_text("utf-8")))["claims"][5]
    assert found["left_out"]
    assert all("do not fit" in reason for reason in found["left_out"].values())
    (section,) = found["models"]
    named = {each["name"]["en"]: each["ways"]["direct"] for each in section["findings"]}
    assert named["16 over eight"] == {"verdict": NOT_SHOWN, "datasets": {}}
    assert "value" in named["four over none"]
    assert section["verdict"]["direct"]["parts"] == 2
    assert section["verdict"]["direct"]["verdict"] != HOLDS


def test_a_file_may_grow_but_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    labels = {"sst2": 2, "trec": 3, "third": 3}
    assert continued(path, SETTINGS) == SETTINGS
    path.write_text(json.dumps({"settings": SETTINGS}), "utf-8")
    more = settings_of(replace(TINY, seeds=9), {"made-up": FACTS["made-up"]}, labels, {})
    grown = continued(path, more)
    assert (grown["seeds"], list(grown["models"])) == (9, ["made-up", "larger"])
    assert "--seeds 9" in command_of(grown)
    for name in DECIDING:
        changed = {**SETTINGS, name: "other"}
        with pytest.raises(UserError, match=f"other settings.*{name}"):
            continued(path, changed)
    with pytest.raises(UserError, match="another file called larger"):
        continued(path, {**SETTINGS, "models": {**FACTS, "larger": {"sha256": "3", "parameters": 1}}})
    with pytest.raises(UserError, match="whose first model is made-up"):
        continued(path, {**SETTINGS, "models": {"larger": FACTS["larger"]}})


def test_foreign_inputs_do_not_depend_on_what_else_is_served(tiny: Setting) -> None:
    materials = {name: material(name) for name in ("sst2", "trec", "third")}
    main_ones = {name: materials[name] for name in ("sst2", "trec")}
    stock = Stock(main_ones, materials, Problems(Path(), 3), [], 20)
    assert Place(stock, "trec", 0).other.name == "sst2"
    assert Place(stock, "sst2", 0).other.name == "trec"


def test_models_that_cannot_be_told_apart_are_refused(tmp_path: Path, model_file: Path) -> None:
    for name in ("a/one.gguf", "b/one.gguf", "a/t@o.gguf"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(model_file)
    with pytest.raises(UserError, match="is called 'one'"):
        Models(str(tmp_path / "a/one.gguf"), [str(tmp_path / "b/one.gguf")])
    with pytest.raises(UserError, match="the same file"):
        Models(None, [str(tmp_path / "a/one.gguf")])
    with pytest.raises(UserError, match="without @"):
        Models(str(tmp_path / "a/t@o.gguf"), [])
    with pytest.raises(ModelError):
        Models(str(tmp_path / "none.gguf"), [])


# -- the program --------------------------------------------------------------------------------------------------


def write_dataset(folder: Path, name: str, labels: Sequence[str]) -> None:
    """A dataset of short texts."""
    (folder / name).mkdir(parents=True)
    (folder / name / "meta.json").write_text(json.dumps({"labels": list(labels)}), "utf-8")
    for part, count in (("train", 60), ("dev", 6), ("test", 6)):
        rows = (
            {"input": f"{part} {name} {number}", "output": labels[number % len(labels)] if labels else "x"}
            for number in range(count)
        )
        (folder / name / f"{part}.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")


SMALLEST = (
    *("--quick", "--datasets", "one,two", "--switched", "one,two", "--tasks", "lookup", "--templates", "label,arrow"),
    *("--items", "4", "--thinking-items", "2", "--thinking-tokens", "8", "--thinking-shots", "1", "--pieces", "2"),
    *("--seeds", "2", "--thinking-seeds", "2", "--order-seeds", "2", "--orders", "2", "--counts", "0,4,8,9"),
    *("--quantizations", "Q8_0,Q4_0"),
)


def program(monkeypatch: pytest.MonkeyPatch, folder: Path, *words: str) -> None:
    """Run it as from a terminal."""
    given = ("--data", str(folder), "--json", str(folder / "results.json"), *SMALLEST, *words)
    monkeypatch.setattr("sys.argv", ["benchmarks.lab", *given])
    run_program()


@pytest.mark.usefixtures("encoder")
def test_the_program_runs_on_any_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dataset(tmp_path, "one", LABELS[:2])
    write_dataset(tmp_path, "two", LABELS)
    models = [write_model(tmp_path, "llama", seed).rename(tmp_path / f"{seed}.gguf") for seed in (0, 1)]
    program(monkeypatch, tmp_path, "--model", str(models[0]), "--only", "6,13")
    assert capsys.readouterr().out.count("parts hold") == 4
    program(monkeypatch, tmp_path, "--model", str(models[0]), "--models", str(models[1]), "--only", "10,12,13")
    read = json.loads((tmp_path / "results.json").read_text("utf-8"))
    document = json.loads((tmp_path / "results.claims.json").read_text("utf-8"))
    assert document == json.loads(json.dumps(documented(read)))
    assert list(read["settings"]["models"]) == ["0", "1"]
    measured = {each["number"]: len(each["models"]) for each in document["claims"] if each["models"]}
    assert {6: 1, 10: 1, 12: 1, 13: 2}.items() <= measured.items()
    assert str(tmp_path) not in json.dumps(read)
    page = (tmp_path / "results" / "laboratory.md").read_text("utf-8")
    assert_numbers_are_of(document, page)
    assert "for each doubling of the weights" in page
    with pytest.raises(SystemExit, match="other settings"):
        program(monkeypatch, tmp_path, "--model", str(models[0]), "--items", "5")
    write_dataset(tmp_path, "free", ())
    with pytest.raises(SystemExit, match="'free' has no labels"):
        program(monkeypatch, tmp_path, "--model", str(models[0]), "--datasets", "one,free")
    with pytest.raises(SystemExit, match="no dataset 'three'"):
        program(monkeypatch, tmp_path, "--model", str(models[0]), "--datasets", "one,three")
    with pytest.raises(SystemExit, match=r"none\.gguf"):
        program(monkeypatch, tmp_path, "--model", str(tmp_path / "none.gguf"))
    for words, said in ((("--only", "16"), "no such claims"), (("--datasets", "one"), "two datasets at least")):
        with pytest.raises(SystemExit):
            program(monkeypatch, tmp_path, *words)
        assert said in capsys.readouterr().err


# -- the pages that ship ----------------------------------------------------------------------------------------


def numbers_of(value: Any) -> Iterator[float]:
    """All numbers in plain values."""
    if isinstance(value, dict):
        for each in value.values():
            yield from numbers_of(each)
    elif isinstance(value, list):
        for each in value:
            yield from numbers_of(each)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield float(value)


def assert_numbers_are_of(document: dict[str, Any], text: str) -> None:
    """Every effect stands in the row of its name, and every number in a claim's tables is one of that claim's."""
    for report in document["claims"]:
        if not report["models"]:
            continue
        start = text.index(f'<a id="claim-{report["number"]}">')
        body = text[start:].split("<a id=", 2)[1]
        rows = [line for line in body.splitlines() if line.startswith("|")]
        for found in (each for section in report["models"] for each in section["findings"]):
            mine = [row for row in rows if row[2:].startswith(tuple(found["name"].values()))]
            for each in found["ways"].values():
                if "value" in each and found["unit"] == "points":
                    value, low, high = (100 * each[name] for name in ("value", "low", "high"))
                    assert any(f" {value:+.1f} [{low:+.1f}, {high:+.1f}]" in row for row in mine)
        known = set()
        for number in numbers_of(report):
            known |= {f"{100 * number:.1f}", f"{number:.2f}", f"{100 * number:+.1f}"}
        cells = [row.split("|", 2)[-1] for row in rows]  # without their names
        assert {each for row in cells for each in re.findall(r"[+-]?\d+\.\d+", row)} <= known


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_pages_are_made_from_the_results(language: str) -> None:
    results = ROOT / "benchmarks" / "results" / "laboratory.json"
    document = documented(json.loads(results.read_text("utf-8")))
    assert json.loads(results.with_suffix(".claims.json").read_text("utf-8")) == json.loads(json.dumps(document))
    shipped = (ROOT / "docs" / documents.PAGES[language]).read_text("utf-8")
    figures = {each["slug"]: f"laboratory/{each['slug']}.svg" for each in document["claims"]}
    figures = {slug: name for slug, name in figures.items() if (ROOT / "docs" / name).is_file()}
    assert shipped == documents.pages(document, figures)[language]
    assert_numbers_are_of(document, shipped)


# -- the real model ---------------------------------------------------------------------------------------------


def test_inputs_are_scored_given_labels_as_one_by_one(exact_engine: LlamaEngine) -> None:
    reader = Reader(OpenedModel(exact_engine, ""))
    texts = [f"The film was {word} from start to end." for word in ("dull", "great", "long")] * 7
    texts = [f"{number} {text}" for number, text in enumerate(texts)]
    prompts = channel_prompts("label", "", [Row("I loved it.", "good")], ("bad", "good"))
    together = reader.channel(prompts, texts)
    assert together.shape == (21, 2)
    singly = [[exact_engine.score([prompt], [f" {text}"])[0, 0] for prompt in prompts] for text in texts]
    np.testing.assert_allclose(together, singly, rtol=2e-3)
    np.testing.assert_allclose(
        reader.passages(texts), [exact_engine.score(["\n"], [text])[0, 0] for text in texts], rtol=2e-3
    )


def test_rounded_weights_read_worse(model_file: Path) -> None:
    kind = "Q2_K"
    text = ["The committee will meet again on Thursday to discuss the budget for next year, the chairman said."]
    models = Models(None, [])
    try:
        exact = models.reader(quantized(models.main, "Q8_0")).passages(text)
        rough = models.reader(quantized(models.main, kind)).passages(text)
    finally:
        models.close()
    assert rough[0] < exact[0]


def test_names_of_conditions_tell_them_apart() -> None:
    setting = setting_of(settings_of(QUICK, FACTS, {"sst2": 2, "trec": 6}, {}))
    claims = [make(setting) for make in CLAIMS]
    conditions = {needed.condition for claim in claims for needed in claim.needed(setting)}
    assert len({condition.name for condition in conditions}) == len(conditions)
    assert not any("|" in condition.name for condition in conditions)
    assert Passage().name == "passage"
