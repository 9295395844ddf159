"""The throughput benchmark's arithmetic, and the environment of its processes. No model, no clock."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import throughput_processes
from benchmarks.throughput_cases import FULL, QUICK, Case, Worked, balanced_rows
from benchmarks.throughput_cells import make_cell
from benchmarks.throughput_figures import (
    TARGETS,
    agreement,
    label_of,
    prefix_tree,
    ratios,
    spread,
    summary,
    table,
    verdicts,
    whole_seconds,
)
from benchmarks.throughput_processes import DEFAULT, PASSIVE, Spec, Worker, policy_set
from benchmarks.throughput_rounds import Contender, Rounds
from promptsearch.lm.llamacpp.library import llama

TOKENS = st.lists(st.integers(0, 3), min_size=1, max_size=8).map(tuple)


@given(st.lists(TOKENS, min_size=1, max_size=12), st.lists(TOKENS, max_size=6))
def test_the_tree_is_all_distinct_prefixes(prompts: list[tuple[int, ...]], labels: list[tuple[int, ...]]) -> None:
    below = {label[:end] for label in labels for end in range(1, len(label))}
    above = {prompt[:end] for prompt in prompts for end in range(1, len(prompt) + 1)}
    deeper = [len(prompt) + len(prefix) - 1 for prompt in set(prompts) for prefix in below]
    depths = [len(prefix) - 1 for prefix in above] + deeper
    tree = prefix_tree(prompts, labels)
    assert (tree.prompts, tree.tail) == (len(above), len(below) * len(set(prompts)))
    assert tree.size == len(depths)
    assert tree.depth == pytest.approx(sum(depths) / len(depths))
    assert [prompt[: tree.shared] for prompt in prompts] == [prompts[0][: tree.shared]] * len(prompts)
    assert len({prompt[: tree.shared + 1] for prompt in prompts}) > 1 or tree.shared == min(map(len, prompts))


def test_a_tree_counts_equal_prompts_once() -> None:
    tree = prefix_tree([(1, 2, 3), (1, 2, 4), (1, 2, 3)], [(7,), (8, 9), (8, 9, 5)])
    assert (tree.prompts, tree.tail, tree.size, tree.shared) == (4, 4, 8, 2)


def test_no_prompts_are_no_tree() -> None:
    assert prefix_tree([]).size == 0


def test_medians_and_ratios() -> None:
    assert spread([3.0, 1.0, 2.0]).to_dict() == {"median": 2.0, "low": 1.0, "high": 3.0}
    found = ratios([8.0, 30.0, 6.0], [2.0, 3.0, 2.0])
    assert (found.median, found.low, found.high) == (4.0, 3.0, 10.0)
    with pytest.raises(ValueError, match="zip"):
        ratios([1.0], [1.0, 2.0])


@given(st.lists(st.lists(st.floats(0.01, 5), min_size=3, max_size=3), min_size=1, max_size=4))
def test_the_whole_is_the_sum_where_all_was_measured(items: list[list[float]]) -> None:
    assert whole_seconds(items, len(items), 3) == pytest.approx(sum(map(sum, items)))


def test_first_prompts_and_others_are_extrapolated_apart() -> None:
    assert whole_seconds([[5.0, 1.0, 1.0]], 1, 200) == pytest.approx(5.0 + 199.0)
    assert whole_seconds([[5.0, 1.0], [7.0, 3.0]], 24, 50) == pytest.approx(24 * (6.0 + 49 * 2.0))
    assert whole_seconds([[2.0], [4.0]], 100, 1) == pytest.approx(300.0)


@pytest.mark.parametrize(
    ("text", "label"),
    [(" positive", 1), ("neg", 0), ("Positive", None), ("", None), (" p", None), ("past", 2), ("\nneg ", 0)],
)
def test_a_text_names_the_label_that_it_alone_begins(text: str, label: int | None) -> None:
    assert label_of(text, ["negative", "positive", "past", "past tense"]) == label


def test_agreement_counts_only_what_can_be_compared() -> None:
    found = agreement([[0, 1, 1], [0, 0]], [[0, None], [1]], lambda answer: answer is not None)
    assert found == {"same": 1, "comparable": 2, "asked": 3}


def test_parts_are_the_first_prompts_of_the_first_groups() -> None:
    worked = Worked("", (), ("q1", "q2"), ("x", "y"))
    case = Case("b", (("1", "2"), ("3", "4"), ("5", "6")), ("x", "y"), worked=worked)
    part = case.part(2, 1)
    assert part.groups == (("1",), ("3",))
    assert part.worked == Worked("", (), ("q1",), ("x", "y"))
    assert case.part(None, None) == case
    assert (FULL.part_of("completion", case).groups, QUICK.part_of("ours BF16", case)) == (case.groups[:2], case)


def test_demonstrations_are_balanced() -> None:
    rows = [{"input": str(number), "output": "often" if number % 5 else "rare"} for number in range(100)]
    chosen = balanced_rows(rows, ["often", "rare"], 8)
    assert sorted(row["output"] for row in chosen) == ["often"] * 4 + ["rare"] * 4
    assert chosen == balanced_rows(rows, ["often", "rare"], 8)
    assert len({row["input"] for row in balanced_rows(rows, ["often", "rare"], 80)}) == 80


# -- verdicts -----------------------------------------------------------------------------------------------


def figure(value: float) -> dict[str, float]:
    return spread([value]).to_dict()


def test_every_target_is_judged_by_the_median() -> None:
    figures = {
        "ours BF16 over dspy as-is": {"median": 19.9, "low": 1.0, "high": 50.0},
        "ours BF16 over completion as-is": figure(4.0),
        "ours BF16 over completion BF16": figure(2.19),
        "Python's share": figure(0.05),
        "tokens beyond the tree": figure(1),
        "tokens restored while measured": figure(1),
    }
    judged = {each["figure"]: each["verdict"] for each in verdicts("a", figures, "BF16")}
    assert judged == {
        "ours BF16 over dspy as-is": "FAIL",
        "ours BF16 over completion as-is": "pass",
        "ours BF16 over completion BF16": "FAIL",
        "share of raw prefill": "not measured",
        "Python's share": "pass",
        "tokens beyond the tree": "FAIL",
        "tokens restored while measured": "FAIL",
    }


def test_what_the_hardware_allows_stands_below_its_target() -> None:
    name = "ours as-is over completion as-is"
    cell = {"title": "t", "verdicts": verdicts("b", {name: figure(3.0)}, "as-is", {name: figure(3.5)})}
    lines = summary({"b": cell}).split("\n")
    (at,) = (number for number, line in enumerate(lines) if name in line)
    assert lines[at].split()[-3:] == [">=", "4", "FAIL"]
    assert lines[at + 1].split() == ["most", "that", "raw", "prefill", "allows", "3.5", "(3.5", "to", "3.5)"]
    assert sum("most that raw prefill allows" in line for line in lines) == 1


def test_half_a_second_is_not_under_half_a_second() -> None:
    figures = {"seconds of python -c": figure(0.5), "seconds of promptsearch predict": figure(0.49)}
    assert [each["verdict"] for each in verdicts("first", figures, "BF16")] == ["FAIL", "pass"]


def test_one_weight_type_gives_no_line_twice() -> None:
    lines = [each["figure"] + each["wanted"] for each in verdicts("e", {}, "as-is")]
    assert len(lines) == len(set(lines)) == 3
    assert len(verdicts("a", {}, "as-is")) == sum(target.case == "a" for target in TARGETS)


# -- the processes ------------------------------------------------------------------------------------------


class Surroundings:
    """A contender that tells what its process was given, and what the library makes of that."""

    def __init__(self, spec: Spec) -> None:
        self.given = {name: os.environ.get(name) for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}

    def seen(self) -> dict[str, str | None]:
        """As the process began."""
        return self.given

    def with_the_library(self) -> dict[str, str | None]:
        """After the library has loaded the binding."""
        llama()
        return {name: os.environ.get(name) for name in self.given}


@pytest.mark.parametrize("own", [{}, {"GOMP_SPINCOUNT": "77"}, {"OMP_WAIT_POLICY": "active"}])
@pytest.mark.parametrize("policy", [None, DEFAULT, PASSIVE])
def test_rivals_start_in_the_users_environment(
    own: dict[str, str], policy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throughput_processes, "USERS_OWN", own)
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "set by the library in the parent")
    with policy_set(policy):
        inside = {name: os.environ.get(name) for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    waits = {None: own.get("OMP_WAIT_POLICY"), DEFAULT: None, PASSIVE: "passive"}[policy]
    assert inside == {"OMP_WAIT_POLICY": waits, "GOMP_SPINCOUNT": own.get("GOMP_SPINCOUNT")}
    assert os.environ["GOMP_SPINCOUNT"] == os.environ["OMP_WAIT_POLICY"] == "set by the library in the parent"


def test_a_process_takes_nothing_from_what_the_library_set_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput_processes, "USERS_OWN", {})
    monkeypatch.setenv("GOMP_SPINCOUNT", "1000")
    spec = Spec("tests.test_throughput:Surroundings", None, "as-is", "", 0)
    with Worker(spec, PASSIVE) as rival:
        assert rival.call("seen") == {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": None}
    with Worker(spec, DEFAULT) as ours:
        assert ours.call("seen") == {"OMP_WAIT_POLICY": None, "GOMP_SPINCOUNT": None}
        assert ours.call("with_the_library") == {"OMP_WAIT_POLICY": None, "GOMP_SPINCOUNT": "1000"}


# -- from rounds to a cell ----------------------------------------------------------------------------------


def contender(kind: str, weights: str, part: Case, rounds: list[dict[str, Any]]) -> Contender:
    return Contender(kind, weights, part, None, "measure", (part,), rounds)  # type: ignore[arg-type]


def rounds_of(case: Case, contenders: list[Contender], tree_of_all: list[tuple[int, ...]]) -> Rounds:
    named = {each.name: each for each in contenders}
    trees = {each.name: prefix_tree(tree_of_all) for each in contenders if each.kind == "ours"}
    return Rounds(case, prefix_tree(tree_of_all), 1, named, trees, {"server as-is": "not installed"})


def test_a_cell_of_chosen_labels() -> None:
    case = Case("a", (("1 1", "1 2"),), ("x", "y"))
    raw = {"prefill": 3.0, "all_logits": 2.0, "generation": 1.0}
    ours = {"seconds": 2.0, "decoded": 4, "restored": 2, "answers": [[0, 1]]}
    profile = {"total": 2.0, "llama_decode": 1.5, "llama_tokenize": 0.1, "other C": 0.3, "planning": 0.06}
    cell = make_cell(
        rounds_of(
            case,
            [
                contender("ours", "BF16", case, [ours] * 2),
                contender("completion", "BF16", case.part(1, 1), [{"items": [[5.0]], "answers": [[0]]}] * 2),
                contender("dspy", "as-is", case, [{"items": [[9, 9]], "answers": [[1, None]], "unparsable": 1}] * 2),
                contender("raw", "BF16", case, [raw] * 2),
                contender("profile", "BF16", case, [{**profile, "everything else": 0.04}] * 2),
            ],
            [(1, 1), (1, 2)],
        ),
        "BF16",
    )
    medians = {name: value["median"] for name, value in cell["figures"].items()}
    assert medians["ours BF16 over completion BF16"] == 5.0
    assert medians["ours BF16 over dspy as-is"] == 9.0
    assert medians["tokens beyond the tree"] == 1
    assert medians["tokens restored while measured"] == 2
    assert cell["bounds"]["ours BF16 over completion BF16"]["median"] == pytest.approx(10 / (3 / 3))
    assert cell["bounds"]["ours BF16 over dspy as-is"]["median"] == pytest.approx(18 / (3 / 3))
    assert medians["share of raw prefill"] == pytest.approx(3 / 2 / 3)
    assert medians["Python's share"] == pytest.approx(0.05)
    assert cell["contenders"]["ours BF16"]["tokens_per_second"]["median"] == 1.5
    assert cell["contenders"]["dspy as-is"]["tokens_per_second"] is None
    assert cell["agreement"] == {"ours BF16 and completion BF16": {"same": 1, "comparable": 1, "asked": 1}}
    assert "answers" not in cell["contenders"]["ours BF16"]["rounds"][0]
    cell["verdicts"] = verdicts("a", cell["figures"], "BF16", cell["bounds"])
    shown = table("a", cell)
    assert "server as-is                    skipped: not installed" in shown
    assert "dspy as-is could not parse 1 of 2 answers" in shown
    assert "FAIL" in summary({"a": cell})


def test_a_cell_of_generated_texts() -> None:
    case = Case("e", (("1",), ("2",)), max_tokens=4)
    answers = {"answers": [["t"], ["u"]], "generated": 8, "read_again": 6}
    ours = {"seconds": 2.0, "decoded": 8, "restored": 0, **answers}
    rival = {"items": [[4.0]], "answers": [["t"]], "generated": 4}
    raw = {"prefill": 4.0, "all_logits": 8.0, "generation": 2.0}
    cell = make_cell(
        rounds_of(
            case,
            [
                contender("ours", "as-is", case, [ours]),
                contender("completion", "as-is", case.part(1, 1), [rival]),
                contender("raw", "as-is", case, [raw]),
            ],
            [(1,), (2,)],
        ),
        "as-is",
    )
    medians = {name: value["median"] for name, value in cell["figures"].items()}
    assert medians["ours as-is over completion as-is"] == 4.0  # 4 tokens a second against 1
    assert medians["tokens beyond the tree"] == 0
    assert medians["share of what full batches allow"] == pytest.approx((2 / 4 + 8 / 8) / 2)
    assert cell["bounds"]["ours as-is over completion as-is"]["median"] == pytest.approx(8 / (2 / 4 + 8 / 8))
    assert medians["full batches over one sequence"] == 4.0
    assert cell["contenders"]["completion as-is"]["seconds"]["median"] == 8.0
