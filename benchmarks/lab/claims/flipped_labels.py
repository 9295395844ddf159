"""Claim 13: flipped labels by model size (Wei et al. 2023)."""

from __future__ import annotations

from benchmarks.lab.claim import SMALL, Arm, Claim, Contrast, Setting
from benchmarks.lab.claims.correct_share import SHARES, at_share
from benchmarks.lab.effects import BySize, Sum, slope
from benchmarks.lab.words import Words

__all__ = ["claim"]


def claim(setting: Setting) -> Claim:
    """0 to 100 % flipped, on datasets of two labels."""
    flipped = {at_share(setting.shots, 1 - share): share for share in SHARES}
    all_flipped = at_share(setting.shots, 0.0)
    several = len(setting.models) > 1
    is_small = setting.parameters[0] < SMALL
    above_chance = Sum({all_flipped: 1.0}, constant=-0.5)
    by_size = BySize(above_chance, dict(zip(setting.models, setting.parameters, strict=True)))
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
            "flipped to all flipped; a model that follows them wholly falls from its accuracy a to 100 - a. One model alone "
            "is held against what the claim says of its size (small: below 8 billion weights); several decide by the slope "
            "over their sizes, the models being taken as they are.",
            f"二分类任务的 {setting.shots} 个演示，其中 0 至 100 % 的标签被翻转。斜率为从不翻转到全部翻转时准确率变化的百分点数；完全跟随翻转标签的模型，准确率会从 a 降到 100 - a。"
            "只有一个模型时，按论断对其规模的说法检验（小模型：少于 80 亿权重）；有多个模型时，由准确率随规模变化的斜率判定（模型本身视为给定）。",
        ),
        datasets=setting.with_labels(2, 2),
        axis=Words("flipped labels, %", "翻转标签（%）"),
        by_model=True,
        arms=tuple(Arm(Words(f"{share:.0%}", f"{share:.0%}"), each, 100 * share) for each, share in flipped.items()),
        contrasts=(
            *(
                (
                    Contrast(
                        Words(
                            "all flipped over chance, for each doubling of the weights",
                            "全部翻转相对随机水平，权重每增加一倍的变化",
                        ),
                        by_size,
                        below=0,
                        once=True,
                    ),
                )
                if several
                else ()
            ),
            Contrast(
                Words("all flipped over chance", "全部翻转相对随机水平"),
                above_chance,
                above=0 if is_small else None,
                below=None if is_small else 0,
                main=not several,
            ),
            Contrast(
                Words("slope, all flipped over none flipped", "斜率（全部翻转相对不翻转）"),
                slope(flipped),
                below=0,
                main=False,
            ),
        ),
    )
