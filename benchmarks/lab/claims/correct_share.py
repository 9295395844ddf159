"""Claim 5: the share of correct labels."""

from __future__ import annotations

from benchmarks.lab.claim import Arm, Claim, Contrast, Setting
from benchmarks.lab.conditions import Labelled
from benchmarks.lab.effects import Sum, difference, slope
from benchmarks.lab.words import Words

__all__ = ["SHARES", "at_share", "claim"]

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


def at_share(shots: int, share: float) -> Labelled:
    """Demonstrations of which this share have the right label."""
    return Labelled(shots) if share == 1.0 else Labelled(shots, labels=f"share {share}")


def claim(setting: Setting) -> Claim:
    """From none right to all right."""
    none = Labelled()
    conditions = {at_share(setting.shots, share): share for share in SHARES}
    rising = slope(conditions)
    gold = at_share(setting.shots, 1.0)
    return Claim(
        number=5,
        slug="correct-share",
        title=Words("Share of correct labels", "正确标签的比例"),
        says=Words(
            "Demonstrations help, and more correct labels among them raise accuracy little (Min et al. 2022, figure 4).",
            "演示有帮助，而提高其中正确标签的比例只使准确率略有上升（Min et al. 2022，图 4）。",
        ),
        method=Words(
            f"{setting.shots} demonstrations, of which 0 to 100 % have the right label; the others exchange theirs, so that each label comes as often as before. The slope is points from all wrong to all right. It is little if it is below 10 points.",
            f"{setting.shots} 个演示，其中 0 至 100 % 的标签正确，其余的彼此交换标签，使各标签出现的次数不变。斜率为从全错到全对时准确率变化的百分点数，低于 10 个百分点视为“略有”。",
        ),
        datasets=setting.datasets,
        axis=Words("correct labels, %", "正确标签（%）"),
        arms=tuple(
            Arm(Words(f"{share:.0%}", f"{share:.0%}"), each, 100 * share) for each, share in conditions.items()
        ),
        contrasts=(
            Contrast(Words("all right over no demonstrations", "全对相对无演示"), difference(gold, none), above=0),
            Contrast(Words("slope from all wrong to all right", "从全错到全对的斜率"), rising, below=0.10),
            Contrast(
                Words("all right over all wrong", "全对相对全错"),
                Sum({gold: 1.0, at_share(setting.shots, 0.0): -1.0}),
                above=0,
                main=False,
            ),
            Contrast(
                Words("all wrong over no demonstrations", "全错相对无演示"),
                Sum({at_share(setting.shots, 0.0): 1.0, none: -1.0}),
                above=0,
                main=False,
            ),
        ),
    )
