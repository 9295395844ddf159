"""Claim 9: inputs alone, labels alone, pairs."""

from __future__ import annotations

from benchmarks.lab.claim import Arm, Claim, Contrast, Setting
from benchmarks.lab.conditions import Labelled
from benchmarks.lab.effects import difference
from benchmarks.lab.words import Words

__all__ = ["claim"]


def claim(setting: Setting) -> Claim:
    """What is left of demonstrations without one of their halves."""
    none, pairs = Labelled(), Labelled(setting.shots)
    inputs, labels = (Labelled(setting.shots, parts=part) for part in ("inputs", "labels"))
    foreign = Labelled(setting.shots, inputs="foreign", labels="random")
    return Claim(
        number=9,
        slug="format",
        title=Words("Format: inputs, labels, pairs", "格式：只有输入、只有标签、成对"),
        says=Words(
            "Demonstrations must be pairs: inputs alone or labels alone do less, and less even than pairs of foreign inputs with "
            "random labels (Min et al. 2022).",
            "演示必须由输入和标签成对组成：只有输入或只有标签的作用更小，甚至不如外来输入配随机标签的成对演示（Min et al. 2022）。",
        ),
        method=Words(
            f"The same {setting.shots} demonstrations as inputs alone, as gold labels alone, and as whole pairs; foreign pairs are those of experiment 7.",
            f"同样的 {setting.shots} 个演示：只留输入、只留正确标签、完整成对；外来成对的演示即实验 7 中的演示。",
        ),
        datasets=setting.datasets,
        arms=(
            Arm(Words("none", "无演示"), none),
            Arm(Words("inputs alone", "只有输入"), inputs),
            Arm(Words("labels alone", "只有标签"), labels),
            Arm(Words("foreign inputs with random labels", "外来输入配随机标签"), foreign),
            Arm(Words("pairs", "成对"), pairs),
        ),
        contrasts=(
            Contrast(Words("pairs over inputs alone", "成对相对只有输入"), difference(pairs, inputs), above=0),
            Contrast(Words("pairs over labels alone", "成对相对只有标签"), difference(pairs, labels), above=0),
            Contrast(
                Words("foreign pairs over inputs alone", "外来成对相对只有输入"), difference(foreign, inputs), above=0
            ),
            Contrast(
                Words("foreign pairs over labels alone", "外来成对相对只有标签"), difference(foreign, labels), above=0
            ),
            Contrast(
                Words("inputs alone over none", "只有输入相对无演示"),
                difference(inputs, none),
                below=0.05,
                main=False,
            ),
            Contrast(
                Words("labels alone over none", "只有标签相对无演示"),
                difference(labels, none),
                below=0.05,
                main=False,
            ),
        ),
    )
