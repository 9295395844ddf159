"""Claim 7: demonstrations from another distribution."""

from __future__ import annotations

from benchmarks.lab.claim import Arm, Claim, Contrast, Setting
from benchmarks.lab.conditions import Labelled
from benchmarks.lab.effects import difference
from benchmarks.lab.words import Words

__all__ = ["claim"]


def claim(setting: Setting) -> Claim:
    """Inputs of another dataset under the same labels."""
    none, own = Labelled(), Labelled(setting.shots)
    lot, foreign = Labelled(setting.shots, labels="lot"), Labelled(setting.shots, inputs="foreign")
    return Claim(
        number=7,
        slug="foreign-inputs",
        title=Words("Out-of-distribution demonstrations", "分布外演示"),
        says=Words(
            "Demonstrations whose inputs come from elsewhere lose much of the gain, even below no demonstrations (Min et "
            "al. 2022).",
            "输入来自其他分布的演示会失去相当一部分增益，甚至不如无演示（Min et al. 2022）。",
        ),
        method=Words(
            f"{setting.shots} demonstrations whose inputs are another dataset's, of like lengths, with the labels in the "
            "same places. Such labels mean nothing, so that labels by lot on own inputs are the fair comparison.",
            f"{setting.shots} 个演示，输入换成另一数据集中长度相近的文本，标签仍在原来的位置。这样的标签没有意义，因此公平的对照是同分布输入配随机标签。",
        ),
        datasets=setting.datasets,
        arms=(
            Arm(Words("none", "无演示"), none),
            Arm(Words("foreign inputs", "外来输入"), foreign),
            Arm(Words("own inputs, labels by lot", "同分布输入，随机标签"), lot),
            Arm(Words("own inputs", "同分布输入"), own),
        ),
        contrasts=(
            Contrast(Words("own over foreign inputs", "同分布输入相对外来输入"), difference(own, foreign), above=0),
            Contrast(
                Words("own inputs with labels by lot over foreign inputs", "同分布输入（随机标签）相对外来输入"),
                difference(lot, foreign),
                above=0,
            ),
            Contrast(
                Words("foreign inputs over none", "外来输入相对无演示"),
                difference(foreign, none),
                below=0,
                main=False,
            ),
        ),
    )
