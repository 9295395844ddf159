"""Claim 10: the order of the same demonstrations (Lu et al. 2022)."""

from __future__ import annotations

from benchmarks.lab.claim import Arm, Claim, Contrast, Needed, Setting
from benchmarks.lab.conditions import Labelled
from benchmarks.lab.effects import Best, Range, Shift
from benchmarks.lab.words import Words

__all__ = ["claim"]

_SHOTS = 4


def claim(setting: Setting) -> Claim:
    """Spread over permutations, and whether good ones carry over to another model or rounding."""
    orders = tuple(Labelled(_SHOTS, order=number) for number in range(setting.orders))
    other = (*setting.models[1:], *setting.roundings)[0]
    spread = Range(orders)
    return Claim(
        number=10,
        slug="order",
        title=Words("Order", "演示的顺序"),
        says=Words(
            "The order of the same demonstrations moves accuracy by ten points and more, less when calibrated, and an "
            "order that is good for one model is not good for another (Lu et al. 2022).",
            "同样的演示，仅改变顺序就会使准确率变化 10 个百分点以上，校准后变化较小；对一个模型好的顺序，对另一个模型并不好（Lu et al. 2022）。",
        ),
        method=Words(
            f"{setting.orders} orders of {_SHOTS} demonstrations, {setting.order_seeds} sets. Best and worst are chosen on "
            "one half of the items and compared on the other, so that chance alone gives a spread of 0. What carries over "
            f"is what the orders that {setting.main} likes best gain over the average order in {other}.",
            f"{_SHOTS} 个演示的 {setting.orders} 种顺序，共 {setting.order_seeds} 组演示。最好与最差的顺序在一半样本上选出，在另一半样本上比较，"
            f"因此仅凭偶然时差距为 0。迁移效果指 {setting.main} 上最好的顺序在 {other} 上相对平均顺序的增益。",
        ),
        datasets=setting.order_datasets,
        seeds=setting.order_seeds,
        arms=tuple(Arm(Words(f"order {each.order}", f"顺序 {each.order}"), each) for each in orders),
        also=tuple(Needed(other, dataset, each) for dataset in setting.order_datasets for each in orders),
        contrasts=(
            Contrast(
                Words("best over worst order, not calibrated", "最好顺序相对最差顺序（未校准）"),
                spread,
                above=0.10,
                ways=("direct",),
            ),
            Contrast(
                Words("best over worst order, calibrated", "最好顺序相对最差顺序（校准后）"),
                spread,
                below=0.10,
                main=False,
                ways=("calibrated",),
            ),
            Contrast(
                Words("spread lost by calibration", "校准所缩小的差距"),
                Shift(spread, "direct", "calibrated"),
                above=0,
                ways=("direct",),
            ),
            Contrast(
                Words("best order over the average one, same model", "最好顺序相对平均顺序（同一模型）"),
                Best(orders),
                above=0,
                main=False,
            ),
            Contrast(
                Words(
                    f"best order of {setting.main} over the average one in {other}",
                    f"{setting.main} 的最好顺序在 {other} 上相对平均顺序",
                ),
                Best(orders, counted_in=other),
                below=0.02,
                main=False,
            ),
        ),
        remark=Words(
            f"{other} is the same model with its weights rounded: an order that carries over to it need not carry over to "
            "another model.",
            f"{other} 是同一模型权重量化后的版本：能迁移到它的顺序，未必能迁移到别的模型。",
        )
        if other in setting.roundings
        else None,
    )
