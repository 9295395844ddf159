"""The whole way, from rows to a result, on a model that is over in an instant: what the protocol promises."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import WatchedLM, WordEncoder, golds_of, last_number, numbered_rows, numbered_task
from numpy.typing import NDArray

import promptsearch as ps
from promptsearch.candidate import Candidate
from promptsearch.data.duplicates import DuplicateReport
from promptsearch.errors import ArtifactError, BudgetError, ContextError, DataError, ModelError, UserError
from promptsearch.events import Event, Note, Progress
from promptsearch.lm.fake import FakeLM, ScriptedLM
from promptsearch.prompting import PromptBuilder
from promptsearch.result import Trial
from promptsearch.run.notes import rows_notes
from promptsearch.run.workbench import make_space
from promptsearch.template import PLAIN_TEMPLATES, Demonstration

BUDGET = "1500 evaluations"


def by_shots(prompt: str) -> float:
    """Right more often the more it is shown."""
    return min(0.95, 0.55 + 0.03 * prompt.count("#"))


def search(of: ps.Task | None = None, lm: Any = None, budget: Any = BUDGET, **options: Any) -> ps.Result:
    task = of if of is not None else numbered_task()
    model = lm if lm is not None else WatchedLM(golds_of(task), reliability=by_shots)
    return ps.optimize(task, model, budget, **{"encoder": WordEncoder(), "progress": False, **options})


def numbers(result: ps.Result) -> dict[str, Any]:
    """A result without its seconds."""
    values = result.to_dict()
    cost = {name: values["cost"][name] for name in ("tokens", "calls", "evaluations")}
    return {**values, "cost": cost, "trials": [trial.to_dict() for trial in result.trials]}


# -- a result is whole ------------------------------------------------------------------------------------------


def test_a_result_is_whole() -> None:
    task = numbered_task()
    lm = WatchedLM(golds_of(task), reliability=by_shots)
    result = search(task, lm)
    names = {"zero_shot", "random", "nearest"}
    assert set(result.baselines) == names | {f"{name}_calibrated" for name in names} | {
        "label_vote",
        "prior_only",
    }
    assert {each.n for each in (result.test, *result.baselines.values())} == {result.test.n}
    assert set(result.against) == set(result.baselines)
    assert result.improvement == result.against["zero_shot"]
    assert result.improvement.value == pytest.approx(result.test.value - result.baselines["zero_shot"].value)
    assert result.test.low <= result.test.value <= result.test.high
    assert result.stopped_by in ("evaluations", "strategy")
    assert result.cost.tokens == lm.tokens_decoded
    assert result.cost.calls == len(lm.calls)
    assert result.cost.evaluations == sum(map(len, lm.calls))
    assert set(result.cost.seconds) == {"setup", "search", "confirm", "test"}
    assert len(result.trials.to_pandas()) == len(result.trials) > 8
    assert all(isinstance(value, (str, int, float)) for trial in result.trials for value in trial.to_dict().values())
    assert [trial.number for trial in result.trials] == list(range(len(result.trials)))
    assert result.facts["test_rows_measured"] == result.test.n
    assert json.loads(json.dumps(result.to_dict()))["test"]["value"] == result.test.value
    assert "zero-shot" in str(result)
    prediction = result.prompt("some text #1.")
    assert prediction.output in ("bad", "good")
    assert sum(prediction.probabilities.values()) == pytest.approx(1.0)


def test_the_number_is_what_the_prompt_does_on_the_test_rows() -> None:
    """Measured again through the deployed prompt, one by one."""
    task = numbered_task()
    result = search(task)
    rows = [task.examples[number] for number in task.split(0).test][: result.test.n]
    right = [result.prompt(row.fields).output == row.value for row in rows]
    assert np.mean(right) == pytest.approx(result.test.value)
    assert result.prompt.evaluate(rows) == result.test


@pytest.mark.parametrize("strategy", ["auto", "halving", "random"])
def test_strategies(strategy: str) -> None:
    assert search(strategy=strategy).test.value > 0.7


def test_events_tell_of_every_phase() -> None:
    heard: list[Event] = []
    search(progress=heard.append)
    progress = [event for event in heard if not isinstance(event, Note)]
    assert list(dict.fromkeys(event.phase for event in progress)) == ["embed", "search", "confirm", "test"]
    assert all(0 <= event.done <= 1 and 0 <= event.left <= 1 for event in progress)
    notes = " ".join(event.text for event in heard if isinstance(event, Note))
    assert all(word in notes for word in ("model:", "rows:", "plan:"))


# -- protocol ---------------------------------------------------------------------------------------------------


def test_test_rows_are_asked_about_in_the_final_phase_only() -> None:
    task = numbered_task()
    lm = WatchedLM(golds_of(task), reliability=by_shots)
    asked_before: list[int] = []

    def listen(event: Event) -> None:
        if getattr(event, "phase", "") in ("search", "confirm"):
            asked_before.append(len(lm.calls))

    search(task, lm, progress=listen)
    splits = task.split(0)
    names = {part: {last_number(task.examples[n].text) for n in getattr(splits, part)} for part in splits.sizes}
    before = {last_number(prompt) for call in lm.calls[: asked_before[-1]] for prompt in call}
    every = {number for call in lm.calls[: asked_before[-1]] for p in call for number in _numbers(p)}
    assert before <= names["search"] | names["confirm"] | {None} | names["pool"]  # the pool: inputs without content
    assert every.isdisjoint(names["test"])
    after = {last_number(prompt) for call in lm.calls[asked_before[-1] :] for prompt in call}
    assert after & names["test"]


def _numbers(prompt: str) -> list[str]:
    return [number for part in prompt.split("\n") if (number := last_number(part))]


def test_demonstrations_come_from_the_pool_alone() -> None:
    task = numbered_task()
    result = search(task)
    pool = set(task.split(0).pool)
    assert {n for trial in result.trials for n in trial.candidate.demonstrations} <= pool


def test_the_same_call_gives_the_same_result() -> None:
    assert numbers(search()) == numbers(search())
    assert numbers(search(seed=1)) != numbers(search())


SCRIPT = """
import json, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_optimize import numbers, search
from fakes import WatchedLM, golds_of, numbered_task
from test_optimize import by_shots
of = numbered_task()
journal = Path({journal!r}) if {journal!r} else None
def pause(call):
    if call == {die_at}:
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
lm = WatchedLM(golds_of(of), reliability=by_shots, journal=journal, on_call=pause)
result = search(of, lm, run={run!r} or None)
print(json.dumps(numbers(result), sort_keys=True))
"""


def in_another_process(
    hash_seed: int = 0, journal: str = "", run: str = "", die_at: int = 0
) -> subprocess.CompletedProcess[str]:
    code = SCRIPT.format(tests=str(Path(__file__).parent), journal=journal, run=run, die_at=die_at)
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


def test_another_process_gives_the_same_result() -> None:
    done = in_another_process(hash_seed=123)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(json.dumps(numbers(search())))


def test_a_killed_run_goes_on_to_the_same_result(tmp_path: Path) -> None:
    """Killed three times on the way; no recorded call is asked again."""
    journal, run = tmp_path / "journal", tmp_path / "run"
    task = numbered_task()
    undisturbed = WatchedLM(golds_of(task), reliability=by_shots)
    expected = numbers(search(task, undisturbed))
    calls = len(undisturbed.calls)
    left = random.Random(0)
    for _ in range(3):
        done = in_another_process(journal=str(journal), run=str(run), die_at=left.randint(2, calls // 4))
        assert done.returncode == -9, done.stderr
    done = in_another_process(journal=str(journal), run=str(run))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(json.dumps(expected))
    asked = journal.read_text().split()
    assert len(asked) == len(set(asked)) == calls


def test_a_finished_run_asks_nothing_again(tmp_path: Path) -> None:
    task = numbered_task()
    first = search(task, run=tmp_path)
    lm = WatchedLM(golds_of(task), reliability=by_shots)
    assert numbers(search(task, lm, run=tmp_path)) == numbers(first)
    assert lm.calls == []


def test_a_run_that_goes_on_says_so(tmp_path: Path) -> None:
    heard: list[Event] = []
    search(run=tmp_path, progress=heard.append)
    assert not any("going on" in event.text for event in heard if isinstance(event, Note))
    search(run=tmp_path, progress=heard.append)
    assert any("going on" in event.text for event in heard if isinstance(event, Note))


def test_rows_that_are_probably_mistakes_are_named() -> None:
    of = numbered_task()
    rows = [{"text": each.text, "label": each.output} for each in of.examples]
    rows[3]["label"], rows[4]["label"] = "gooood", ""
    task = ps.Task(rows, inputs="text", output="label", labels=["bad", "good", "gooood"])
    notes = " ".join(search(task).notes)
    assert "'gooood' (1)" in notes
    assert "Left out 1 row " in notes
    assert "hardly" not in " ".join(search(of).notes)


def test_a_time_that_is_too_short_names_one_that_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("promptsearch.run.preparation.model_speed", lambda *_, **__: 10.0)
    with pytest.raises(
        BudgetError, match=r"the budget of 5 s, which comes to .* tokens, .* with some [1-9]\d+ seconds"
    ):
        search(budget=ps.Budget(seconds=5.0))


@pytest.mark.parametrize(
    "change", [{"seed": 5}, {"budget": "1600 evaluations"}, {"of": "other"}, {"strategy": "random"}]
)
def test_a_run_belongs_to_one_call(tmp_path: Path, change: dict[str, Any]) -> None:
    search(run=tmp_path)
    if "of" in change:
        change = {"of": numbered_task(200)}
    with pytest.raises(ArtifactError, match="another job"):
        search(run=tmp_path, **change)


def test_shuffled_labels_gain_nothing() -> None:
    """Null runs: nothing connects rows and labels, so the gain's interval holds zero."""
    holds, tests = [], []
    for seed in range(10):
        rows = numbered_rows(240, seed=seed)
        labels = np.random.default_rng(seed).permutation([row["label"] for row in rows])
        shuffled = [{**row, "label": str(label)} for row, label in zip(rows, labels, strict=True)]
        task = ps.Task(shuffled, inputs="text", output="label", instruction="Say which.")
        truth = {str(n): row["label"] for n, row in enumerate(rows)}
        result = search(task, WatchedLM(truth, reliability=by_shots), seed=seed)
        holds.append(result.improvement.low <= 0 <= result.improvement.high)
        tests.append(result.test)
    assert sum(holds) >= 9, holds
    error = 0.5 / sum(test.n for test in tests) ** 0.5
    assert np.mean([test.value for test in tests]) == pytest.approx(0.5, abs=3 * error)


