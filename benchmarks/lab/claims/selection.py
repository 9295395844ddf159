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
    wrong, permuted = Labelled(shots, labels="share 0.0"), Labelled(shots, labels="permuted")
    alike, representative = Labelled(shots, inputs="alike"), Labelled(shots, inputs="representative")
    own_random, foreign = (Labelled(shots, labels="random", inputs=inputs) for inputs in ("balanced", "foreign"))
    diverse = setting.with_labels(2, shots // 4)  # four of each label, so that they can be alike
    one, half = Labelled(shots, inputs="one label"), Labelled(shots, inputs="half the labels")
    many_labels = setting.with_labels(3)
    counts = tuple(Labelled(count) for count in setting.counts if count)
    return Claim(
        number=2,
        slug="selection",
        title=Words("Selection", "演示的选择"),
        says=Words(
            "Good demonstrations are correct, diverse, map inputs to labels as the task does, come from its distribution "
            "and cover its label space; more of them are not always better.",
            "好的演示应当标签正确、内容多样、输入到标签的映射与任务一致、来自任务的分布，并覆盖其标签空间；数量并非越多越好。",
        ),
        method=Words(
            f"{shots} demonstrations; one property is changed at a time: all labels wrong, each label as often as before; labels permuted, each always replaced by the same other one (with two labels these are the same); near neighbours of one random example of each label, or the examples nearest to the centres of each label’s clusters (only where each label comes four times or more); inputs of another dataset, against own inputs with the same random labels; examples of one label only, or of half of them. The last part compares the numbers of demonstrations of experiment 6.",
            f"{shots} 个演示，每次只改变一个性质：标签全错，但各标签次数不变；标签置换，每个标签固定换成另一个（只有两个标签时二者相同）；每个标签取一个随机样本的近邻，或取最接近聚类中心的样本（仅限每个标签至少有四个演示的数据集）；换成另一数据集的输入，与带相同随机标签的本任务输入比较；只用一个标签或一半标签的样本。最后一部分比较实验 6 中的各种演示数量。",
        ),
        datasets=setting.datasets,
        arms=(
            Arm(Words("as usual", "常规"), usual),
            Arm(Words("all labels wrong", "标签全错"), wrong),
            Arm(Words("labels permuted", "标签置换"), permuted),
            Arm(Words("near neighbours", "近邻样本"), alike, datasets=diverse),
            Arm(Words("representative", "代表样本"), representative, datasets=diverse),
            Arm(Words("random labels", "随机标签"), own_random),
            Arm(Words("foreign inputs, random labels", "外来输入，随机标签"), foreign),
            Arm(Words("one label", "单一标签"), one),
            Arm(Words("half the labels", "一半标签"), half, datasets=many_labels),
            *(Arm(Words(f"{each.shots} shown", f"{each.shots} 个"), each) for each in counts),
        ),
        contrasts=(
            Contrast(Words("correct over wrong labels", "标签正确相对全错"), difference(usual, wrong), above=0),
            Contrast(
                Words("random draw over near neighbours", "随机抽取相对近邻样本"),
                difference(usual, alike),
                above=0,
                datasets=diverse,
            ),
            Contrast(
                Words("representative over random draw", "代表样本相对随机抽取"),
                difference(representative, usual),
                above=0,
                main=False,
                datasets=diverse,
            ),
            Contrast(Words("right over permuted mapping", "正确映射相对置换"), difference(usual, permuted), above=0),
            Contrast(
                Words("own over foreign distribution", "同分布相对外来分布"), difference(own_random, foreign), above=0
            ),
            Contrast(Words("all labels over one", "全部标签相对单一标签"), difference(usual, one), above=0),
            Contrast(
                Words("all labels over half of them", "全部标签相对一半标签"),
                difference(usual, half),
                above=0,
                main=False,
                datasets=many_labels,
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
