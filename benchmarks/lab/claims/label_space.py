"""Claim 8: labels replaced by words without meaning."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.lab.claim import Arm, Claim, Contrast, Setting
from benchmarks.lab.conditions import Labelled
from benchmarks.lab.effects import Sum, difference
from benchmarks.lab.words import Words

__all__ = ["claim"]


def claim(setting: Setting) -> Claim:
    """Random English words for labels, in the demonstrations and as answers."""
    gold, words = Labelled(setting.shots), Labelled(setting.shots, words=True)
    random_words = Labelled(setting.shots, words=True, labels="random")
    gold_channel, words_channel = replace(gold, channel=True), replace(words, channel=True)
    channel = setting.channel_datasets
    return Claim(
        number=8,
        slug="label-space",
        title=Words("Label space", "标签空间"),
        says=Words(
            "Replacing the labels by random English words costs direct scoring more than 5 points, and channel scoring less than 5 (after Min et al. 2022, who compare random labels with randomly paired words: 5 to 16, and 0 to 2).",
            "把标签换成随机英文单词，直接打分损失 5 个百分点以上，信道打分损失不到 5 个（据 Min et al. 2022；该文比较的是随机标签与随机配对的单词：分别为 5 至 16 和 0 至 2 个）。",
        ),
        method=Words(
            f"{setting.shots} demonstrations. In each draw every label is replaced by one random word, always the same, in the demonstrations and among the answers scored, so that the mapping can still be learnt; in “random pairs” each demonstration has one of these words at random. Direct and channel as in experiment 4; channel on {', '.join(channel)} only.",
            f"{setting.shots} 个演示。每次抽取中，每个标签固定换成一个随机单词，演示和被打分的答案都用它，因此映射仍可学到；“随机配对”则给每个演示随机配一个这样的单词。直接打分与信道打分同实验 4，信道打分仅在 {'、'.join(channel)} 上进行。",
        ),
        datasets=setting.datasets,
        arms=(
            Arm(Words("labels", "原标签"), gold),
            Arm(Words("words", "随机单词"), words),
            Arm(Words("words, random pairs", "随机单词，随机配对"), random_words),
            Arm(Words("labels, channel", "原标签，信道"), gold_channel, datasets=channel),
            Arm(Words("words, channel", "随机单词，信道"), words_channel, datasets=channel),
        ),
        contrasts=(
            Contrast(Words("labels over words", "原标签相对随机单词"), difference(gold, words), above=0.05),
            Contrast(
                Words("words over words in random pairs: mapping learnt", "随机单词相对随机配对：学到的映射"),
                difference(words, random_words),
                above=0,
                main=False,
            ),
            Contrast(
                Words("labels over words, channel", "原标签相对随机单词（信道）"),
                difference(gold_channel, words_channel),
                below=0.05,
                datasets=channel,
            ),
            Contrast(
                Words("words cost direct scoring more than channel scoring", "随机单词对直接打分的损害大于信道打分"),
                Sum({gold: 1.0, words: -1.0, gold_channel: -1.0, words_channel: 1.0}),
                above=0,
                main=False,
                datasets=channel,
            ),
        ),
    )