# -- finding ----------------------------------------------------------------------------------------------------


def test_a_demonstration_that_matters_is_found() -> None:
    task = numbered_task()
    magic = [f"#{last_number(task.examples[number].text)}." for number in task.split(0).pool[:4]]

    def reliability(prompt: str) -> float:
        return 0.95 if any(number in prompt for number in magic) else 0.55

    result = search(task, WatchedLM(golds_of(task), reliability=reliability), space=ps.Space(modes=("static",)))
    shown = {last_number(each.inputs["text"]) for each in result.prompt.demonstrations}
    assert shown & {number.strip("#.") for number in magic}
    assert result.improvement.low > 0
    assert result.test.value > 0.85


def test_a_template_that_matters_is_found() -> None:
    task = numbered_task()

    def reliability(prompt: str) -> float:
        return 0.95 if prompt.endswith("Category:") else 0.55

    result = search(task, WatchedLM(golds_of(task), reliability=reliability))
    assert result.prompt.candidate.template == "category"
    assert result.improvement.low > 0


def test_an_instruction_that_matters_is_found() -> None:
    task = numbered_task(instruction=["Say which.", "Think like a critic."])

    def reliability(prompt: str) -> float:
        return 0.95 if "critic" in prompt else 0.55

    result = search(task, WatchedLM(golds_of(task), reliability=reliability))
    assert "critic" in result.prompt.instruction
    assert result.improvement.low > 0


