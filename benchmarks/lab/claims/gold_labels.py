"""Claim 4: gold labels, random labels, no demonstrations (Min et al. 2022)."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.lab.claim import Arm, Claim, Contrast, Setting
from benchmarks.lab.conditions import Labelled
from benchmarks.lab.effects import difference
from benchmarks.lab.words import Words

__all__ = ["claim"]


def claim(setting: Setting) -> Claim:
    """Direct and channel scoring."""
    none, gold = Labelled(), Labelled(setting.shots)
    random = Labelled(setting.shots, labels="random")
    none_channel, gold_channel, random_channel = (replace(each, channel=True) for each in (none, gold, random))
    channel = setting.channel_datasets
    return Claim(
        number=4,
        slug="gold-labels",
        title=Words("Gold labels, random labels, no demonstrations", "正确标签、随机标签、无演示"),
        says=Words(
            "Demonstrations help even when their labels are random, and gold labels add little to random ones (Min et al. 2022).",
            "即使标签是随机的，演示仍有帮助；正确标签比随机标签只略好一点（Min et al. 2022）。",
        ),
        method=Words(
            f"{setting.shots} demonstrations; the label is scored given the input (direct), and on {', '.join(channel)} the input given each label (channel). A random label is drawn from all labels, so that some are right by chance (half of them where there are two). Little is below 5 points.",
            f"{setting.shots} 个演示；给定输入对标签打分（直接打分），并在 {'、'.join(channel)} 上给定各标签对输入打分（信道打分）。随机标签从全部标签中抽取，因此有一些碰巧正确（两类时约一半）。低于 5 个百分点视为“略好”。",
        ),
        datasets=setting.datasets,
        arms=(
            Arm(Words("none", "无演示"), none),
            Arm(Words("random labels", "随机标签"), random),
            Arm(Words("gold labels", "正确标签"), gold),
            Arm(Words("none, channel", "无演示，信道"), none_channel, datasets=channel),
            Arm(Words("random, channel", "随机标签，信道"), random_channel, datasets=channel),
            Arm(Words("gold, channel", "正确标签，信道"), gold_channel, datasets=channel),
        ),
        contrasts=(
            Contrast(
                Words("gold labels over none", "正确标签相对无演示"), difference(gold, none), above=0, main=False
            ),
            Contrast(Words("random labels over none", "随机标签相对无演示"), difference(random, none), above=0),
            Contrast(
                Words("gold labels over random labels", "正确标签相对随机标签"), difference(gold, random), below=0.05
            ),
            Contrast(
                Words("gold labels over none, channel", "正确标签相对无演示（信道）"),
                difference(gold_channel, none_channel),
                above=0,
                main=False,
                datasets=channel,
            ),
            Contrast(
                Words("random labels over none, channel", "随机标签相对无演示（信道）"),
                difference(random_channel, none_channel),
                above=0,
                datasets=channel,
            ),
            Contrast(
                Words("gold labels over random labels, channel", "正确标签相对随机标签（信道）"),
                difference(gold_channel, random_channel),
                below=0.05,
                datasets=channel,
            ),
        ),
    )
