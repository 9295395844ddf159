"""Ensembles: several fixed prompts for each query, whose evidence one readout reads together."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import TellingLM, WordEncoder, golds_of, numbered_task
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import promptsearch as ps
from promptsearch.candidate import Candidate
from promptsearch.errors import ArtifactError, UserError
from promptsearch.evaluation import Answers, join_members
from promptsearch.lm.base import FloatArray
from promptsearch.probabilities import normalized
from promptsearch.readout import fit_readout, join_readouts, readout_from
from promptsearch.search.space import Lengths, SearchSpace

FIRST = Candidate("Say which.", "fields", demonstrations=(1, 2))
SECOND = Candidate("", "arrow", demonstrations=(3,), calibration="fitted")
TOGETHER = replace(FIRST, ensemble=(SECOND,))


def search(**options: Any) -> ps.Result:
    """A search in which each prompt errs by itself, so that several know more than one."""
    task = numbered_task(400)
    lm = TellingLM(golds_of(task), clarity=1.8, reliability=0.6)
    space = ps.Space(modes=("static",), ensemble=3)
    given: dict[str, Any] = {"encoder": WordEncoder(), "progress": False, "space": space}
    return ps.optimize(task, lm, "4000 evaluations", **{**given, **options})


@pytest.fixture(scope="module")
def found() -> ps.Result:
    return search()


# -- candidates and answers -------------------------------------------------------------------------------------


def test_members_are_the_prompts_by_themselves() -> None:
    assert TOGETHER.members == (FIRST, SECOND)
    assert FIRST.members == (FIRST,)
    assert TOGETHER.shown == (1, 2, 3)
    assert TOGETHER.reading.members == (FIRST.reading, SECOND.reading)


def test_a_candidate_survives_its_plain_values() -> None:
    plain = json.loads(json.dumps(TOGETHER.to_dict()))
    assert Candidate.from_dict(plain) == TOGETHER
    assert TOGETHER.key != FIRST.key
    assert "ensemble" not in FIRST.to_dict()


@pytest.mark.parametrize(
    "further",
    [
        {"mode": "retrieved", "count": 2},
        {"reasoning": "cue", "thought": "Think.", "thinking_tokens": 8},
        {"ensemble": [FIRST.to_dict()]},
        {"mode": "nonsense"},
    ],
)
def test_members_are_single_fixed_prompts(further: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError):
        Candidate.from_dict({**FIRST.to_dict(), "ensemble": [{**SECOND.to_dict(), **further}]})
    for broken in ("x", [3], {"a": 1}):
        with pytest.raises(ArtifactError):
            Candidate.from_dict({**FIRST.to_dict(), "ensemble": broken})


@given(
    arrays.arrays(np.float64, (5, 3), elements=st.floats(-30, 0) | st.just(-np.inf)),
    arrays.arrays(np.float64, (5, 3), elements=st.floats(-30, 0)),
)
def test_what_an_ensemble_says_is_the_mean_of_what_its_prompts_say(one: FloatArray, other: FloatArray) -> None:
    """Against item by item."""
    fits = np.array([True] * 4 + [False])
    parts = [Answers(logs, (), fits, following=logs[:, :2]) for logs in (one, other)]
    found = join_members(parts)
    for place in range(5):
        if not np.isfinite(one[place]).any():
            assert not np.isfinite(found.log_probabilities[place]).any()
            continue
        each = [logs[place] - np.log(np.exp(logs[place]).sum()) for logs in (one, other)]
        np.testing.assert_allclose(found.log_probabilities[place], (each[0] + each[1]) / 2, atol=1e-9)
    assert found.following is not None
    assert found.following.shape == (5, 2 * (2 + 3))
    assert found.fits.tolist() == fits.tolist()
    assert join_members([parts[0], replace(parts[1], following=None)]).following is None


def test_what_readouts_say_together_is_the_mean_of_what_each_says() -> None:
    rng = np.random.default_rng(0)
    golds = np.arange(60) % 3
    parts, fits = [], []
    for seed in range(2):
        following = rng.normal(-3, 1, (60, 5))
        following[:, 0] += golds
        parts.append(Answers(rng.normal(-2, 1, (60, 3)), (), np.ones(60, dtype=bool), following=following))
        order = rng.permutation(np.arange(20, 60))[: 30 + seed]  # of its own, after those that both were fitted on
        rows = np.concatenate([np.arange(20), order])
        fit = fit_readout(range(5), parts[-1].log_probabilities[rows], following[rows], golds[rows])
        assert fit is not None
        fits.append(fit)
    joined, joint = join_members(parts), join_readouts(fits, 20)
    assert joined.following is not None
    said = joint.readout.log_probabilities(joined.log_probabilities, joined.following)
    each = [
        fit.readout.log_probabilities(part.log_probabilities, part.following)
        for fit, part in zip(fits, parts, strict=True)
        if part.following is not None
    ]
    np.testing.assert_allclose(said, normalized(np.mean(each, axis=0)), atol=1e-6)
    np.testing.assert_allclose(joint.held_out, normalized(np.mean([fit.held_out[:20] for fit in fits], axis=0)))
    again = readout_from(json.loads(json.dumps(joint.readout.to_dict())), 3)
    np.testing.assert_allclose(again.log_probabilities(joined.log_probabilities, joined.following), said, atol=1e-6)
    with pytest.raises((ValueError, KeyError, TypeError)):
        readout_from({"readouts": joint.readout.to_dict()["readouts"][:1]}, 3)


def test_an_ensemble_costs_what_its_prompts_cost() -> None:
    lengths = Lengths({"": 0, "Say which.": 3}, dict.fromkeys(range(20), 25), 20.0, 30, 1000)
    space = SearchSpace(
        ps.Space(), templates=["fields", "arrow"], instructions=["Say which."], pool=range(20), labels=[0, 1] * 10,
        lengths=lengths,
    )  # fmt: skip
    for price in (space.prompt_tokens, space.query_tokens, space.opening_tokens):
        assert price(TOGETHER) == price(FIRST) + price(SECOND)
    assert space.price(TOGETHER, 7) == space.price(FIRST, 7) + space.price(SECOND, 7)


@pytest.mark.parametrize("count", [0, 9, 2.0, True, "3"])
def test_a_space_wants_a_number_of_prompts(count: Any) -> None:
    with pytest.raises(UserError, match="ensemble"):
        ps.Space(ensemble=count)


# -- in a search ------------------------------------------------------------------------------------------------


def test_a_search_puts_prompts_together_and_says_what_that_gains(found: ps.Result) -> None:
    members = found.prompt.candidate.members
    assert 2 <= len(members) <= 3
    assert len({member.reading for member in members}) == len(members)
    single = found.baselines["single_alone"]
    assert found.test_without_prior.value > single.value
    assert found.prompt.weighing is not None
    assert found.prompt.weighing.readout is not None
    assert found.prompt.weighing.readout.prompts == len(members)
    text = " ".join(str(found).split())
    assert "the first of its prompts" in text
    assert "read together with" in text
    assert "beside it" in repr(found.prompt)
    assert found.cost.evaluations <= 4000


def test_the_number_is_what_the_prompts_do_on_the_test_rows(found: ps.Result) -> None:
    """Measured again through the deployed prompt, at once and one by one."""
    task = numbered_task(400)
    rows = [task.examples[number] for number in task.split(0).test][: found.test.n]
    assert found.prompt.evaluate(rows) == found.test
    assert found.prompt.evaluate_twice(rows)[1] == found.test_without_prior
    right = [found.prompt(row.fields).output == row.value for row in rows[:40]]
    assert right == [
        said.output == row.value for said, row in zip(found.prompt.predict(rows[:40]), rows, strict=False)
    ]


def test_its_exact_texts_can_be_seen(found: ps.Result) -> None:
    texts = found.prompt.render_all("some text #1.")
    assert len(texts) == len(found.prompt.candidate.members)
    assert found.prompt.render("some text #1.") == texts[0]
    assert all("some text #1." in text for text in texts)
    shown = {dict(each.inputs)["text"] for each in found.prompt.demonstrations}
    assert all(any(text in prompt for prompt in texts) for text in shown)


def test_it_is_saved_and_loaded(found: ps.Result, tmp_path: Path) -> None:
    path = found.prompt.save(tmp_path / "p.json")
    lm = TellingLM(golds_of(numbered_task(400)), clarity=1.8, reliability=0.6)
    loaded = ps.load(path, lm, encoder=WordEncoder())
    texts = [f"some text #{number}." for number in range(20)]
    assert loaded.predict(texts) == found.prompt.predict(texts)
    document = json.loads(path.read_text("utf-8"))
    document["candidate"]["ensemble"] = document["candidate"]["ensemble"][:-1] or [FIRST.to_dict()] * 2
    path.write_text(json.dumps(document), "utf-8")
    with pytest.raises(ArtifactError, match="damaged"):
        ps.load(path, lm, encoder=WordEncoder())


def test_by_words_it_is_an_ensemble_too(found: ps.Result) -> None:
    prompt = found.prompt.without_readout()
    assert prompt.candidate.members[1:] == found.prompt.candidate.ensemble
    assert prompt("some text #1.").output in ("bad", "good")


def test_without_being_asked_for_there_is_none() -> None:
    result = search(space=ps.Space(modes=("static",)))
    assert result.prompt.candidate.ensemble == ()
    assert "single" not in result.baselines


def test_the_same_call_gives_the_same_ensemble(found: ps.Result, tmp_path: Path) -> None:
    again = search(run=tmp_path)
    assert again.prompt.candidate == found.prompt.candidate
    assert again.test == found.test
    resumed = search(run=tmp_path)
    assert resumed.to_dict()["test"] == found.to_dict()["test"]
    assert resumed.cost.tokens == found.cost.tokens
