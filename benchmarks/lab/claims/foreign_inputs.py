"""Claim 7: demonstrations from another distribution."""

from __future__ import annotations

from benchmarks.lab.claim import Arm, Claim, Contrast, Setting
from benchmarks.lab.conditions import Labelled
from benchmarks.lab.effects import difference
from benchmarks.lab.words import Words

__all__ = ["claim"]


def claim(setting: Setting) -> Claim:
    """Inputs of another dataset under the same labels."""
    none = Labelled()
    own, foreign = (Labelled(setting.shots, labels="random", inputs=inputs) for inputs in ("balanced", "foreign"))
    return Claim(
        number=7,
        slug="foreign-inputs",
        title=Words("Out-of-distribution demonstrations", "分布外演示"),
        says=Words(
            "Demonstrations whose inputs come from another distribution help less than those from the task's own (Min et al. "
            "2022).",
            "输入来自其他分布的演示，帮助不如来自任务自身分布的演示（Min et al. 2022）。",
        ),
        method=Words(
            f"{setting.shots} demonstrations whose inputs come from another dataset (the next one listed under Scale), of similar length, against own inputs. Labels of foreign inputs would mean nothing, so own and foreign inputs get the same random labels in the same places.",
            f"{setting.shots} 个演示，输入换成另一数据集（“规模”一行中的下一个）里长度相近的文本，与本任务的输入比较。外来输入谈不上正确标签，因此两种输入在相同位置使用相同的随机标签。",
        ),
        datasets=setting.datasets,
        arms=(
            Arm(Words("none", "无演示"), none),
            Arm(Words("foreign inputs, random labels", "外来输入，随机标签"), foreign),
            Arm(Words("own inputs, random labels", "同分布输入，随机标签"), own),
        ),
        contrasts=(
            Contrast(Words("own over foreign inputs", "同分布输入相对外来输入"), difference(own, foreign), above=0),
            Contrast(
                Words("foreign inputs over none", "外来输入相对无演示"),
                difference(foreign, none),
                below=0,
                main=False,
            ),
        ),
    )
