"""Rows that a prompt was found by: known again by hashes, in a file too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes import WordEncoder, result
from hypothesis import given
from hypothesis import strategies as st

import promptsearch as ps
from promptsearch.seen import SeenRows

texts = st.lists(st.text(max_size=20), max_size=20)


@given(texts, st.text(max_size=20))
def test_a_set_survives_as_text(given_texts: list[str], other: str) -> None:
    seen = SeenRows.of(given_texts)
    again = SeenRows.from_text(seen.to_text())
    assert again == seen
    assert all(text in again for text in given_texts)
    assert (other in again) == (other in seen)


def test_case_and_spaces_make_no_other_row() -> None:
    assert "THE  tap drips" in SeenRows.of(["the tap drips."])
    assert "the tap drops" not in SeenRows.of(["the tap drips."])


@pytest.mark.parametrize("text", ["?", "AAA=", "AAAA"])
def test_what_is_no_such_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        SeenRows.from_text(text)


def test_a_found_prompt_knows_the_rows_of_its_search(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """All that it may have read, and no test row; after saving and loading too."""
    found = result()
    task = found.prompt.task
    splits = task.split(0)
    model = found.prompt._opened.engine
    for prompt in (found.prompt, ps.load(found.prompt.save(tmp_path / "p.json"), model, encoder=WordEncoder())):
        searched = [task.examples[number] for number in (*splits.pool, *splits.search, *splits.confirm)][:12]
        caplog.clear()
        prompt.evaluate(searched)
        assert "12 of 12 rows are among those" in caplog.text
        caplog.clear()
        prompt.evaluate([task.examples[number] for number in splits.test[:10]])
        assert "among those" not in caplog.text


def test_a_file_that_keeps_no_rows_knows_its_examples(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    found = result(space=ps.Space(prior=False, modes=("static",)))
    path = found.prompt.save(tmp_path / "p.json")
    document = json.loads(path.read_text("utf-8"))
    del document["seen"]
    path.write_text(json.dumps(document), encoding="utf-8")
    prompt = ps.load(path, found.prompt._opened.engine)
    prompt.evaluate([{**shown.inputs, found.prompt.task.output: shown.output} for shown in prompt.demonstrations])
    assert f"{len(prompt.demonstrations)} of {len(prompt.demonstrations)} rows are among those" in caplog.text