def test_retrieval_is_found_where_neighbours_matter() -> None:
    """The model answers rightly when it is shown an example of the query's own topic."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(300):
        topic, others = f"topic{number % 24}", " ".join(f"w{k}" for k in rng.integers(900, size=3))
        rows.append(
            {"text": f"{topic} {topic} {topic} {others} #{number}.", "label": ("bad", "good")[number % 24 % 2]}
        )
    task = ps.Task(rows, inputs="text", output="label")

    def reliability(prompt: str) -> float:
        topics = [word for word in prompt.split() if word.startswith("topic")]
        return 0.97 if topics.count(topics[-1]) > 3 else 0.5

    lm = WatchedLM(golds_of(task), reliability=reliability)
    result = search(task, lm, "4000 evaluations", space=ps.Space(prior=False, shots=(0, 1, 2, 4)))
    assert result.prompt.mode in ("retrieved", "routed")  # sixteen clusters nearly hold the topics apart
    assert result.improvement.low > 0
    assert result.test.value > 0.85


def test_the_vote_of_neighbours_is_used_where_it_knows_better_and_said_so() -> None:
    rows = [
        {
            "text": f"{('sunny warm bright', 'rainy cold dark')[n % 2]} word{n} other{n * 7 % 90} #{n}.",
            "label": "ab"[n % 2],
        }
        for n in range(240)
    ]
    task = ps.Task(rows, inputs="text", output="label")
    result = search(task, WatchedLM(golds_of(task), reliability=0.6))
    assert result.baselines["label_vote"].value > 0.95
    assert result.test.value > 0.9 > result.test_without_prior.value
    assert result.prompt.weighing is not None
    assert result.prompt.weighing.prior_weight > 0
    without = search(task, WatchedLM(golds_of(task), reliability=0.6), space=ps.Space(prior=False))
    assert without.test == without.test_without_prior
    assert any("label vote" in note for note in without.notes)


# -- budgets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("allowed", [120, 150, 200, 300, 450, 1200, 2500, 6000])
def test_evaluations_are_kept_within(allowed: int) -> None:
    result = search(budget=f"{allowed} evaluations")
    assert 0.5 * allowed <= result.cost.evaluations <= allowed
    assert result.test.n >= 30
    assert result.facts["plan"]["unit"] == "evaluations"


@pytest.mark.parametrize("dearer", [1, 3])
def test_a_time_and_the_tokens_it_comes_to_take_the_same_path(dearer: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a model costs more than it was priced at."""
    monkeypatch.setattr("promptsearch.run.preparation.model_speed", lambda *_, **__: 100.0)

    class Dearer(WatchedLM):
        def _count_decoded(self, tokens: int) -> None:
            super()._count_decoded(dearer * tokens)

    task = numbered_task()
    first = search(task, Dearer(golds_of(task), reliability=by_shots), ps.Budget(seconds=400.0))
    counted = search(task, Dearer(golds_of(task), reliability=by_shots), f"{first.facts['plan']['total']} tokens")
    assert first.facts["plan"]["tokens_per_second"] == 100.0
    assert [trial.candidate for trial in first.trials] == [trial.candidate for trial in counted.trials]
    assert first.prompt.candidate == counted.prompt.candidate
    assert first.test == counted.test


