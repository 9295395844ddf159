"""What claims about the size of models say of one model, and of several."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.lab.claim import SMALL, Contrast, Setting
from benchmarks.lab.effects import BySize, Effect
from benchmarks.lab.words import Words

__all__ = ["by_size", "one_model", "sizes_tested"]


def sizes_tested(setting: Setting) -> Words:
    """What decides, for a claim's method."""
    if len(setting.models) > 1:
        return Words(
            "The verdict is the slope over the models' sizes; the interval does not answer for other models.",
            "结论由随模型规模变化的斜率得出；区间不涉及其他模型。",
        )
    return Words(
        "With one model, only what the claim says of its size is tested (small: below 8 billion weights).",
        "只有一个模型时，仅检验论断对该规模的说法（小模型：少于 80 亿权重）。",
    )


def one_model(setting: Setting) -> Words | None:
    """What should be known where there is one model; None where there are several."""
    if len(setting.models) > 1:
        return None
    return Words(
        "Only one model was measured: nothing is said here about the influence of size.",
        "只测量了一个模型：这里不能说明规模的影响。",
    )


def by_size(
    setting: Setting,
    over_sizes: Words,
    each: Words,
    effect: Effect,
    *,
    small_above: float | None,
    small_below: float | None,
) -> Iterator[Contrast]:
    """The effect's slope over several models, which decides then, and the effect in each of them.

    Args:
        setting: says which models there are.
        over_sizes: name of the slope.
        each: name of the effect.
        effect: what is measured of each model.
        small_above: what the claim says of small models, who lie above this; large ones then lie below.
        small_below: the same where small ones lie below this, and large ones above 0.
    """
    several = len(setting.models) > 1
    if several:
        slope = BySize(effect, dict(zip(setting.models, setting.parameters, strict=True)))
        is_falling = small_above is not None
        yield Contrast(over_sizes, slope, above=None if is_falling else 0, below=0 if is_falling else None, once=True)
    is_small = setting.parameters[0] < SMALL
    yield Contrast(
        each,
        effect,
        above=small_above if is_small else (0 if small_below is not None else None),
        below=small_below if is_small else small_above,
        main=not several,
    )
