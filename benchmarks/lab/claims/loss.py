"""Claim 12: gain from demonstrations against the model's loss (Du et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.lab.claim import TEXT, Arm, Claim, Contrast, Needed, Setting
from benchmarks.lab.conditions import Labelled, Passage
from benchmarks.lab.effects import Scores
from benchmarks.lab.words import Words

__all__ = ["GainByLoss", "claim"]

_FEWEST_MODELS = 3


@dataclass(frozen=True)
class GainByLoss:
    """Slope over models of what demonstrations gain, for a tenth of a bit per byte of loss.

    Attributes:
        before: without demonstrations.
        after: with them.
        models: what the slope is over.
    """

    before: Labelled
    after: Labelled
    models: tuple[str, ...]

    def values(self, scores: Scores) -> NDArray[np.float64]:
        """Shape (seeds, items)."""
        losses = np.array([scores.loss(model) for model in self.models])
        centred = losses - losses.mean()
        weights = 0.1 * centred / max(float((centred**2).sum()), 1e-12)
        gains = [scores.of(self.after, model) - scores.of(self.before, model) for model in self.models]
        return np.asarray(sum(weight * gain for weight, gain in zip(weights.tolist(), gains, strict=True)))


def claim(setting: Setting) -> Claim:
    """Over further models where there are some, else over the quantizations of one file."""
    models = (*setting.models, *setting.quantizations)
    none, shown = Labelled(), Labelled(setting.shots)
    by_models = len(setting.models) >= _FEWEST_MODELS
    told = Words("change of the gain for 0.1 bit per byte more loss", "损失每增加 0.1 比特/字节时增益的变化")
    over = {
        True: (Words(f"{told.en}, over models", f"{told.zh}（不同模型）"), setting.models),
        False: (
            Words(f"{told.en}, over quantizations", f"{told.zh}（不同量化）"),
            (setting.main, *setting.quantizations),
        ),
    }
    return Claim(
        number=12,
        slug="loss",
        title=Words("Emergence by loss", "按损失看涌现"),
        says=Words(
            "What a model gains from demonstrations depends on its loss: the lower its loss on plain text, the more it gains "
            "(after Du et al. 2024).",
            "模型从演示中获得的增益取决于它的损失：在纯文本上的损失越低，增益越大（据 Du et al. 2024）。",
        ),
        method=Words(
            f"Loss in bits per byte on plain text (training inputs of {', '.join(setting.datasets)}, unless a file was given), "
            f"and the gain of {setting.shots} demonstrations over none on {', '.join(setting.order_datasets)}, "
            f"{setting.order_seeds} draws. A name with @ is the first model with its weights quantized to that type. The "
            "models are taken as they are: the interval answers for items and draws, not for other models.",
            f"在纯文本（未指定文件时为 {'、'.join(setting.datasets)} 的训练输入）上的损失（每字节比特数），以及在 {'、'.join(setting.order_datasets)} 上 "
            f"{setting.shots} 个演示相对无演示的增益，抽取 {setting.order_seeds} 次。名称中带 @ 的，是将第一个模型的权重量化为该类型后的版本。"
            "模型视为给定：区间只反映样本与抽取的不确定性，不涉及其他模型。",
        ),
        datasets=setting.order_datasets,
        seeds=setting.order_seeds,
        arms=(Arm(Words("none", "无演示"), none), Arm(Words("demonstrations", "演示"), shown)),
        also=tuple(
            each
            for model in models
            for each in (
                Needed(model, TEXT, Passage()),
                *(
                    Needed(model, dataset, condition)
                    for dataset in setting.order_datasets
                    for condition in (none, shown)
                ),
            )
        ),
        contrasts=tuple(
            Contrast(name, GainByLoss(none, shown, among), below=0, main=is_over_models == by_models)
            for is_over_models, (name, among) in over.items()
            if by_models or not is_over_models
        ),
        over_models=models,
        remark=None
        if by_models
        else Words(
            "The verdict is about quantizations of one file, which differ in loss by damage and not by training; three or more "
            "models, given by --models, test what the claim says of models. The losses at which Du et al. see abilities emerge "
            "belong to another tokenizer and corpus and are not compared.",
            "结论只涉及同一文件的各量化版本：它们的损失差异来自权重受损而非训练；用 --models 给出至少三个模型，才能检验论断对不同模型的说法。"
            "Du et al. 观察到能力涌现的损失值属于另一套分词器和语料，不作比较。",
        ),
    )