class WholePrompts(WatchedLM):
    """Reads the beginning of every prompt again, as servers do."""

    shares_beginnings = False  # type: ignore[assignment]

    def _count_decoded(self, tokens: int) -> None:
        FakeLM._count_decoded(self, tokens)


@pytest.mark.parametrize("allowed", [30_000, 100_000])
def test_models_that_share_nothing_are_priced_so(allowed: int) -> None:
    task = numbered_task()
    result = search(task, WholePrompts(golds_of(task), reliability=by_shots), f"{allowed} tokens")
    assert 0.4 * allowed <= result.cost.tokens <= 1.05 * allowed
    assert max(trial.items for trial in result.trials) > 24


@pytest.mark.parametrize("strategy", ["halving", "greedy", "tpe", "random"])
def test_no_strategy_leaves_the_space(strategy: str) -> None:
    space = ps.Space(reasoning=("cue",), modes=("static",))
    result = search(strategy=strategy, space=space, budget="1500 evaluations")
    assert {trial.candidate.reasoning for trial in result.trials if trial.candidate.shots == 0} == {"cue"}
    assert result.prompt.candidate.reasoning == "cue"


@pytest.mark.parametrize("budget", ["30k tokens", "60k tokens", "150k tokens"])
def test_tokens_are_kept_within(budget: str) -> None:
    allowed = 1000 * int(budget.split("k")[0])
    result = search(budget=budget)
    assert 0.5 * allowed <= result.cost.tokens <= 1.1 * allowed
    assert result.stopped_by in ("tokens", "strategy")


def test_the_first_limit_met_ends_the_search() -> None:
    result = search(budget=ps.Budget(tokens=10**7, evaluations=1000))
    assert result.stopped_by == "evaluations"
    assert 300 <= result.cost.evaluations <= 1000


@pytest.mark.parametrize("budget", ["1 evaluation", "1 token", "100 evaluations"])
def test_a_budget_for_next_to_nothing_is_refused_at_once(budget: str) -> None:
    task = numbered_task()
    lm = WatchedLM(golds_of(task))
    with pytest.raises(BudgetError, match="is too small for this task") as caught:
        search(task, lm, budget)
    assert str(caught.value).splitlines() == [str(caught.value)]
    assert lm.calls == []


