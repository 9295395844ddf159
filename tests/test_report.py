"""The table and the page."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from fakes import SCRIPT, result

import promptsearch as ps
from promptsearch.measurement import measure, paired_difference
from promptsearch.metrics import METRICS
from promptsearch.report import text_table, write_report
from promptsearch.result import BASELINE_NAMES
from promptsearch.run.notes import measurement_notes
from promptsearch.search.insights import ReasoningEffect
from promptsearch.search.order import order_effect

VOID = {"meta", "br", "hr", "img", "input", "link"}


@pytest.fixture(scope="module")
def found() -> ps.Result:
    return result()


class Page(HTMLParser):
    """Every tag that opens, and whether all close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not any(name.startswith("on") or name in ("src", "href") for name, _ in attrs)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_table_is_plain_and_narrow(found: ps.Result) -> None:
    table = str(found)
    assert table.isascii()
    assert all(line.isprintable() and len(line) <= 100 for line in table.split("\n"))


def test_table_shows_what_was_measured(found: ps.Result) -> None:
    lines = str(found).split("\n")
    assert f"{100 * found.test.value:.1f} %" in lines[0]
    first = next(line for line in lines if line.startswith("found by the search"))
    assert f"[{100 * found.test.low:.1f}, {100 * found.test.high:.1f}]" in first
    for name, measured in found.baselines.items():
        line = next(line for line in lines if line.startswith(BASELINE_NAMES[name] + " "))
        assert f"{100 * measured.value:.1f} %" in line
        assert f"{100 * found.against[name].value:+.1f}" in line
    assert any(line.startswith("improvement") and "p = " in line for line in lines)
    assert any(line.startswith("validation") and "not a result" in line for line in lines)
    assert any(line.startswith("cost") for line in lines)
    assert any("the search stopped when its share of the budget in" in " ".join(line.split()) for line in lines)


def test_table_and_page_tell_what_the_winner_was_chosen_over(found: ps.Result, tmp_path: Path) -> None:
    others = found.insights.runners_up
    assert others
    assert [each.lead.value for each in others] == sorted(each.lead.value for each in others)
    table = " ".join(str(found).split())
    page = " ".join(Page(found.report(tmp_path / "page.html").read_text("utf-8")).texts)
    for other in others:
        place = next(trial.number for trial in found.trials if trial.candidate == other.candidate)
        lead = f"{100 * other.lead.value:+.1f} points [{100 * other.lead.low:+.1f}, {100 * other.lead.high:+.1f}]"
        assert f"{lead} over #{place}, {other.candidate.mode}" in table
        assert f"{lead} over #{place}, {other.candidate.mode}" in page
    winner = found.prompt.candidate.reading
    assert f"chosen #{next(t.number for t in found.trials if t.candidate.reading == winner)}: " in table
    kept = found.to_dict()["insights"]["runners_up"]
    assert [each["lead"]["value"] for each in kept] == [other.lead.value for other in others]
    alone = replace(found, insights=replace(found.insights, runners_up=()))
    assert "\nchosen" not in str(alone)


def test_table_shows_the_prompt_alone_wherever_it_has_a_prior(found: ps.Result) -> None:
    same = replace(found, test_without_prior=found.test)
    other = replace(found, test_without_prior=replace(found.test, value=0.123))
    without = replace(found, prompt=found.prompt.without_prior(), test_without_prior=found.test)
    assert "the prompt alone" in text_table(same)
    assert "12.3 %" in text_table(other)
    assert "the prompt alone" not in text_table(without)


def test_a_baseline_alone_is_shown_where_a_prior_is_in_use_or_it_differs(found: ps.Result) -> None:
    def rows_alone(searched: ps.Result, single: float, alone: float) -> int:
        values = {"single": replace(found.test, value=single), "single_alone": replace(found.test, value=alone)}
        lines = text_table(replace(searched, baselines={**found.baselines, **values})).split("\n")
        return sum(line.startswith("  the prompt alone") for line in lines)

    without = replace(found, prompt=found.prompt.without_prior())
    assert found.prompt.parts.uses_prior
    assert rows_alone(found, 0.5, 0.5) == rows_alone(found, 0.5, 0.4) == 2  # the winner's own is the other
    assert rows_alone(without, 0.5, 0.4) == 1
    assert rows_alone(without, 0.5, 0.5) == 0


