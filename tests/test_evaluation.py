"""Asking: nothing twice, in chunks that do not depend on how it was asked, and from the record where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from fakes import WatchedLM, golds_of, last_number, numbered_task
from hypothesis import given, settings
from hypothesis import strategies as st

import promptsearch as ps
from promptsearch.budget import Meter
from promptsearch.candidate import Candidate
from promptsearch.errors import ContextError
from promptsearch.evaluation import Asker, Evaluator
from promptsearch.lm.fake import ScriptedLM
from promptsearch.prompting import PromptBuilder
from promptsearch.store import RunStore
from promptsearch.template import Demonstration

POOL = range(100, 120)
SHOWN = Candidate("Say which.", "fields", demonstrations=(100, 103, 106))
NEAREST = Candidate("Say which.", "fields", mode="retrieved", count=2)
TASK = numbered_task(120)


ROUTED = Candidate("Say which.", "fields", mode="routed", routes=((100, 103), (101, 104), (102, 105, 108)))


class Neighbours:
    """Made-up matches and clusters."""

    def matches(self, reading: Candidate, items: Sequence[int]) -> list[tuple[int, ...]]:
        return [(100 + item % 20, 100 + (item + 1) % 20)[: reading.count] for item in items]

    def clusters(self, reading: Candidate, items: Sequence[int]) -> np.ndarray:
        return np.array([item % len(reading.routes) for item in items], dtype=np.int64)


@dataclass
class Desk:
    """An evaluator over a fake model."""

    lm: WatchedLM
    store: RunStore
    task: ps.Task = field(default_factory=lambda: TASK)
    meter: Meter = field(default_factory=Meter)

    def __post_init__(self) -> None:
        examples = self.task.examples
        demonstrations = {number: Demonstration(examples[number].fields, examples[number].output) for number in POOL}
        builder = PromptBuilder(self.lm, ["text"], "label", demonstrations, 3)
        self.asker = Asker(self.lm, builder, self.task.labels)
        self.evaluator = Evaluator(self.asker, examples, Neighbours(), self.store, self.meter)

    def ask(self, candidate: Candidate, items: Sequence[int]) -> list[list[float]]:
        return self.evaluator.answers(candidate, items).log_probabilities.tolist()


def model(**options: object) -> WatchedLM:
    return WatchedLM(golds_of(TASK), reliability=0.7, **options)  # type: ignore[arg-type]


def desk(path: Path | None = None, **options: object) -> Desk:
    return Desk(model(**options), RunStore(path, {"job": "x"}))


def test_a_routed_candidate_is_its_routes() -> None:
    """Each item gets what the static candidate of its route gets, which is asked only once for both."""
    at, apart = desk(), desk()
    found = at.evaluator.answers(ROUTED, range(50))
    for place, item in enumerate(range(50)):
        alone = apart.evaluator.answers(ROUTED.route(item % 3), [item])
        assert found.log_probabilities[place].tolist() == alone.log_probabilities[0].tolist()
    assert found.routes is not None
    assert found.routes.tolist() == [item % 3 for item in range(50)]
    calls = len(at.lm.calls)
    changed = replace(ROUTED, routes=(*ROUTED.routes[:2], (107,)))
    at.evaluator.answers(changed, range(50))
    assert sum(len(call) for call in at.lm.calls[calls:]) == len(range(2, 50, 3))
    assert at.evaluator.answers(ROUTED, ()).fits.shape == (0,)


@pytest.mark.parametrize("candidate", [SHOWN, NEAREST, Candidate(), ROUTED])
def test_asking_twice_costs_nothing(candidate: Candidate) -> None:
    at = desk()
    first = at.ask(candidate, range(80))
    calls, cost = len(at.lm.calls), replace(at.meter.cost)
    assert at.ask(candidate, range(80)) == first
    assert at.ask(replace(candidate, calibration="none"), range(10, 30)) == first[10:30]
    assert len(at.lm.calls) == calls
    assert (at.meter.cost.tokens, at.meter.cost.evaluations) == (cost.tokens, cost.evaluations)


def test_what_is_known_is_what_the_model_says() -> None:
    at = desk()
    built = [at.asker.builder.build(SHOWN, TASK.examples[item].fields) for item in range(70)]
    prompts = [each.prompt for each in built if each.prompt is not None]
    assert at.ask(SHOWN, range(70)) == model().score(prompts, [" bad", " good"]).tolist()


def test_calls_are_counted() -> None:
    at = desk()
    at.ask(SHOWN, range(70))
    assert [len(call) for call in at.lm.calls] == [64, 6]
    assert at.meter.cost.calls == 2
    assert at.meter.cost.evaluations == 70
    assert at.meter.cost.tokens == at.lm.tokens_decoded > 0


@settings(max_examples=25)
@given(st.lists(st.lists(st.integers(0, 99), max_size=70), max_size=4))
def test_asking_in_steps_is_asking_each_item_once(steps: list[list[int]]) -> None:
    at = desk()
    for step in steps:
        answers = at.ask(SHOWN, list(dict.fromkeys(step)))
        assert len(answers) == len(set(step))
    asked = [prompt for call in at.lm.calls for prompt in call]
    assert len(asked) == len(set(asked)) == len({item for step in steps for item in step})
    assert at.meter.cost.evaluations == len(asked)


def test_asking_in_two_steps_is_asking_at_once() -> None:
    """Where the steps end with a chunk, the calls are the very same."""
    stepwise, at_once = desk(), desk()
    stepwise.ask(SHOWN, range(64))
    assert stepwise.ask(SHOWN, range(100)) == at_once.ask(SHOWN, range(100))
    assert stepwise.lm.calls == at_once.lm.calls


@pytest.mark.parametrize("stop_after", [1, 2, 3, 5])
def test_a_resumed_run_asks_for_what_is_missing_only(tmp_path: Path, stop_after: int) -> None:
    def work(at: Desk) -> list[list[float]]:
        found = at.ask(SHOWN, range(70)) + at.ask(NEAREST, range(24)) + at.ask(NEAREST, range(48))
        return found + at.evaluator.content_free(SHOWN).tolist()

    undisturbed = desk()
    expected = work(undisturbed)
    stopped = desk(tmp_path, interrupt_at=stop_after)
    with pytest.raises(KeyboardInterrupt):
        work(stopped)
    stopped.store.close()
    resumed = desk(tmp_path)
    assert work(resumed) == expected
    assert stopped.lm.calls[:-1] + resumed.lm.calls == undisturbed.lm.calls
    assert resumed.meter.cost.tokens == undisturbed.meter.cost.tokens
    assert resumed.meter.cost.evaluations == undisturbed.meter.cost.evaluations
    assert resumed.meter.cost.calls == undisturbed.meter.cost.calls
    resumed.store.close()
    again = desk(tmp_path)
    assert work(again) == expected
    assert again.lm.calls == []
    again.store.close()


def test_retrieved_examples_are_each_items_own() -> None:
    at = desk()
    at.ask(NEAREST, [4])
    prompt = at.lm.calls[0][0]
    assert "#104." in prompt
    assert prompt.index("#105.") < prompt.index("#104.") < prompt.index("#4.")


def test_inputs_without_content() -> None:
    at = desk()
    logs = at.evaluator.content_free(SHOWN)
    assert logs.shape == (3, 2)
    assert np.isfinite(logs).all()
    assert at.evaluator.content_free(replace(SHOWN, calibration="contextual")).tolist() == logs.tolist()
    assert len(at.lm.calls) == 1
    assert all("#100." in prompt for prompt in at.lm.calls[0])


def test_what_does_not_fit_is_not_asked() -> None:
    at = desk(context_tokens=60)
    answers = at.evaluator.answers(replace(SHOWN, demonstrations=tuple(POOL)), range(5))
    assert not answers.fits.any()
    assert np.isneginf(answers.log_probabilities).all()
    assert at.lm.calls == []
    assert at.evaluator.answers(SHOWN, range(5)).fits.all()


def test_some_retrieved_examples_are_left_out_where_not_all_fit() -> None:
    at = desk(context_tokens=34)
    answers = at.evaluator.answers(NEAREST, [4])
    assert answers.fits.all()
    assert "#104." in at.lm.calls[0][0]
    assert "#105." not in at.lm.calls[0][0]


def test_answers_that_name_no_label_are_kept_as_such(tmp_path: Path) -> None:
    lm = ScriptedLM(lambda prompt: "good" if "#1." in prompt else "no idea")
    store = RunStore(tmp_path, {"job": "x"})
    at = Desk(lm, store)  # type: ignore[arg-type]
    expected = [[-np.inf, -np.inf], [-np.inf, 0.0]]
    assert at.ask(Candidate(), [0, 1]) == expected
    store.close()
    again = Desk(lm, RunStore(tmp_path, {"job": "x"}))  # type: ignore[arg-type]
    assert again.ask(Candidate(), [0, 1]) == expected
    assert again.evaluator.answers(Candidate(), [0, 1]).fits.all()
    assert len(lm.prompts) == 2
    again.store.close()


class Refusing(WatchedLM):
    """Refuses a call in which a prompt asks about one of some rows."""

    refused: frozenset[str] = frozenset()

    def _watch(self, prompts: Sequence[str]) -> None:
        if any(last_number(prompt) in self.refused for prompt in prompts):
            raise ContextError("a prompt is too long; shorten it")
        super()._watch(prompts)


REASONING = Candidate("Say which.", "fields", reasoning="cue", thought="Let's think.", thinking_tokens=20)


@settings(max_examples=25)
@given(
    st.sets(st.integers(1, 79)),
    st.sampled_from([SHOWN, NEAREST, REASONING, replace(NEAREST, reranker="mdl"), replace(REASONING, samples=3)]),
)
def test_what_only_the_model_knows_to_be_too_long_is_counted_and_the_rest_is_asked(
    refused: set[int], candidate: Candidate
) -> None:
    of = Refusing(golds_of(TASK), reliability=0.7)
    of.refused = frozenset(map(str, refused))
    at, plain = Desk(of, RunStore(None, {"job": "x"})), desk()
    found, expected = at.evaluator.answers(candidate, range(80)), plain.evaluator.answers(candidate, range(80))
    assert found.fits.tolist() == [number not in refused for number in range(80)]
    assert found.log_probabilities[found.fits].tolist() == expected.log_probabilities[found.fits].tolist()
    assert np.isneginf(found.log_probabilities[~found.fits]).all()


def test_the_first_refusal_of_a_model_is_told(caplog: pytest.LogCaptureFixture) -> None:
    of = Refusing(golds_of(TASK))
    of.refused = frozenset({"3", "5"})
    Desk(of, RunStore(None, {"job": "x"})).ask(SHOWN, range(80))
    assert [record.getMessage() for record in caplog.records] == [
        "a prompt is too long; shorten it. Such items count as too long"
    ]


def test_a_model_that_takes_no_prompt_at_all_is_an_error() -> None:
    """What refuses everything from the first on is no matter of items; later on it may be one of a long prompt."""
    of = Refusing(golds_of(TASK))
    of.refused = frozenset(map(str, range(80)))
    at = Desk(of, RunStore(None, {"job": "x"}))
    with pytest.raises(ContextError, match="shorten it"):
        at.evaluator.answers(SHOWN, range(80))
    assert not at.evaluator.answers(SHOWN, [7]).fits.any()
    of.refused = frozenset()
    assert at.evaluator.answers(SHOWN, [1, 2]).fits.all()
    of.refused = frozenset(map(str, range(80)))
    assert not at.evaluator.answers(SHOWN, range(40, 44)).fits.any()


def test_free_text_is_generated_and_stripped() -> None:
    task = ps.Task(
        [{"text": f"t #{n}.", "label": f"answer {n}"} for n in range(120)],
        inputs="text",
        output="label",
        labels=False,
    )
    lm = ScriptedLM(lambda prompt: "  Paris \nText: more")
    at = Desk(lm, RunStore(None, {"job": "x"}), task)  # type: ignore[arg-type]
    answers = at.evaluator.answers(SHOWN, [1, 2])
    assert answers.texts == ("Paris", "Paris")
    assert answers.log_probabilities.shape == (2, 0)
    assert answers.take(np.array([1])).texts == ("Paris",)
