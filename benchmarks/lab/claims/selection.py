"""Claim 2: what good demonstrations have, one thing at a time."""

from __future__ import annotations

from benchmarks.lab.claim import Arm, Claim, Contrast, Setting
from benchmarks.lab.conditions import Labelled
from benchmarks.lab.effects import Best, difference
from benchmarks.lab.words import Words

__all__ = ["claim"]


def claim(setting: Setting) -> Claim:
    """Correctness, diversity, mapping, distribution, label space, and number."""
    shots = setting.shots
    usual = Labelled(shots)
    wrong, moved = Labelled(shots, labels="share 0.0"), Labelled(shots, labels="moved")
    alike, spread = Labelled(shots, inputs="alike"), Labelled(shots, inputs="spread")
    foreign = Labelled(shots, inputs="foreign")
    one, half = Labelled(shots, inputs="one label"), Labelled(shots, inputs="half the labels")
    counts = tuple(Labelled(count) for count in setting.counts if count)
    return Claim(
        number=2,
        slug="selection",
        title=Words("Selection", "演示的选择"),
        says=Words(
            "Good demonstrations are correct, diverse, map inputs to labels as the task does, come from its distribution "
            "and cover its label space evenly; more of them are not always better.",
            "好的演示应当标签正确、内容多样、输入到标签的映射与任务一致、来自任务的分布，并均衡覆盖其标签空间；数量并非越多越好。",
        ),
        method=Words(
            f"{shots} demonstrations, one property changed at a time, the others held: all labels wrong; each label "
            "always replaced by the same other one; near neighbours of each other, or representatives, within each "
            "label; inputs of another dataset; one label or half of them only. The numbers are those of experiment 6.",
            f"{shots} 个演示，每次只改变一项性质，其余保持不变：标签全错；每个标签固定换成另一个标签；在同一标签内取互为近邻的样本，或取代表性样本；"
            "换成另一数据集的输入；只含一个标签或一半的标签。各种数量的结果取自实验 6。",
        ),
        datasets=setting.datasets,
        arms=(
            Arm(Words("as usual", "常规"), usual),
            Arm(Words("all labels wrong", "标签全错"), wrong),
            Arm(Words("labels exchanged", "标签置换"), moved),
            Arm(Words("alike", "彼此相似"), alike),
            Arm(Words("spread", "分散"), spread),
            Arm(Words("foreign inputs", "外来输入"), foreign),
            Arm(Words("one label", "单一标签"), one),
            Arm(Words("half the labels", "一半标签"), half),
            *(Arm(Words(f"{each.shots} shown", f"{each.shots} 个演示"), each) for each in counts),
        ),
        contrasts=(
            Contrast(Words("correct over wrong labels", "标签正确相对标签全错"), difference(usual, wrong), above=0),
            Contrast(Words("spread over alike", "分散相对彼此相似"), difference(spread, alike), above=0),
            Contrast(Words("right over exchanged mapping", "原映射相对置换映射"), difference(usual, moved), above=0),
            Contrast(
                Words("own over foreign distribution", "同分布相对外来分布"), difference(usual, foreign), above=0
            ),
            Contrast(Words("all labels over one", "全部标签相对单一标签"), difference(usual, one), above=0),
            Contrast(
                Words("all labels over half of them", "全部标签相对一半标签"),
                difference(usual, half),
                above=0,
                main=False,
            ),
            Contrast(
                Words(
                    "best number over the largest, chosen on other items",
                    "最佳数量相对最大数量（在另一半样本上选出）",
                ),
                Best(counts, counts[-1]),
                above=0,
            ),
        ),
    )
