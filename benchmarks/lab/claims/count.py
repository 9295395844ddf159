"""Claim 6: the number of demonstrations."""

from __future__ import annotations

from benchmarks.lab.claim import Arm, Claim, Contrast, Setting
from benchmarks.lab.conditions import Labelled
from benchmarks.lab.effects import difference
from benchmarks.lab.words import Words

__all__ = ["claim"]


def claim(setting: Setting) -> Claim:
    """From none to many; each set is the beginning of the next."""
    most = setting.counts[-1]
    none, four, eight, many = (Labelled(count) for count in (0, 4, 8, most))
    return Claim(
        number=6,
        slug="count",
        title=Words("Number of demonstrations", "演示的数量"),
        says=Words(
            "Four demonstrations help much, from eight on more help little (Min et al. 2022).",
            "四个演示帮助很大，达到八个后再增加则帮助很小（Min et al. 2022）。",
        ),
        method=Words(
            f"0 to {most} demonstrations; each set is the beginning of the next larger one. Much is above 5 points, little below 5.",
            f"0 至 {most} 个演示；每一组都是更大一组的开头部分。高于 5 个百分点视为“很大”，低于 5 个百分点视为“很小”。",
        ),
        datasets=setting.datasets,
        axis=Words("demonstrations", "演示数量"),
        arms=tuple(Arm(Words(str(count), str(count)), Labelled(count), float(count)) for count in setting.counts),
        contrasts=(
            Contrast(Words("four over none", "4 个演示相对无演示"), difference(four, none), above=0.05),
            Contrast(Words(f"{most} over eight", f"{most} 个演示相对 8 个"), difference(many, eight), below=0.05),
            Contrast(Words("eight over four", "8 个演示相对 4 个"), difference(eight, four), below=0.05, main=False),
        ),
    )