def test_table_and_page_say_that_prompts_race_by_accuracy_where_that_is_not_the_metric(
    found: ps.Result, tmp_path: Path
) -> None:
    drawn = np.random.default_rng(0).random((4, 30)) < 0.7
    effect = order_effect(drawn.astype(float), np.random.default_rng(0))
    gain = ReasoningEffect(2, paired_difference(drawn[0], drawn[1]), 90.0, 30.0)
    insights = replace(found.insights, order=effect, winner_order=0.9, reasoning=gain)
    plain = replace(found, insights=insights)

    class AlikeTask:
        metric = METRICS["macro_f1"]

        def __getattr__(self, name: str) -> object:
            return getattr(found.prompt.task, name)

    parts = replace(found.prompt.parts, task=AlikeTask())  # type: ignore[arg-type]
    alike = replace(plain, prompt=ps.Prompt.from_parts(parts, found.prompt.opened))
    shown, other = (" ".join(str(each).split()) for each in (alike, plain))
    assert f"(accuracy on {insights.front_items} search rows, too high for the best)" in shown
    assert "points (sd), accuracy on 30 search rows; the winner's own order" in shown
    assert "in accuracy, the best of 2 prompts that reason" in shown
    assert "points (sd), on 30 search rows; the winner's own order" in other
    assert "accuracy on" not in other
    page, other = (
        " ".join(Page(each.report(tmp_path / "r.html").read_text("utf-8")).texts) for each in (alike, plain)
    )
    assert "What was tried (accuracy)" in page
    assert "Their values are accuracy" in page
    assert "What was tried (accuracy)" not in other
    assert "Their values are" not in other


def test_table_wraps_notes_and_counts_failures(found: ps.Result) -> None:
    note = "Beware of this " * 20
    failed = replace(found.test, failures=(("too long", 2), ("not understood", 1)))
    table = text_table(replace(found, notes=(note,), test=failed))
    assert all(len(line) <= 100 for line in table.split("\n"))
    assert "! Beware of this" in table
    assert "3 test rows without an answer count as wrong (too long: 2, not understood: 1)" in table


def test_page_escapes_and_runs_nothing(found: ps.Result, tmp_path: Path) -> None:
    noted = replace(found, notes=(f"note {SCRIPT}",), facts={**found.facts, "task": f"task {SCRIPT}"})
    path = write_report(noted, tmp_path / "new" / "report.html")
    assert path == tmp_path / "new" / "report.html"
    text = path.read_text("utf-8")
    page = Page(text)
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert "<script" not in text
    assert text.count("&lt;script&gt;") > 5
    assert not re.search(r"https?://", text)
    assert "default-src 'none'" in text


def test_page_shows_the_exact_prompt(found: ps.Result, tmp_path: Path) -> None:
    page = Page(found.report(tmp_path / "report.html").read_text("utf-8"))
    pool = found.prompt.parts.examples
    query = next(each for each in reversed(found.prompt.task.examples) if each.id not in pool)
    assert found.prompt.render(query.fields) in page.texts
    assert page.tags.count("circle") >= len(found.trials)


def test_page_of_a_prompt_that_cannot_be_rendered(found: ps.Result, tmp_path: Path) -> None:
    class Broken:
        def __getattr__(self, name: str) -> object:
            return getattr(found.prompt, name)

        def render(self, item: object) -> str:
            raise ps.UserError("the item does not fit")

    broken = replace(found, prompt=Broken())  # type: ignore[arg-type]
    assert "It cannot be shown: the item does not fit" in write_report(broken, tmp_path / "r.html").read_text("utf-8")


def test_page_without_trials(found: ps.Result, tmp_path: Path) -> None:
    from promptsearch.result import Trials

    page = Page(write_report(replace(found, trials=Trials()), tmp_path / "r.html").read_text("utf-8"))
    assert "circle" not in page.tags


def test_notes_tell_of_ties_and_of_baselines_left_out() -> None:
    right, wrong = measure([1.0] * 36), measure([0.0] * 36)
    baselines = {"zero_shot": right, "random_calibrated": wrong}
    tie, left_out = measurement_notes(right, baselines, {}, 36, "tokens")
    assert tie.startswith("The baseline 'zero-shot' did as well on the test rows (100.0 %")
    assert left_out == (
        "With the baselines 'random demonstrations' and 'nearest demonstrations', the budget would have paid for "
        "fewer than 36 test rows: they were left out."
    )
    (better, fewer, rows) = measurement_notes(wrong, {**baselines, "random": wrong}, {}, 201, "tokens")
    assert "'zero-shot' did better" in better
    assert (
        "'nearest demonstrations', the budget would have paid for fewer than 50 test rows: it was left out" in fewer
    )
    assert rows.startswith("The budget paid for 36 of 201 test rows")
    (early,) = measurement_notes(right, {"zero_shot": wrong}, {}, 40, "interrupt")
    assert early.startswith("Stopped early: measured on 36 of 40 test rows; of the baselines")
