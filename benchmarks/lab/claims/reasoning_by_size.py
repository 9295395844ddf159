"""Claim 14: reasoning by model size (Wei et al. 2022)."""

from __future__ import annotations

from benchmarks.lab.claim import Claim, Contrast, Setting
from benchmarks.lab.claims.reasoning import reasoning_arms
from benchmarks.lab.effects import difference
from benchmarks.lab.words import Words

__all__ = ["claim"]


def claim(setting: Setting) -> Claim:
    """What reasoning gains, for each model."""
    arms = reasoning_arms(setting)
    return Claim(
        number=14,
        slug="reasoning-by-size",
        title=Words("Reasoning by model size", "推理与模型规模"),
        says=Words(
            "Reasoning helps large models only: a small one gains nothing from demonstrations that show it (Wei et al. 2022).",
            "推理只对大模型有帮助：小模型无法从展示推理的演示中获得增益（Wei et al. 2022）。",
        ),
        method=Words(
            "As in experiment 3, for each model, on each task and over all. A gain below 5 points is none.",
            "方法同实验 3，对每个模型给出各任务及总体的结果。增益低于 5 个百分点视为没有增益。",
        ),
        datasets=setting.tasks,
        by_model=True,
        ways=("direct",),
        arms=(arms["few"], arms["shown"]),
        contrasts=(
            Contrast(
                Words("reasoning shown over answers shown", "展示推理相对只展示答案"),
                difference(arms["shown"].condition, arms["few"].condition),
                below=0.05,
            ),
        ),
    )
