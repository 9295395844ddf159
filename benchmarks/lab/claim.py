"""What an experiment is: a claim, the conditions that test it, and the effects that decide.

Invariant: a claim is a plain value, made from a setting; it measures nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.lab.conditions import Condition, Thinking
from benchmarks.lab.effects import Effect
from benchmarks.lab.ways import WAYS
from benchmarks.lab.words import Words

__all__ = [
    "ALL",
    "SMALL",
    "TEXT",
    "Arm",
    "Claim",
    "Contrast",
    "Needed",
    "Setting",
]

TEXT = "plain text"
"""In the place of a dataset, where a model only reads."""
ALL = "all tasks"
"""In the place of a dataset, where all datasets are used in turn."""
SMALL = 8_000_000_000
"""Weights below which a model is small: Wei et al. (2022, 2023) see no gain from reasoning and no override there."""


@dataclass(frozen=True)
class Setting:
    """How large the experiments are, and on what they run.

    Attributes:
        models: names of all models, the first one first.
        parameters: number of weights of each.
        quantizations: names of the first model with quantized weights, see :class:`benchmarks.lab.reader.Models`.
        datasets: with labels.
        labels: how many labels each dataset has.
        tasks: with free answers.
        switched: datasets that one engine serves in turn.
        shots: demonstrations where their number is not what varies.
        counts: numbers of demonstrations to compare.
        seeds: draws of demonstrations.
        thinking_seeds: the same where answers are written.
        thinking_shots: demonstrations there.
        thinking_tokens: tokens of a piece of reasoning at most.
        orders: permutations to compare.
        order_seeds: sets of demonstrations that are permuted, and draws where losses are compared.
        order_datasets: datasets that both is done on.
        templates: plain templates to compare.
        channel_datasets: datasets where inputs are scored given labels.
    """

    models: tuple[str, ...]
    parameters: tuple[int, ...]
    quantizations: tuple[str, ...]
    datasets: tuple[str, ...]
    labels: Mapping[str, int]
    tasks: tuple[str, ...]
    switched: tuple[str, ...]
    shots: int
    counts: tuple[int, ...]
    seeds: int
    thinking_seeds: int
    thinking_shots: int
    thinking_tokens: int
    orders: int
    order_seeds: int
    order_datasets: tuple[str, ...]
    templates: tuple[str, ...]
    channel_datasets: tuple[str, ...]

    @property
    def main(self) -> str:
        """The first model."""
        return self.models[0]

    def with_labels(self, least: int, most: int | None = None) -> tuple[str, ...]:
        """The datasets that have so many labels."""
        return tuple(
            name
            for name in self.datasets
            if least <= self.labels[name] <= (self.labels[name] if most is None else most)
        )

    def seeds_of(self, condition: Condition) -> int:
        """Seeds that a condition is measured under."""
        if not condition.varies:
            return 1
        return self.thinking_seeds if isinstance(condition, Thinking) else self.seeds


@dataclass(frozen=True)
class Arm:
    """A condition that is shown.

    Attributes:
        name: as shown.
        condition: what is measured.
        x: its place on an axis of numbers; None where the arms are no numbers.
        datasets: datasets that it is measured on; None for all of the claim's, and with none it is left away.
    """

    name: Words
    condition: Condition
    x: float | None = None
    datasets: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Contrast:
    """An effect and what the claim says about it.

    Attributes:
        name: what it is, as shown.
        effect: what is estimated.
        above: the claim says that it is above this.
        below: the claim says that it is below this.
        main: whether the verdict depends on it; else it stands beside.
        ways: ways of scoring that it is estimated in; empty for all of the claim's.
        datasets: datasets that it is estimated on; None for all of the claim's, and with none it is left away.
        once: whether it is about all models and stands with the first one alone.
    """

    name: Words
    effect: Effect
    above: float | None = None
    below: float | None = None
    main: bool = True
    ways: tuple[str, ...] = ()
    datasets: tuple[str, ...] | None = None
    once: bool = False


@dataclass(frozen=True)
class Needed:
    """A condition to be measured on a dataset with a model."""

    model: str
    dataset: str
    condition: Condition


@dataclass(frozen=True)
class Claim:
    """One experiment.

    Attributes:
        number: its place in the chapter.
        slug: its name in files.
        title: in a few words.
        says: the claim.
        method: what was done.
        datasets: what it runs on.
        arms: what is shown.
        contrasts: what decides.
        ways: ways of scoring, see :mod:`benchmarks.lab.ways`.
        axis: name of the arms' numbers; None where they are none.
        by_model: whether it runs with every model and not only the first one.
        seeds: seeds that it looks at; 0 for all.
        also: what has to be measured besides the arms.
        over_models: models that are compared by their loss; empty where none are.
        timed: a condition whose seconds are shown instead of arms; None for arms.
        spread: whether the arms are shown by their spread under each seed instead of one by one.
        remark: what should be known about it besides; None for nothing.
    """

    number: int
    slug: str
    title: Words
    says: Words
    method: Words
    datasets: tuple[str, ...] = ()
    arms: tuple[Arm, ...] = ()
    contrasts: tuple[Contrast, ...] = ()
    ways: tuple[str, ...] = WAYS
    axis: Words | None = None
    by_model: bool = False
    seeds: int = 0
    also: tuple[Needed, ...] = ()
    over_models: tuple[str, ...] = ()
    timed: Condition | None = None
    spread: bool = False
    remark: Words | None = None

    def needed(self, setting: Setting) -> list[Needed]:
        """Everything that has to be measured, each once."""
        models = setting.models if self.by_model else (setting.main,)
        found = [
            Needed(model, dataset, arm.condition)
            for model in models
            for dataset in self.datasets
            for arm in self.arms
            if dataset in self.datasets_of(arm)
        ]
        return list(dict.fromkeys([*found, *self.also]))

    def datasets_of(self, part: Arm | Contrast) -> tuple[str, ...]:
        """Datasets that one of its arms or contrasts is about."""
        return self.datasets if part.datasets is None else part.datasets

    def seeds_of(self, condition: Condition, setting: Setting) -> int:
        """Seeds that it needs a condition under."""
        count = setting.seeds_of(condition)
        return min(count, self.seeds) if self.seeds else count
