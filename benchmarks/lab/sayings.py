"""The words around the numbers of a page, by language."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["SAYINGS"]

SAYINGS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "title": "Laboratory: what makes demonstrations work",
        "other": "[中文](laboratory.zh.md)",
        "intro": (
            "Fifteen claims about in-context learning, each tested on a model file by one command. An effect is a mean over "
            "draws of demonstrations and over test items, with a 95 % interval that answers for both; the verdict follows "
            "from the interval alone. Both ways of scoring are given: as the model answers (the likeliest label), and "
            "calibrated (batch calibration: the mean log-probability of each label over the items is subtracted first)."
        ),
        "machine": "Measured on:",
        "scale": "Scale:",
        "claim": "claim",
        "verdict": "verdict",
        "verdicts": (
            "*Holds*: the whole interval lies where the claim says, for every part of it. *Partly*: for some parts. "
            "*Contradicted*: it lies on the other side. *Not shown*: this model and these items do not decide it."
        ),
        "effect": "effect, points of accuracy",
        "claimed": "the claim says",
        "main": "decides",
        "holds": "holds",
        "partly": "partly",
        "contradicted": "contradicted",
        "not shown": "not shown",
        "unmeasured": "not measured",
        "direct": "as the model answers",
        "calibrated": "calibrated",
        "seconds": "measured",
        "above": "above {}",
        "below": "below {}",
        "sentence": "For this model the claim {}.",
        "sentence holds": "holds",
        "sentence partly": "holds in part",
        "sentence contradicted": "is contradicted",
        "sentence not shown": "is not shown",
        "in way": "{verdict} ({way})",
        "join": "; ",
        "condition": "condition",
        "model": "model",
        "loss": "bits per byte",
        "gain": "gain, {}",
        "task": "task",
        "first_switch": "first switch, s",
        "later_switch": "later switch, s",
        "no_switch": "same task again, s",
        "training_on_shots": "training on the shown rows, s",
        "training_on_rows": "training on more rows, s",
        "classifier_accuracy": "its accuracy, %",
        "left_out": "Left out, since it did not fit the model's context: {} of {} measurements.",
        "decides": "",
        "aside": " (does not decide)",
        "scale line": (
            "{items} items of each of {datasets}; {seeds} draws of demonstrations; {shots} demonstrations unless said; written "
            "answers on {tasks} with {thinking_items} items and {thinking_seeds} draws; {tokens} tokens in all."
        ),
    },
    "zh": {
        "title": "实验室：是什么让演示起作用",
        "other": "[English](laboratory.md)",
        "intro": (
            "关于上下文学习的十五个论断，每个都用一条命令在一个模型文件上检验。效应是对多次演示抽取和全部测试样本的平均，其 95 % 置信区间"
            "同时计入这两方面的随机性；结论只由区间得出。两种打分方式的结果都给出：未校准，即模型原样作答（取概率最大的标签）；校准后，即批次校准（先从每个标签的对数概率中减去它在所有样本上的平均值）。"
        ),
        "machine": "测量环境：",
        "scale": "规模：",
        "claim": "论断",
        "verdict": "结论",
        "verdicts": (
            "*成立*：对论断的每一部分，整个区间都落在论断所说的一侧。*部分成立*：只有一些部分如此。*不成立*：区间落在另一侧。*未能证实*：这个模型和这些样本不足以判定。"
        ),
        "effect": "效应（准确率，百分点）",
        "claimed": "论断主张",
        "holds": "成立",
        "partly": "部分成立",
        "contradicted": "不成立",
        "not shown": "未能证实",
        "unmeasured": "未测量",
        "direct": "未校准",
        "calibrated": "校准后",
        "seconds": "实测",
        "above": "高于 {}",
        "below": "低于 {}",
        "sentence": "对这个模型，该论断{}。",
        "sentence holds": "成立",
        "sentence partly": "部分成立",
        "sentence contradicted": "不成立",
        "sentence not shown": "未能证实",
        "in way": "{verdict}（{way}）",
        "join": "；",
        "condition": "条件",
        "model": "模型",
        "loss": "每字节比特数",
        "gain": "增益（{}）",
        "task": "任务",
        "first_switch": "首次切换（秒）",
        "later_switch": "再次切换（秒）",
        "no_switch": "同一任务再次查询（秒）",
        "training_on_shots": "用演示样本训练（秒）",
        "training_on_rows": "用更多样本训练（秒）",
        "classifier_accuracy": "分类器准确率（%）",
        "left_out": "因超出模型的上下文长度而略去的测量：{} 次（共 {} 次）。",
        "decides": "",
        "aside": "（不参与判定）",
        "scale line": (
            "{datasets} 各 {items} 个测试样本；演示抽取 {seeds} 次；除另有说明外用 {shots} 个演示；由模型写出答案的任务为 {tasks}，各 {thinking_items} 个测试样本、"
            "{thinking_seeds} 次抽取；共 {tokens} 个 token。"
        ),
    },
}
