"""What the model is shown and how it answers: each condition is a frozen value with a name that cells are kept by.

Invariant: equal names mean equal prompts, for the same dataset, seed and settings.
Leaves out: how a condition is measured.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

__all__ = ["Condition", "Labelled", "Passage", "Surrogate", "Thinking", "Turns"]


class Condition:
    """Base of all conditions: dataclasses whose fields make the name."""

    @property
    def name(self) -> str:
        """Kind and the fields that are not as usual, such as ``labelled shots=8 labels=lot``."""
        changed = (
            f"{each.name}={getattr(self, each.name)}"
            for each in fields(self)  # type: ignore[arg-type]
            if getattr(self, each.name) != each.default
        )
        return " ".join([type(self).__name__.lower(), *changed])

    @property
    def varies(self) -> bool:
        """Whether seeds differ."""
        return True


@dataclass(frozen=True)
class Labelled(Condition):
    """Labels are scored after demonstrations.

    Attributes:
        shots: demonstrations.
        labels: what labels they have: ``"gold"``; ``"random"``, each drawn from all; ``"share 0.25"``, so many right
            and the others wrong, each label as often as before where that can be; ``"permuted"``, each label always
            replaced by the same other one.
        inputs: whose inputs they have: ``"balanced"``, drawn with equal labels; ``"foreign"``, another dataset's of
            like length; ``"alike"``, near neighbours of one of each label; ``"representative"``, the centres of each
            label's clusters; ``"one label"`` and ``"half the labels"``, drawn from these alone.
        parts: ``"pairs"``, ``"inputs"`` alone or ``"labels"`` alone.
        words: whether all labels are replaced by random words, in the demonstrations and as answers.
        described: whether the task's description stands first.
        template: name of a plain template.
        order: number of a permutation, of which no two are alike; 0 is as drawn.
        channel: whether the input is scored given each label, instead of the label given the input.
    """

    shots: int = 0
    labels: str = "gold"
    inputs: str = "balanced"
    parts: str = "pairs"
    words: bool = False
    described: bool = False
    template: str = "label"
    order: int = 0
    channel: bool = False

    @property
    def varies(self) -> bool:
        """Whether anything is drawn."""
        return self.shots > 0 or self.words


@dataclass(frozen=True)
class Thinking(Condition):
    """Free answers, with or without reasoning before them.

    Attributes:
        reasoning: ``"none"``, ``"cue"`` ("Let's think step by step.") or ``"shown"`` in the demonstrations.
        shots: demonstrations.
    """

    reasoning: str = "none"
    shots: int = 0

    @property
    def varies(self) -> bool:
        """Whether demonstrations are drawn."""
        return self.shots > 0


@dataclass(frozen=True)
class Surrogate(Condition):
    """Answers of the linear-attention dual form on embeddings, without a model.

    Attributes:
        shots: demonstrations.
        control: whether the demonstrations are others than those of :class:`Labelled` under the same seed.
    """

    shots: int = 8
    control: bool = False


@dataclass(frozen=True)
class Passage(Condition):
    """Plain text that the model reads: its loss."""

    @property
    def varies(self) -> bool:
        """Nothing is drawn."""
        return False


@dataclass(frozen=True)
class Turns(Condition):
    """Several tasks in turn on one engine, beside small classifiers that are trained anew for each.

    Attributes:
        shots: demonstrations of each task.
        rows: labelled rows that a classifier is trained on besides.
    """

    shots: int = 8
    rows: int = 100
