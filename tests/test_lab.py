"""The laboratory: its statistics, what it shows a model, a whole run on a made-up model, and the pages that ship."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import WordEncoder
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.common import Results
from benchmarks.lab import documents
from benchmarks.lab.bench import Bench
from benchmarks.lab.claim import Setting
from benchmarks.lab.claims import CLAIMS
from benchmarks.lab.claims.correct_share import SHARES
from benchmarks.lab.conditions import Condition, Labelled, Passage
from benchmarks.lab.crossed import average, crossed_mean
from benchmarks.lab.demonstrations import NAMES, names_of, shown
from benchmarks.lab.documents import documented, setting_of, show
from benchmarks.lab.dual_form import largest_gap, surrogate_scores
from benchmarks.lab.effects import Best, Range, Sum, difference, slope
from benchmarks.lab.material import Material, Row, plain_text
from benchmarks.lab.measuring import bits, scores_of
from benchmarks.lab.problems import Problems
from benchmarks.lab.prompts import channel_prompts, label_prompts
from benchmarks.lab.reader import Models, Reader, rounded
from benchmarks.lab.reports import CONTRADICTED, HOLDS, NOT_SHOWN, PARTLY, overall, verdict
from benchmarks.lab.scales import QUICK, Scale
from promptsearch.lm.fake import FakeLM
from promptsearch.lm.llamacpp.engine import LlamaEngine
from promptsearch.lm.resolve import OpenedModel
from promptsearch.measurement import paired_difference
from promptsearch.template import PLAIN_TEMPLATES

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
    ("seeds", "of_seeds", "least"), [(5, 0.5, 0.90), (5, 0.0, 0.92), (3, 0.5, 0.88), (2, 0.0, 0.92)]
)
def test_intervals_cover_effects_of_seeds_and_items(seeds: int, of_seeds: float, least: float) -> None:
    rng = np.random.default_rng(1)
    found = [crossed_mean(made_up_effects(rng, seeds, 40, of_seeds)) for _ in range(400)]
    assert least <= np.mean([each.low <= 0 <= each.high for each in found]) <= 1.0


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
    """Scores of conditions as they are given."""

    def __init__(self, scores: dict[Condition, NDArray[np.float64]]) -> None:
        self.scores = scores

    def of(self, condition: Condition, model: str | None = None) -> NDArray[np.float64]:
        return self.scores[condition]

    def in_way(self, way: str) -> Table:
        return self

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


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(-1, 1), st.booleans())
def test_verdicts_follow_from_intervals(low: float, width: float, number: float, is_above: bool) -> None:
    high = low + width
    said = verdict(low, high, number if is_above else None, None if is_above else number)
    if low <= number <= high:
        assert said == NOT_SHOWN
    else:
        assert said == (HOLDS if (low > number) == is_above else CONTRADICTED)


def test_a_claim_of_several_parts() -> None:
    assert overall([]) == overall([NOT_SHOWN]) == NOT_SHOWN
    assert overall([HOLDS, HOLDS]) == HOLDS
    assert overall([HOLDS, CONTRADICTED]) == overall([HOLDS, NOT_SHOWN]) == PARTLY
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


@given(st.integers(3, 16), st.integers(0, 50))
def test_one_thing_changes_at_a_time(count: int, seed: int) -> None:
    gold = demonstrations(Labelled(count), seed)
    texts, labels = [row.text for row in gold], [row.label for row in gold]
    moved = demonstrations(Labelled(count, labels="moved"), seed)
    pairs = {(one.label, other.label) for one, other in zip(gold, moved, strict=True)}
    assert len(pairs) == 3
    assert all(one != other for one, other in pairs)
    foreign = demonstrations(Labelled(count, inputs="foreign"), seed)
    assert [row.label for row in foreign] == labels
    assert all(row.text in {each.text for each in OTHER.pool} for row in foreign)
    for how in ("alike", "spread"):
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
    seeds=2,
    thinking_seeds=2,
    counts=(0, 4, 8, 16),
    thinking_shots=2,
    orders=3,
    order_seeds=2,
    templates=("label", "arrow"),
    roundings=("Q8_0", "Q2_K"),
    order_datasets=1,
    channel_datasets=1,
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


def bench(path: Path, models: MadeUpModels, setting: Setting) -> Bench:
    materials = {name: material(name, labels) for name, labels in SWITCHED.items()}
    results = Results(path, {"models": {}, "items": 6, "thinking_items": 3}, "a made-up model")
    texts = plain_text(list(materials.values()), None, 3)
    return Bench(setting, materials, Problems(Path(), 3), texts, models, results)  # type: ignore[arg-type]


@pytest.fixture
def tiny() -> Setting:
    return setting_of(TINY, MadeUpModels.names)


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

    read = json.loads((tmp_path / "whole.json").read_text("utf-8"))
    read |= {"settings": {**json.loads(json.dumps(vars(TINY))), "models": {}}}
    document = documented(read, tiny)
    assert all(each["missing"] == 0 for each in document["claims"])
    assert all(section["verdict"] for each in document["claims"] for section in each["models"])
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
    read = json.loads((tmp_path / "one.json").read_text("utf-8"))
    read |= {"settings": {**json.loads(json.dumps(vars(TINY))), "models": {}}}
    found = {each["number"]: each["missing"] for each in documented(read, tiny)["claims"]}
    assert found[6] == 0
    assert found[4] > 0


def test_what_does_not_fit_the_context_is_left_out_and_said(tmp_path: Path, tiny: Setting) -> None:
    class Narrow(MadeUpModels):
        def reader(self, name: str) -> Reader:
            return Reader(OpenedModel(FakeLM(answer_of, context_tokens=60), ""))

    narrow = bench(tmp_path / "narrow.json", Narrow(), tiny)
    count = CLAIMS[5](tiny)
    narrow.run([count], lambda job: None)
    read = json.loads((tmp_path / "narrow.json").read_text("utf-8"))
    read |= {"settings": {**json.loads(json.dumps(vars(TINY))), "models": {}}}
    found = documented(read, tiny)["claims"][5]
    assert found["left_out"]
    assert all("do not fit" in reason for reason in found["left_out"].values())
    names = [each["name"]["en"] for each in found["models"][0]["findings"]]
    assert "16 over eight" not in names


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
    """Every number with digits after the point on a page is one of the document's, in points or as it is."""
    known = set()
    for number in numbers_of(document["claims"]):
        known |= {f"{100 * number:.1f}", f"{number:.2f}", f"{100 * number:+.1f}"}
    body = text[text.index("<a id=") :]
    rows = [line.split("|", 2)[-1] for line in body.splitlines() if line.startswith("|")]  # without their names
    said = {each for row in rows for each in re.findall(r"[+-]?\d+\.\d+", row)}
    assert said
    assert said <= known


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_pages_are_made_from_the_results(language: str) -> None:
    results = ROOT / "benchmarks" / "results" / "laboratory.json"
    read = json.loads(results.read_text("utf-8"))
    scale = {name: value for name, value in read["settings"].items() if name != "models"}
    lists = {name: tuple(value) for name, value in scale.items() if isinstance(value, list)}
    setting = setting_of(Scale(**{**scale, **lists}), tuple(read["settings"]["models"]))
    document = documented(read, setting)
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
        exact = models.reader(rounded(models.main, "Q8_0")).passages(text)
        rough = models.reader(rounded(models.main, kind)).passages(text)
    finally:
        models.close()
    assert rough[0] < exact[0]
    facts = models.facts(rounded(models.main, kind))
    assert facts["rounded_to"] == kind
    assert facts["sha256"] == models.facts(models.main)["sha256"]


def test_names_of_conditions_tell_them_apart() -> None:
    setting = setting_of(QUICK, ("one", "two"))
    claims = [make(setting) for make in CLAIMS]
    conditions = {needed.condition for claim in claims for needed in claim.needed(setting)}
    assert len({condition.name for condition in conditions}) == len(conditions)
    assert not any("|" in condition.name for condition in conditions)
    assert Passage().name == "passage"
