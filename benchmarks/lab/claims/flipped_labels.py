"""Claim 13: flipped labels by model size (Wei et al. 2023)."""

from __future__ import annotations

from benchmarks.lab.claim import Arm, Claim, Contrast, Setting
from benchmarks.lab.claims.correct_share import SHARES, at_share
from benchmarks.lab.claims.sizes import by_size, one_model, sizes_tested
from benchmarks.lab.effects import Sum, slope
from benchmarks.lab.words import Words

__all__ = ["claim"]


def claim(setting: Setting) -> Claim:
    """0 to 100 % flipped, on datasets of two labels."""
    flipped = {at_share(setting.shots, 1 - share): share for share in SHARES}
    all_flipped = at_share(setting.shots, 0.0)
    above_chance = Sum({all_flipped: 1.0}, constant=-0.5)
    told = sizes_tested(setting)
    return Claim(
        number=13,
        slug="flipped-labels",
        title=Words("Flipped labels by model size", "翻转标签与模型规模"),
        says=Words(
            "Small models follow flipped labels little: even with all labels flipped they stay above chance, where large "
            "models fall below it (Wei et al. 2023).",
            "小模型很少跟随翻转的标签：即使标签全部翻转，准确率仍高于随机水平；大模型则会降到随机水平以下（Wei et al. 2023）。",
        ),
        method=Words(
            f"{setting.shots} demonstrations of two labels, of which 0 to 100 % are flipped. The slope is points from none "
            "flipped to all flipped; a model that follows them wholly falls from its accuracy a to 100 - a. "
            + told.en,
            f"二分类任务的 {setting.shots} 个演示，其中 0 至 100 % 的标签被翻转。斜率为从不翻转到全部翻转时准确率变化的百分点数；完全跟随翻转标签的模型，准确率会从 a 降到 100 - a。"
            + told.zh,
        ),
        datasets=setting.with_labels(2, 2),
        axis=Words("flipped labels, %", "翻转标签（%）"),
        by_model=True,
        remark=one_model(setting),
        arms=tuple(Arm(Words(f"{share:.0%}", f"{share:.0%}"), each, 100 * share) for each, share in flipped.items()),
        contrasts=(
            *by_size(
                setting,
                Words(
                    "all flipped over chance, for each doubling of the weights",
                    "全部翻转相对随机水平，权重每增加一倍的变化",
                ),
                Words("all flipped over chance", "全部翻转相对随机水平"),
                above_chance,
                small_above=0,
                small_below=None,
            ),
            Contrast(
                Words("slope, all flipped over none flipped", "斜率（全部翻转相对不翻转）"),
                slope(flipped),
                below=0,
                main=False,
            ),
        ),
    )
