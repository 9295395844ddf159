"""The benchmark against other optimizers: parsing, budgets, decisions and the table against slow twins."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import dspy
import numpy as np
import pytest
from dspy.teleprompt import MIPROv2
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binomtest

import promptsearch as ps
from benchmarks.common import require_same_settings
from benchmarks.dspy_engine import LimitReachedError, LlamaForDspy
from benchmarks.recipes import Bench
from benchmarks.rivals.adapters import PlainAdapter, TaskAdapter, first_label, task_adapter, task_signature
from benchmarks.rivals.budgeted import BUDGETED, ordered_sets
from benchmarks.rivals.cells import Setting, recipe_tokens
from benchmarks.rivals.decisions import anchor_votes, best_count, divergences, least_entropy, with_rest
from benchmarks.rivals.methods import RECIPES, Method, methods, selected
from benchmarks.rivals.plans import (
    choice_rows,
    full_proposer_calls,
    mipro_calls,
    mipro_plan,
    mipro_trials,
    random_search_plan,
)
from benchmarks.rivals.table import Figures, figures, reached, table
from benchmarks.throughput_processes import ContenderError
from promptsearch.errors import UserError
from promptsearch.lm.llamacpp.engine import LlamaEngine
from promptsearch.lm.resolve import OpenedModel

LABELS = ("negative", "positive", "very positive")

# -- adapters -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "label"),
    [
        (" positive", "positive"),
        ("Very Positive, it is", "very positive"),
        ("negatively", "negative"),
        ("It is not positive but negative.", "positive"),
        ("a very positive one", "very positive"),
        ("unpositive", None),
        ("", None),
    ],
)
def test_the_first_label_of_an_answer(text: str, label: str | None) -> None:
    assert first_label(text, LABELS) == label


def test_the_plain_prompt_has_no_markers() -> None:
    signature = task_signature("Classify the review.", LABELS[:2])
    [message] = PlainAdapter(LABELS[:2]).format(
        signature, [dspy.Example(text="so\nbad", label="negative")], {"text": "fine"}
    )
    assert message == {
        "role": "user",
        "content": "Classify the review. Labels: negative, positive.\n\n"
        "Text: so bad\nLabel: negative\n\nText: fine\nLabel:",
    }


def test_many_labels_are_not_listed() -> None:
    labels = [f"label {number}" for number in range(30)]
    [message] = PlainAdapter(labels).format(task_signature("Sort.", labels), [], {"text": "x"})
    assert message["content"] == "Sort.\n\nText: x\nLabel:"


@pytest.mark.parametrize(
    ("name", "said", "label", "calls"),
    [
        ("plain", "positive\n", "positive", 1),
        ("plain", "no idea", None, 1),
        ("chat", "[[ ## label ## ]]\nnegative\n\n[[ ## completed ## ]]", "negative", 1),
        ("chat", "no idea", None, 2),
        ("json", '{"label": "positive"}', "positive", 1),
    ],
)
def test_unread_answers_are_counted_once(name: str, said: str, label: str | None, calls: int) -> None:
    llama = _Llama(said)
    engine = LlamaForDspy(llama, dspy, plain_tokens=8 if name == "plain" else None, follows_schemas=name == "json")
    adapter = task_adapter(name, LABELS[:2])
    program = dspy.Predict(task_signature("Classify.", LABELS[:2]))
    with dspy.context(lm=_lm(engine), adapter=adapter):
        if label is None:
            with pytest.raises(dspy.utils.exceptions.AdapterParseError):
                program(text="a film")
        else:
            assert program(text="a film").label == label
    assert adapter.failures == (label is None)
    assert engine.usage.calls == calls
    assert {kind for kind, _ in llama.asked} == {"completion" if name == "plain" else "chat"}


def test_a_proposer_may_say_anything() -> None:
    llama = _Llama("[[ ## idea ## ]] Look at the words.")
    adapter = task_adapter("plain", LABELS)
    with dspy.context(lm=_lm(LlamaForDspy(llama, dspy, plain_tokens=8)), adapter=adapter):
        assert dspy.Predict("examples -> idea")(examples="x").idea == "Look at the words."
    assert [kind for kind, _ in llama.asked] == ["chat"]
    assert isinstance(adapter, TaskAdapter)
    assert adapter.failures == 0


# -- the engine ---------------------------------------------------------------------------------------------


class _Llama:
    """Says one thing, and remembers what it was asked."""

    def __init__(self, said: str) -> None:
        self.said = said
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def eval(self, tokens: list[int]) -> None:
        """Runs nothing."""

    def create_completion(self, prompt: str, **options: Any) -> dict[str, Any]:
        self.eval([1] * 5)
        self.asked.append(("completion", {"prompt": prompt, **options}))
        return self._made({"text": self.said})

    def create_chat_completion(self, messages: list[dict[str, str]], **options: Any) -> dict[str, Any]:
        self.eval([1] * 7)
        self.asked.append(("chat", {"messages": messages, **options}))
        return self._made({"message": {"content": self.said}})

    def _made(self, choice: dict[str, Any]) -> dict[str, Any]:
        usage = {"prompt_tokens": 11, "completion_tokens": 2, "total_tokens": 13}
        return {"choices": [{**choice, "finish_reason": "stop"}], "usage": usage}


def _lm(engine: LlamaForDspy) -> Any:
    return dspy.LM("local/llama", engine=engine, cache=False, num_retries=0, temperature=0.0, max_tokens=8)


def _request(**options: Any) -> Any:
    return dspy.lm15.Request(
        model="local/llama", messages=(dspy.lm15.Message.user("hello"),), config=dspy.lm15.Config(**options)
    )


def test_costs_are_counted_and_copies_share_them() -> None:
    llama = _Llama("yes")
    first = LlamaForDspy(llama, dspy)
    first.complete(_request())
    engine = LlamaForDspy(llama, dspy)
    before = engine.snapshot()
    copy = _lm(engine).copy(temperature=1.0)
    assert copy.engine is engine
    copy.engine.complete(_request())
    assert engine.usage.since(before).to_dict() == {
        "calls": 1,
        "prompt_tokens": 11,
        "generated_tokens": 2,
        "evaluated_tokens": 7,
    }
    assert first.usage.calls == 1


def test_sampled_requests_have_seeds_of_their_own() -> None:
    llama = _Llama("yes")
    engine = LlamaForDspy(llama, dspy, seed=3)
    for temperature in (1.0, 1.0, 0.0):
        engine.complete(_request(temperature=temperature))
    seeds = [options.get("seed") for _, options in llama.asked]
    assert seeds[0] != seeds[1]
    assert seeds[2] is None


def test_no_request_runs_after_the_deadline() -> None:
    llama = _Llama("yes")
    engine = LlamaForDspy(llama, dspy)
    engine.deadline = -1.0
    with pytest.raises(LimitReachedError):
        engine.complete(_request())
    assert not llama.asked


# -- plans --------------------------------------------------------------------------------------------------


@given(st.floats(0, 5000), st.integers(10, 300))
def test_a_random_search_fits_what_it_may_spend(calls: float, rows: int) -> None:
    plan = random_search_plan(calls, rows)
    assert 0 <= plan.candidates <= 16
    assert plan.validation_rows <= rows
    if plan.candidates:
        assert (plan.candidates + 3) * (plan.validation_rows + 8) <= calls
    assert random_search_plan(19 * (rows + 8), rows).to_dict() == {"candidates": 16, "validation_rows": rows}


@pytest.mark.parametrize("trials", [4, 5, 6, 8, 9, 10, 12])
@pytest.mark.parametrize("rows", [40, 100])
def test_runs_of_mipro_are_those_that_its_own_code_makes(trials: int, rows: int) -> None:
    asked: list[int] = []
    scores = iter(np.random.default_rng(0).uniform(0, 100, 1000))

    def evaluate(program: Any, *, devset: list[Any], callback_metadata: dict[str, Any]) -> Any:
        asked.append(len(devset))
        return dspy.Prediction(score=float(next(scores)), results=[])

    optimizer = MIPROv2(metric=lambda *_: True, prompt_model=object(), task_model=object())
    optimizer._set_random_seeds(1)
    program = dspy.Predict("text -> label")
    minibatch = rows > 50
    optimizer._optimize_prompt_parameters(
        program,
        {0: list("abcdef")},
        {0: [[] for _ in range(6)]},
        evaluate,
        list(range(rows)),
        trials,
        minibatch,
        35,
        5,
        1,
    )
    assert mipro_calls(trials, rows, minibatch=minibatch) == sum(asked)


def test_trials_are_those_of_its_own_rule() -> None:
    optimizer = MIPROv2(metric=lambda *_: True, prompt_model=object(), task_model=object())
    for sets in range(2, 19):
        own = optimizer._set_num_trials_from_num_candidates(dspy.Predict("text -> label"), False, sets)
        assert mipro_trials(sets) == own


@given(st.floats(1, 5000), st.floats(0.01, 2), st.floats(0.1, 10))
def test_a_bounded_mipro_fits_or_is_the_least_there_is(seconds: float, call: float, proposal: float) -> None:
    plan = mipro_plan(seconds, call_seconds=call, proposal_seconds=proposal, rows=100, training_rows=100)
    runs = mipro_calls(plan.trials, plan.validation_rows, minibatch=plan.minibatch) + 8 * (plan.sets - 2)
    proposals = full_proposer_calls(plan.instructions, 100) if plan.informed else plan.instructions
    least = (plan.sets, plan.validation_rows, plan.informed) == (4, 12, False)
    assert least or runs * call + 2 * proposals * proposal <= seconds
    assert least or not plan.informed or 2 * proposals * proposal <= 0.25 * seconds


def test_with_much_time_mipro_is_its_light_preset() -> None:
    plan = mipro_plan(1e6, call_seconds=0.1, proposal_seconds=1, rows=100, training_rows=100)
    assert (plan.sets, plan.instructions, plan.trials, plan.minibatch, plan.informed) == (6, 3, 10, True, True)


def test_rows_of_a_choice() -> None:
    assert [choice_rows(calls, 5, 100) for calls in (0, 4.9, 61, 5000)] == [1, 1, 12, 100]


# -- decisions ----------------------------------------------------------------------------------------------

LOGS = arrays(np.float64, (3, 4, 3), elements=st.floats(-12, 0))


@given(LOGS)
def test_least_entropy_against_a_loop(logs: np.ndarray) -> None:
    found = least_entropy(logs)
    for item, sets in enumerate(logs):
        entropies = []
        for row in sets:
            shares = [math.exp(value) for value in row]
            shares = [share / sum(shares) for share in shares]
            entropies.append(-sum(share * math.log(max(share, 1e-12)) for share in shares))
        assert entropies[found[item]] == pytest.approx(min(entropies), abs=1e-9)


def test_a_set_that_does_not_fit_is_not_chosen() -> None:
    logs = np.log(np.array([[[0.5, 0.5], [0.9, 0.1]], [[0.5, 0.5], [0.6, 0.4]]]))
    logs[:, 1] = -np.inf
    assert least_entropy(logs).tolist() == [0, 0]


DISTRIBUTIONS = arrays(np.float64, (5, 4), elements=st.floats(0.01, 1)).map(
    lambda rows: np.log(rows / (rows.sum(axis=1, keepdims=True) + 0.5))
)


@given(DISTRIBUTIONS, DISTRIBUTIONS, st.lists(st.integers(0, 2), min_size=5, max_size=5), st.integers(1, 5))
def test_knn_prompting_against_loops(queries: np.ndarray, anchors: np.ndarray, golds: list[int], count: int) -> None:
    kept, asked = with_rest(anchors), with_rest(queries)
    assert np.exp(kept).sum(axis=1) == pytest.approx(np.ones(5))
    distances = divergences(asked, kept)
    votes = anchor_votes(distances, np.array(golds), count, 3)
    for query in range(5):
        own = [
            sum(math.exp(a) * (a - q) for a, q in zip(kept[anchor], asked[query], strict=True)) for anchor in range(5)
        ]
        assert distances[query] == pytest.approx(own, abs=1e-9)
        nearest = sorted(range(5), key=lambda anchor: distances[query, anchor])[:count]
        labels = [golds[anchor] for anchor in nearest]
        most = max(labels.count(label) for label in labels)
        winners = [label for label in set(labels) if labels.count(label) == most]
        chosen = int(votes[query].argmax())
        assert chosen in winners
        if labels[0] in winners:
            assert chosen == labels[0]


@given(DISTRIBUTIONS, st.lists(st.integers(0, 1), min_size=5, max_size=5))
def test_the_number_of_neighbours_is_chosen_without_an_anchor_itself(anchors: np.ndarray, golds: list[int]) -> None:
    labels = np.array(golds)
    count, share = best_count(anchors, labels, (1, 3, 9), 2)
    shares = {}
    for tried in (1, 3):
        right = 0
        for place in range(5):
            others = [other for other in range(5) if other != place]
            votes = anchor_votes(divergences(anchors[[place]], anchors[others]), labels[others], tried, 2)
            right += int(votes[0].argmax()) == golds[place]
        shares[tried] = right / 5
    assert count in shares
    assert share == pytest.approx(max(shares.values()), abs=0.21)  # equal distances may fall either way
    assert shares[count] == pytest.approx(share, abs=0.21)


def test_sets_begin_with_the_nearest() -> None:
    sets = ordered_sets(range(100, 150), 4, np.random.default_rng(0))
    assert sets[0] == (103, 102, 101, 100)
    assert len(sets) == 10
    assert all(len(set(chosen)) == 4 and set(chosen) <= set(range(100, 130)) for chosen in sets)
    assert sets == ordered_sets(range(100, 150), 4, np.random.default_rng(0))
    assert ordered_sets([7, 8], 4, np.random.default_rng(0))[0] == (8, 7)


# -- recipes on the model -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bench(engine: LlamaEngine) -> Bench:
    folder = Path(ps.__file__).parent / "examples"
    rows = [json.loads(line) for line in (folder / "support_messages.jsonl").read_text("utf-8").splitlines()]
    columns = list(rows[0])
    kept = [{"input": row[columns[0]], "output": row[columns[1]]} for row in rows[:100]]
    return Bench(ps.Task(kept, inputs="input", output="output"), OpenedModel(engine, "", "as-is"), 0)


def test_prices_are_what_questions_cost(bench: Bench) -> None:
    for candidate in (bench.random_shots(np.random.default_rng(5)), bench.nearest(2)):
        price, begun = bench.price(candidate, bench.validation), bench.spent
        items = bench.validation[:12]
        bench.ask(candidate, items)
        assert bench.spent - begun == pytest.approx(price.opening + len(items) * price.row, rel=0.25)


@pytest.mark.parametrize("recipe", ["best-of-10-random", "topk-mdl", "knn-prompting", "readout-random"])
def test_recipes_stay_within_their_tokens(bench: Bench, recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "test", bench.test[:3])
    monkeypatch.setattr(bench, "search", bench.search[:2])
    found = BUDGETED[recipe](bench, 4_000)
    assert 0 < found.spent <= 1.5 * 4_000
    assert found.test[""].n == 3


# -- methods, cells, table ----------------------------------------------------------------------------------


def test_names_of_methods() -> None:
    every = methods([0.5, 2], [2], [2], ["chat", "plain"])
    names = [method.name for method in every]
    assert len(set(names)) == len(names)
    assert names[:4] == ["ours 30s", "ours 30s alone", "ours 2m", "ours 2m alone"]
    assert {"dspy mipro chat", "dspy mipro plain 2m", "recipe plain", "recipe topk-mdl 2m"} <= set(names)
    assert [method.name for method in selected(every, ["mipro chat"])] == ["dspy mipro chat 2m", "dspy mipro chat"]
    assert [method.name for method in selected(every, ["ours 2m"])] == ["ours 2m"]
    assert selected(every, []) == every
    assert set(RECIPES) == set(BUDGETED)
    with pytest.raises(ValueError, match="nonsense"):
        selected(every, ["nonsense"])


def test_a_budget_in_tokens_is_a_search_and_recipes_of_its_own() -> None:
    every = {method.name: method for method in methods([], [2], [], ["chat"], [60_000])}
    assert {"ours 60k", "ours 60k alone", "recipe knn-prompting 60k"} <= set(every)
    assert not any(name.startswith("ours 2m") for name in every)
    setting = Setting("data", "BF16", "model", 300, 100, 100)
    recipe = every["recipe knn-prompting 60k"]
    assert recipe_tokens(recipe, "sst2", 0, setting, {"sst2|ours 60k|0": {"tokens": 58_000}}) == 60_000


def test_recipes_may_spend_what_ours_spent() -> None:
    setting = Setting("data", "BF16", "model", 300, 100, 100)
    recipe = Method("recipe", "topk-mdl", minutes=2.0)
    cells = {"sst2|ours 2m|1": {"tokens": 12345}}
    assert recipe_tokens(recipe, "sst2", 1, setting, cells) == 12345
    assert recipe_tokens(Method("recipe", "plain"), "sst2", 1, setting, {}) == 0
    with pytest.raises(ContenderError, match="ours 2m"):
        recipe_tokens(recipe, "sst2", 0, setting, cells)
    given_tokens = Setting("data", "BF16", "model", 300, 100, 100, tokens=99)
    assert recipe_tokens(recipe, "sst2", 0, given_tokens, {}) == 99


def _test(value: float, unread: int = 0) -> dict[str, Any]:
    return {"value": value, "n": 100, **({"failures": {"unparsable": unread}} if unread else {})}


def _cells() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for seed, shift in enumerate((0.0, 0.02)):
        for name, seconds, value in (("30s", 30, 0.80), ("2m", 120, 0.88)):
            cost = {"seconds": seconds, "usage": {"calls": 10, "evaluated_tokens": 1000}}
            both = {"test": _test(value + shift), "test_without_prior": _test(value)}
            found[f"sst2|ours {name}|{seed}"] = {**cost, **both}
            found[f"sst2|ours {name} alone|{seed}"] = {**cost, "test": _test(value - 0.05 + shift)}
        found[f"sst2|dspy mipro chat|{seed}"] = {
            "seconds": 900 + 600 * seed,
            "usage": {"calls": 500, "prompt_tokens": 900, "generated_tokens": 100, "evaluated_tokens": 400},
            "test": _test(0.79 + shift, unread=7),
            "optimizer_error": "it broke" if seed else None,
        }
        found[f"sst2|recipe plain|{seed}"] = {
            "seconds": 5,
            "measured": {"zero_shot": _test(0.7), "label_vote": _test(0.95)},
        }
    return found


def test_figures_are_means_over_seeds() -> None:
    rival = figures(_cells(), "sst2")["dspy mipro chat"]
    assert rival.value == pytest.approx(0.80)
    assert (rival.rows, rival.answers, rival.unread) == (100, 200, 14)
    assert (rival.seconds, rival.calls, rival.tokens) == ([900, 1500], [500, 500], [1000, 1000])


@given(st.integers(1, 2000).flatmap(lambda rows: st.tuples(st.integers(0, rows), st.just(rows))), st.integers(1, 4))
def test_seeds_that_answer_the_same_rows_make_no_interval_narrower(counted: tuple[int, int], seeds: int) -> None:
    right, rows = counted
    found = Figures()
    for _ in range(seeds):
        found.add({"value": right / rows, "n": rows}, {})
    once = binomtest(right, rows).proportion_ci(method="wilson")
    assert found.interval == pytest.approx((once.low, once.high))


def test_time_to_reach_is_that_of_our_shortest_search_that_is_as_good() -> None:
    found = figures(_cells(), "sst2")
    assert reached(found, 0.80, "with prior") == 30
    assert reached(found, 0.80, "prompt alone") == 120
    assert reached(found, 0.95, "with prior") is None


def test_the_table_says_all_of_it() -> None:
    text = table(_cells())
    lines = {line.split("  ")[1].strip(): line for line in text.splitlines() if line.startswith("  ")}
    rival = lines["dspy mipro chat"]
    assert "80.0 +- 1.4" in rival
    assert "71.1 to 86.7" in rival
    assert "out of the test rows of one seed" in text
    assert "7.0" in rival
    assert "120 s (x 10.0) / 30 s (x 40.0)" in rival
    assert "not reached / not reached" in lines["recipe label_vote"]
    assert "dspy mipro chat ended early: it broke" in text
    assert "ours 2m, prior taken away" in lines


def test_results_of_other_settings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    require_same_settings(path, {"weights": "BF16"})
    path.write_text(json.dumps({"settings": {"weights": "F16"}, "cells": {}}))
    require_same_settings(path, {"weights": "F16"})
    with pytest.raises(UserError, match="weights: F16 instead of BF16"):
        require_same_settings(path, {"weights": "BF16"})