@pytest.mark.parametrize("budget", ["150 evaluations", "3k tokens"])
def test_a_budget_for_little_still_gives_a_result(budget: str) -> None:
    result = search(budget=budget)
    assert result.test.n > 0
    assert result.trials


# -- interruptions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [2, 5, 12])
def test_ctrl_c_during_the_search_measures_the_best_so_far(call: int) -> None:
    task = numbered_task()
    result = search(task, WatchedLM(golds_of(task), reliability=by_shots, interrupt_at=call))
    assert result.stopped_by == "interrupt"
    assert result.test.n > 0


def test_ctrl_c_before_anything_is_known_ends_the_call() -> None:
    task = numbered_task()
    with pytest.raises(KeyboardInterrupt):
        search(task, WatchedLM(golds_of(task), interrupt_at=1))


def test_an_interrupted_run_can_go_on(tmp_path: Path) -> None:
    task = numbered_task()
    search(task, WatchedLM(golds_of(task), reliability=by_shots, interrupt_at=7), run=tmp_path)
    resumed = search(task, run=tmp_path)
    assert resumed.stopped_by != "interrupt"
    expected, found = numbers(search(task)), numbers(resumed)
    assert found["test"]["value"] == expected["test"]["value"]
    assert found["trials"] == expected["trials"]


def test_a_trial_is_one_flat_row() -> None:
    routed = Candidate(mode="routed", routes=((1, 2), (3, 4)))
    among = Candidate(mode="retrieved", count=2, among=(5, 6, 7))
    rows = [Trial(0, each, 8, 0.5, 0.6, 40.0).to_dict() for each in (routed, among)]
    assert [(row["routes"], row["among"]) for row in rows] == [("1 2 | 3 4", ""), ("", "5 6 7")]


# -- kinds of task ----------------------------------------------------------------------------------------------


def test_free_text() -> None:
    rows = [{"question": f"What is {n} plus {n}?", "answer": f"It is {2 * n}, says row {n}"} for n in range(120)]
    task = ps.Task(rows, inputs="question", output="answer", labels=False, metric="exact_match")

    def reply(prompt: str) -> str:
        number = int(prompt.rsplit("What is ", 1)[1].split()[0])
        return f" It is {2 * number}, says row {number}\nmore" if prompt.count("What is") > 1 else " no idea"

    lm = ScriptedLM(reply)
    result = search(task, lm, "900 evaluations")
    assert result.test.value == 1.0
    assert result.baselines["zero_shot"].value == 0.0
    assert set(result.baselines) == {"zero_shot", "random", "nearest"}
    assert result.prompt("What is 4000 plus 4000?").output == "It is 8000, says row 4000"
    assert result.prompt.weighing is None


def test_several_columns_and_a_metric_of_ones_own() -> None:
    rows = [
        {"premise": f"p{n % 60} is so w{n} #{n}.", "hypothesis": f"h{n * 31 % 97} v{n} too", "verdict": n % 3}
        for n in range(240)
    ]
    task = ps.Task(
        rows,
        inputs=["hypothesis", "premise"],
        output="verdict",
        labels={0: "yes", 1: "maybe", 2: "no"},
        metric=lambda example, prediction: 1.0 if prediction == example.output else 0.25,
    )
    result = search(task, WatchedLM(golds_of(task), reliability=0.6), space=ps.Space(calibrations=("batch",)))
    assert result.test.interval == "bootstrap 95 %"
    prediction = result.prompt({"premise": "p1 #1.", "hypothesis": "h1", "more": 5})
    assert prediction.output in (0, 1, 2)
    assert set(prediction.probabilities) == {0, 1, 2}
    assert json.dumps(result.to_dict())


def test_macro_f1() -> None:
    task = numbered_task(metric="macro_f1")
    heard: list[Event] = []
    lm = WatchedLM(golds_of(task), reliability=0.7)
    result = search(task, lm, "1000 evaluations", space=ps.Space(prior=False), progress=heard.append)
    assert result.test.interval == "bootstrap 95 %"
    assert result.test.low < result.test.high
    raced = [event for event in heard if isinstance(event, Progress) and event.best is not None]
    assert {event.best_is for event in raced} == {"accuracy"}
    assert all((trial.value * trial.items) % 1 == pytest.approx(0) for trial in result.trials)  # shares of rows
    assert "accuracy on" in " ".join(str(result).split())


