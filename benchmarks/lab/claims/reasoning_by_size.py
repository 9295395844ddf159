"""Claim 14: reasoning by model size (Wei et al. 2022)."""

from __future__ import annotations

from benchmarks.lab.claim import SMALL, Claim, Contrast, Setting
from benchmarks.lab.claims.reasoning import reasoning_arms
from benchmarks.lab.effects import BySize, difference
from benchmarks.lab.words import Words

__all__ = ["claim"]


def claim(setting: Setting) -> Claim:
    """What reasoning gains, for each model."""
    arms = reasoning_arms(setting)
    gain = difference(arms["shown"].condition, arms["few"].condition)
    several = len(setting.models) > 1
    is_small = setting.parameters[0] < SMALL
    by_size = BySize(gain, dict(zip(setting.models, setting.parameters, strict=True)))
    return Claim(
        number=14,
        slug="reasoning-by-size",
        title=Words("Reasoning by model size", "推理与模型规模"),
        says=Words(
            "Reasoning helps large models only: a small one gains nothing from demonstrations that show it (Wei et al. 2022).",
            "推理只对大模型有帮助：小模型无法从展示推理的演示中获得增益（Wei et al. 2022）。",
        ),
        method=Words(
            "As in experiment 3, for each model, on each task and over all. A gain below 5 points is none. One "
            "model alone is held against what the claim says of its size (small: below 8 billion weights); several decide by "
            "the slope over their sizes, the models being taken as they are.",
            "方法同实验 3，对每个模型给出各任务及总体的结果。增益低于 5 个百分点视为没有增益。"
            "只有一个模型时，按论断对其规模的说法检验（小模型：少于 80 亿权重）；有多个模型时，由增益随规模变化的斜率判定（模型本身视为给定）。",
        ),
        datasets=setting.tasks,
        by_model=True,
        ways=("direct",),
        arms=(arms["few"], arms["shown"]),
        contrasts=(
            *(
                (
                    Contrast(
                        Words(
                            "gain from reasoning, for each doubling of the weights",
                            "推理的增益，权重每增加一倍的变化",
                        ),
                        by_size,
                        above=0,
                        once=True,
                    ),
                )
                if several
                else ()
            ),
            Contrast(
                Words("reasoning shown over answers shown", "展示推理相对只展示答案"),
                gain,
                above=None if is_small else 0,
                below=0.05 if is_small else None,
                main=not several,
            ),
        ),
    )
