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
    """Over the roundings of one file, and over further models."""
    models = (*setting.models, *setting.roundings)
    none, shown = Labelled(), Labelled(setting.shots)
    gain = GainByLoss(none, shown, models)
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
            f"Loss in bits per byte on plain text, and the gain of {setting.shots} demonstrations over none, for "
            f"{', '.join(models)}. A name with @ is the first model with its weights rounded to that type.",
            f"对 {', '.join(models)} 测量在纯文本上的损失（每字节比特数），以及 {setting.shots} 个演示相对无演示的增益。名称中带 @ 的，是将第一个模型的权重量化为该类型后的版本。",
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
        contrasts=(
            Contrast(
                Words("change of the gain for 0.1 bit per byte more loss", "损失每增加 0.1 比特/字节时增益的变化"),
                gain,
                below=0,
            ),
        ),
        over_models=models,
        remark=Words(
            "Roundings of one file are no models of one family: they differ in loss by damage and not by training, and all of "
            "them lie far to one side of the thresholds that Du et al. report. Give --models for the claim itself.",
            "同一文件的不同量化版本并不是同一家族的不同模型：它们的损失差异来自权重受损而非训练，且全都远在 Du et al. 所报告阈值的同一侧。"
            "要检验论断本身，请用 --models 给出更多模型。",
        ),
    )