def test_models_that_only_generate() -> None:
    task = numbered_task(120)
    golds = golds_of(task)
    lm = ScriptedLM(lambda prompt: golds.get(last_number(prompt) or "", "?") if prompt.count("#") > 1 else "hm")
    result = search(task, lm, "700 evaluations")
    assert result.test.value > 0.9
    assert dict(result.baselines["zero_shot"].failures) == {"not understood": result.test.n}
    assert json.dumps(result.to_dict())


def test_explicit_splits_of_a_few_rows() -> None:
    rows = numbered_rows(80)
    task = ps.Task(rows[:60], inputs="text", output="label", validation=rows[60:62], test=rows[62:])
    result = search(task, budget="400 evaluations")
    assert result.test.n == 18
    assert result.validation.n == 1


# -- bad input --------------------------------------------------------------------------------------------------


def mislabelled() -> ps.Task:
    return ps.Task(numbered_rows(60), inputs="text", output="label", labels={"bad": "", "good": "yes"})


def seen_before() -> ps.Task:
    rows = numbered_rows(100)
    return ps.Task(rows, inputs="text", output="label", test=rows[:20])


def without(column: str) -> Callable[[], ps.Task]:
    return lambda: ps.Task([{"text": "x", "label": "y"}] * 30, inputs=column, output="label")


def long_rows(count: int) -> ps.Task:
    """The first so many of 60 rows are too long for a model of 300 tokens."""
    rows = [{**row, "text": f"{row['text']} {'so ' * 500}"} for row in numbered_rows(60)[:count]]
    return ps.Task([*rows, *numbered_rows(60)[count:]], inputs="text", output="label")


def test_rows_that_are_too_long_are_named_and_wrong_in_the_test() -> None:
    of = long_rows(9)
    result = search(of, WatchedLM(golds_of(of), context_tokens=300))
    (note,) = (note for note in result.notes if "Too long for the model" in note)
    too_long = result.facts["rows_too_long"]
    assert 3 <= too_long <= 9  # those that are shown at most are no items
    assert note.count(" of data") == min(4, too_long)
    in_test = sum(len(of.examples[row].text) > 1000 for row in of.split(0).test)
    assert dict(result.test.failures) == {"too long": in_test}
    assert result.test.n == len(of.split(0).test)
    assert result.test.value <= 1 - in_test / result.test.n


def test_a_single_long_row_forbids_no_demonstrations() -> None:
    asked = numbered_rows(40, seed=1)
    asked[7]["text"] = f"{'so ' * 200}{asked[7]['text']}"
    of = ps.Task(numbered_rows(60), inputs="text", output="label", validation=asked)
    result = search(of, WatchedLM(golds_of(of), reliability=by_shots, context_tokens=300))
    assert result.facts["rows_too_long"] == 0
    assert max(trial.candidate.shots for trial in result.trials) >= 16


