"""What a person must know before trusting a result, in sentences.

Leaves out: showing them (:mod:`promptsearch.result`, :mod:`promptsearch.report`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from promptsearch.budget import Budget
from promptsearch.data.duplicates import DuplicateReport
from promptsearch.data.text import normalised
from promptsearch.lm.base import Engine
from promptsearch.lm.llamacpp.busy import QUIET_SHARE
from promptsearch.measurement import Difference, Measurement
from promptsearch.result import BASELINE_NAMES
from promptsearch.run.phases import WANTED_TEST
from promptsearch.task import Task

__all__ = ["encoder_notes", "measurement_notes", "processor_notes", "rows_notes", "setup_notes"]

_FEWEST_OF_A_LABEL = 3
_MANY_INDISTINCT = 0.2
_SHOWN_ROWS, _SHOWN_LABELS = 4, 5
_LONG_SETUP = 0.4  # of a time budget
_LESS_OF_IT = ("without_readout", "without_readout_alone", "single", "single_alone")
_UNREAD = ("empty answer", "not understood")
_WITHOUT_MODEL = {
    "label_vote": "The label vote of neighbours, which needs no model,",
    "prior_only": "The prior alone, which needs no model,",
}


def measurement_notes(
    test: Measurement,
    baselines: Mapping[str, Measurement],
    differences: Mapping[str, Difference],
    test_rows: int,
    stopped_by: str,
) -> tuple[str, ...]:
    """What a person must know before trusting the prompt."""
    notes = []
    without_model = [name for name in _WITHOUT_MODEL if name in baselines]
    if without_model:
        best = max(without_model, key=lambda name: baselines[name].value)
        said, value = _WITHOUT_MODEL[best], baselines[best]
        if value.value > test.value:
            notes.append(
                f"{said} did better on the test rows ({value} against {test}): a classifier without a language model "
                "may serve better here than a prompt."
            )
        elif differences[best].low <= 0:
            notes.append(
                f"{said} does about as well ({value}): what the prompt adds to it is within the noise of these test "
                "rows."
            )
    unread = sum(count for reason, count in baselines["zero_shot"].failures if reason in _UNREAD)
    if unread > 0.2 * test.n:
        notes.append(
            f"Zero-shot wrote nothing that could be read for {unread} of {test.n} rows: a part of the gain over it "
            "is that demonstrations show the form of an answer."
        )
    rivals = [name for name in baselines if name not in _WITHOUT_MODEL and name not in _LESS_OF_IT]
    best = max(rivals, key=lambda name: baselines[name].value)
    if baselines[best].value >= test.value:
        did = "did better" if baselines[best].value > test.value else "did as well"
        name = BASELINE_NAMES.get(best, best)
        notes.append(f"The baseline {name!r} {did} on the test rows ({baselines[best]}): treat the gain as none.")
    if "without_readout" in differences and differences["without_readout"].high < 0:
        notes.append(
            f"By its labels' own words the prompt did better ({baselines['without_readout']}): "
            "prompt.without_readout() answers so."
        )
    left_out = [name for name in ("random", "nearest") if name not in baselines]
    if stopped_by == "interrupt":
        notes.append(
            f"Stopped early: measured on {test.n} of {test_rows} test rows; of the baselines that ask the model only "
            "zero-shot was measured."
        )
        return tuple(notes)
    if left_out:
        shown = " and ".join(repr(BASELINE_NAMES[name]) for name in left_out)
        names = f"baseline{'s' * (len(left_out) > 1)} {shown}"
        notes.append(
            f"With the {names}, the budget would have paid for fewer than {min(WANTED_TEST, test_rows)} test rows: "
            f"{'they were' if len(left_out) > 1 else 'it was'} left out."
        )
    if test.n < test_rows:
        notes.append(f"The budget paid for {test.n} of {test_rows} test rows; a larger one narrows the interval.")
    return tuple(notes)


def rows_notes(task: Task, too_long: Sequence[int], removed: DuplicateReport) -> tuple[str, ...]:
    """Rows that are probably not what was meant, and those that were left out for it.

    Args:
        task: the task.
        too_long: rows that the model cannot be asked about, by number.
        removed: what its splits were made without.
    """
    notes = []
    if too_long:
        notes.append(
            f"Too long for the model: {_rows(task, too_long)}. A prompt has no answer to such items: among test rows "
            "they count as wrong, others were left out."
        )
    conflicting = _conflicting(task) if removed.conflicting else []
    if conflicting:
        notes.append(
            f"The same text with other outputs, and left out: {_rows(task, conflicting)}. Which of them is right?"
        )
    if task.united:
        give, count = ("row gives", "counts") if task.united == 1 else ("rows give", "count")
        notes.append(
            f"{task.united:,} {give} further answers to the same inputs as a row before, and {count} with it as one."
        )
    alike = _labels_alike(task.labels or ())
    if alike:
        notes.append(f"Labels that differ in case or spaces only: {alike}. The model takes them for different ones.")
    counts = Counter(example.output for example in task.examples)
    rare = {label: counts[label] for label in task.labels or () if 0 < counts[label] < _FEWEST_OF_A_LABEL}
    if rare:
        notes.append(f"Labels with hardly a row: {_counted(rare)}. Misspelt, or too rare to be learnt or measured.")
    taught = {task.examples[number].output for number in task.parts.train}
    untaught = {label: counts[label] for label in task.labels or () if counts[label] and label not in taught}
    if untaught:
        notes.append(
            f"Labels that only validation or test rows have: {_counted(untaught)}. No demonstration can show them: "
            "written in another way than in the data, or missing there."
        )
    if task.dropped:
        rows = "row" if task.dropped == 1 else "rows"
        notes.append(f"Left out {task.dropped:,} {rows} without an input or an output.")
    return tuple(notes)


def _counted(labels: Mapping[str, int]) -> str:
    """Some labels with their numbers of rows, and how many more."""
    shown = ", ".join(f"{label!r} ({count})" for label, count in list(labels.items())[:_SHOWN_LABELS])
    return shown + (f" and {len(labels) - _SHOWN_LABELS} more" if len(labels) > _SHOWN_LABELS else "")


def _rows(task: Task, numbers: Sequence[int]) -> str:
    """Some rows by name, and how many more."""
    shown = ", ".join(task.row_name(number) for number in numbers[:_SHOWN_ROWS])
    return shown + (f" and {len(numbers) - _SHOWN_ROWS:,} more" if len(numbers) > _SHOWN_ROWS else "")


def _conflicting(task: Task) -> list[int]:
    """Rows of the data whose text stands there with another output too."""
    outputs: dict[str, set[str]] = defaultdict(set)
    texts = {number: normalised(task.examples[number].text) for number in task.parts.train}
    for number, text in texts.items():
        outputs[text].add(task.examples[number].output)
    return [number for number, text in texts.items() if len(outputs[text]) > 1]


def _labels_alike(labels: Sequence[str]) -> str:
    groups: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        groups[" ".join(label.casefold().split())].append(repr(label))
    return ", ".join(" and ".join(group) for group in groups.values() if len(group) > 1)


def encoder_notes(indistinct: float) -> tuple[str, ...]:
    """That an encoder takes other texts for the same, as one does that does not know their language.

    Args:
        indistinct: share of the texts whose vector is that of another text.
    """
    if indistinct < _MANY_INDISTINCT:
        return ()
    return (
        f"The encoder cannot tell {indistinct:.0%} of the texts from others, as where it does not know their "
        "language: what is found by similarity tells little here. Give an encoder= that knows it, such as "
        "'paraphrase-multilingual-MiniLM-L12-v2'.",
    )


def setup_notes(limits: Budget, seconds: float) -> tuple[str, ...]:
    """That loading, embedding and measuring took a large part of a time budget."""
    if limits.seconds is None or seconds <= _LONG_SETUP * limits.seconds:
        return ()
    return (
        f"Setting up took {seconds:.0f} of {limits.seconds:.0f} seconds. What was measured or encoded for the first "
        "time is kept: a second search has that time.",
    )


def processor_notes(engine: Engine, limits: Budget) -> tuple[str, ...]:
    """What other work on the processor did to this run; nothing for engines that run elsewhere."""
    share = float(getattr(engine, "processor_share", 1.0))
    if share >= QUIET_SHARE:
        return ()
    slower = f"Another process uses the processor: the model got {share:.0%} of its threads' time, and ran slower"
    if limits.seconds is None:
        return (f"{slower}; what it found does not depend on that.",)
    return (f"{slower}. The time paid for less; end the other process, or give a budget in tokens.",)
