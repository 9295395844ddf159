"""Claim 14: reasoning by model size (Wei et al. 2022)."""

from __future__ import annotations

from benchmarks.lab.claim import Claim, Setting
from benchmarks.lab.claims.reasoning import reasoning_arms
from benchmarks.lab.claims.sizes import by_size, one_model, sizes_tested
from benchmarks.lab.effects import difference
from benchmarks.lab.words import Words

__all__ = ["claim"]


def claim(setting: Setting) -> Claim:
    """What reasoning gains, for each model."""
    arms = reasoning_arms(setting)
    gain = difference(arms["shown"].condition, arms["few"].condition)
    told, alone = sizes_tested(setting), one_model(setting)
    return Claim(
        number=14,
        slug="reasoning-by-size",
        title=Words("Reasoning by model size", "推理与模型规模"),
        says=Words(
            "Reasoning helps large models only: a small one gains nothing from demonstrations that show it (Wei et al. 2022).",
            "推理只对大模型有帮助：小模型无法从展示推理的演示中获得增益（Wei et al. 2022）。",
        ),
        method=Words(
            "As in experiment 3, for each model, on each task and over all. A gain below 5 points counts as none. "
            + told.en,
            "方法同实验 3，对每个模型给出各任务及总体的结果。增益低于 5 个百分点视为没有增益。" + told.zh,
        ),
        datasets=setting.tasks,
        by_model=True,
        ways=("direct",),
        arms=(arms["few"], arms["shown"]),
        contrasts=tuple(
            by_size(
                setting,
                Words("gain from reasoning, for each doubling of the weights", "推理的增益，权重每增加一倍的变化"),
                Words("reasoning shown over answers shown", "展示推理相对只展示答案"),
                gain,
                small_above=None,
                small_below=0.05,
            )
        ),
        remark=None
        if alone is None
        else Words(
            f"{alone.en} For one small model this is the counterpart of the first part of experiment 3, from the same numbers: "
            "there reasoning is claimed to help, here to gain less than 5 points.",
            f"{alone.zh}只有一个小模型时，它与实验 3 的第一部分相对，所用数值相同：那里主张推理有帮助，这里主张增益不到 5 个百分点。",
        ),
    )