class ReadsLatin(WordEncoder):
    """Takes all that is written in other letters for one and the same."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return super().encode([text if text.isascii() else "?" for text in texts])


def test_a_language_that_the_encoder_cannot_read_loses_no_rows() -> None:
    thai = "กขคงจฉชซญดตถทธนบปผฝพฟมยรลวสหอ"
    words = ["".join(np.random.default_rng(number).choice(list(thai), 24)) for number in range(80)]
    of = ps.Task(
        [{"text": word, "label": "ab"[at % 2]} for at, word in enumerate(words)], inputs="text", output="label"
    )
    result = search(of, encoder=ReadsLatin())
    assert result.facts["duplicates_removed"]["near"] == 0
    (note,) = (note for note in result.notes if "cannot tell" in note)
    assert "100%" in note
    assert not any("cannot tell" in note for note in search().notes)


@pytest.mark.parametrize("strategy", ["halving", "greedy", "tpe", "random"])
def test_no_two_trials_ask_by_the_same_prompt(strategy: str) -> None:
    """Templates that show no names, or a column twice named, are one candidate under all names."""
    rows = [{**row, "topic": f"topic {number}"} for number, row in enumerate(numbered_rows(100))]
    of = ps.Task(rows, inputs=["text", "topic"], output="label", instruction="Say the mood of this review or letter.")
    model = FakeLM(lambda prompt: "good", reliability=0.7)
    result = search(of, model, strategy=strategy, space=ps.Space(modes=("static",)))
    builder = PromptBuilder(
        model,
        of.inputs,
        of.output,
        {at: Demonstration(each.fields, each.output) for at, each in enumerate(of.examples)},
        4,
    )
    tried = {trial.candidate for trial in result.trials}
    prompts = {str(builder.render(each, each.demonstrations, of.examples[0].fields)) for each in tried}
    assert len(tried) > 20
    assert len(prompts) == len(tried)


@pytest.mark.parametrize(
    ("inputs", "output", "same"),
    [
        (["text", "topic"], "label", {"bare", "label"}),
        (["text"], "category", {"category"}),
        (["input"], "label", {"label"}),
    ],
)
def test_the_usual_template_stays_the_first(inputs: list[str], output: str, same: set[str]) -> None:
    rows = [{**dict.fromkeys(inputs, row["text"]), output: row["label"]} for row in numbered_rows(60)]
    of = ps.Task(rows, inputs=inputs, output=output)
    builder = PromptBuilder(FakeLM(), of.inputs, of.output, {}, 4)
    space = make_space(of, of.split(0), ps.Space(), FakeLM(), builder, 4)
    names = [template.name for template in PLAIN_TEMPLATES]
    assert list(space.templates) == [name for name in names if name not in same]


def test_contradictions_and_labels_alike_are_told() -> None:
    rows = numbered_rows(120)
    contradicted = [{**row, "label": "bad" if row["label"] == "good" else "good"} for row in rows[:3]]
    loud = [{**row, "label": row["label"].upper()} for row in rows[100:]]
    of = ps.Task([*rows[:100], *loud, *contradicted], inputs="text", output="label")
    result = search(of)
    (told,) = (note for note in result.notes if note.startswith("The same text with other outputs"))
    assert "row 1 of data, row 2 of data, row 3 of data, row 121 of data and 2 more" in told
    (alike,) = (note for note in result.notes if note.startswith("Labels that differ in case"))
    assert "'BAD' and 'bad'" in alike


def test_labels_that_no_demonstration_can_show_are_told() -> None:
    unknown = [{"text": f"unseen {n}", "label": "Bad" if n % 2 else "neutral"} for n in range(1, 14)]
    of = ps.Task(numbered_rows(60), inputs="text", output="label", test=unknown)
    (told,) = (
        note
        for note in rows_notes(of, (), of.split(0).report)
        if note.startswith("Labels that only validation or test rows")
    )
    assert "'Bad' (7), 'neutral' (6). No demonstration" in told
    assert not rows_notes(ps.Task(numbered_rows(60), inputs="text", output="label"), (), DuplicateReport())


def test_further_answers_are_told() -> None:
    rows = [{"text": f"say {row}x", "label": f"{row} or {way}"} for way in range(3) for row in range(30)]
    of = ps.Task(rows, inputs="text", output="label")
    assert rows_notes(of, (), of.split(0).report) == (
        "60 rows give further answers to the same inputs as a row before, and count with it as one.",
    )
    (told,) = rows_notes(ps.Task(rows[:31], inputs="text", output="label"), (), DuplicateReport())
    assert told.startswith("1 row gives further answers")
    assert told.endswith("counts with it as one.")


def test_rows_are_named_as_in_their_files(tmp_path: Path) -> None:
    """By their place among all rows of the file, blank ones counted."""
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n,bad\n" + "".join(f"text {n}x,{'good' if n % 2 else 'bad'}\n" for n in range(30)))
    of = ps.Task(path, inputs="text", output="label", test=numbered_rows(40))
    assert of.row_name(0) == f"row 2 of data {str(path)!r}"
    assert of.row_name(30) == "row 1 of test"


def test_a_result_is_short_in_a_shell_and_a_table_in_a_notebook() -> None:
    result = search()
    assert len(repr(result).splitlines()) == 1
    assert len(repr(result)) < 400
    assert f"{100 * result.test.value:.1f} %" in repr(result)
    page = result._repr_html_()
    assert page.startswith("<pre>accuracy")
    assert "<" not in page[5:-6]


def free_text() -> ps.Task:
    return ps.Task(numbered_rows(60), inputs="text", output="label", labels=False, metric="exact_match")


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda lm: search(ps.Task([], inputs="text", output="label"), lm), DataError, "row"),
        (lambda lm: search(without("words")(), lm), DataError, "words"),
        (lambda lm: search(without("text")(), lm), DataError, "two labels"),
        (lambda lm: search(numbered_task(12), lm), DataError, "12 row"),
        (lambda lm: search(mislabelled(), lm), DataError, "label"),
        (lambda lm: search(numbered_task(labels={"bad": "x", "good": "x "}), lm), DataError, "'x'"),
        (lambda lm: search(seen_before(), lm), DataError, "test"),
        (lambda lm: search(numbered_task(instruction="so " * 500), lm), ContextError, "instruction"),
        (
            lambda lm: search(long_rows(60), lm),
            ContextError,
            "rows are too long for the model",
        ),
        (lambda lm: search(None, lm, "0s"), BudgetError, "budget"),
        (lambda lm: search(None, lm, ps.Budget(tokens=float("nan"))), BudgetError, "nan"),  # type: ignore[arg-type]
        (lambda lm: search(None, lm, strategy=["greedy"]), UserError, "strategy"),
        (lambda lm: search(None, lm, "soon"), BudgetError, "soon"),
        (lambda lm: search(None, lm, strategy="bayes"), ps.UserError, "strategy"),
        (lambda lm: search(numbered_rows(60), lm), ps.UserError, "Task"),  # type: ignore[arg-type]
        (lambda lm: search(None, lm, space=ps.Space(templates=("none",))), ps.UserError, "none"),
        (lambda lm: search(None, lm, space=ps.Space(modes=("all",))), ps.UserError, "all"),
        (lambda lm: search(None, lm, space=ps.Space(templates=("chat-turns",))), ModelError, "chat template"),
        (lambda lm: search(None, lm, space=ps.Space(shots=(0,), modes=("retrieved",))), ps.UserError, "shots"),
        (lambda lm: search(None, lm, space=ps.Space(clusters=(90,), modes=("routed",))), ps.UserError, "clusters"),
        (lambda lm: search(None, lm, space=ps.Space(retrievers=("coverage",))), ps.UserError, "token vectors"),
        (lambda lm: search(free_text(), lm, space=ps.Space(rerankers=("mdl",))), ps.UserError, "free text"),
        (lambda lm: search(None, "no-such-model"), ModelError, "no-such-model"),
        (lambda lm: search(None, object()), ModelError, "object"),
        (lambda lm: search(None, lm, run=__file__), ArtifactError, "is a file"),
    ],
)
def test_bad_input_is_one_line_before_any_model_call(
    call: Callable[[WatchedLM], ps.Result], error: type[Exception], says: str
) -> None:
    lm = WatchedLM({}, context_tokens=300)
    with pytest.raises(error) as caught:
        call(lm)
    assert says in str(caught.value)
    assert str(caught.value).splitlines() == [str(caught.value)]
    assert lm.calls == []


@pytest.mark.parametrize("content", [b"", b"no model at all", b"GGUF\x03\x00\x00\x00"])
def test_a_file_that_is_no_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        search(None, str(path))
    assert str(caught.value).splitlines() == [str(caught.value)]


class ChatLM(FakeLM):
    """Knows a chat template."""

    template = ""

    @property
    def chat_template(self) -> str:
        return self.template


def test_a_broken_chat_template_leaves_plain_prompts() -> None:
    task = numbered_task(120)
    lm = ChatLM(lambda prompt: golds_of(task).get(last_number(prompt) or ""))
    lm.template = "{% for %}"
    result = search(task, lm, "700 evaluations")
    assert not any(trial.candidate.template.startswith("chat") for trial in result.trials)


def test_a_chat_template_is_searched_too() -> None:
    task = numbered_task()
    golds = golds_of(task)
    lm = ChatLM(
        lambda prompt: golds.get(last_number(prompt) or ""),
        reliability=lambda prompt: 0.95 if "<assistant>" in prompt else 0.55,
    )
    lm.template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    result = search(task, lm)
    assert result.prompt.candidate.template.startswith("chat")
    assert result.prompt.render("x #1.").endswith("<assistant>")


def task_of_many_labels() -> ps.Task:
    """Twelve labels, each of which its texts name."""
    kinds = [f"kind{number % 12}" for number in range(480)]
    rows = [{"text": f"{kind} {kind} word{n % 7} #{n}.", "label": kind} for n, kind in enumerate(kinds)]
    return ps.Task(rows, inputs="text", output="label")


def test_where_neighbours_tell_many_labels_what_retrieves_is_looked_at_first() -> None:
    for of, first in ((task_of_many_labels(), "retrieved"), (numbered_task(480), "static")):
        result = search(of, budget="4000 evaluations")
        assert result.trials[0].candidate.mode == first


def test_a_small_budget_is_not_spent_on_a_dear_first_look() -> None:
    assert search(task_of_many_labels(), budget="9k tokens").cost.tokens <= 1.1 * 9_000
