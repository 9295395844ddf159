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
            "from the interval alone. Where labels are scored, both ways are given: as the model answers (the likeliest "
            "label), and calibrated (batch calibration: the mean log-probability of each label over the items is "
            "subtracted first)."
        ),
        "machine": "Measured on:",
        "scale": "Scale:",
        "claim": "claim",
        "verdict": "verdict",
        "verdicts": (
            "A part of a claim holds where its whole interval lies where the claim says, and is contradicted where all of it "
            "lies elsewhere. *Holds*: every part does. *Partly*: some do, the others are not shown. *Mixed*: some do, others "
            "are contradicted. *Contradicted*: none does, and one or more are contradicted. *Not shown*: this model and these "
            "items do not decide it. Numbers count the parts that hold; of twenty intervals one may miss by chance."
        ),
        "effect": "effect, in points (× in times)",
        "claimed": "the claim says",
        "holds": "holds",
        "partly": "partly",
        "contradicted": "contradicted",
        "mixed": "mixed",
        "not shown": "not shown",
        "unmeasured": "not measured",
        "direct": "as the model answers",
        "calibrated": "calibrated",
        "seconds": "measured",
        "above": "above {}",
        "below": "below {}",
        "sentence": "For this model the claim {verdict}{way}: {parts}.",
        "sentence holds": "holds",
        "sentence partly": "holds in part",
        "sentence mixed": "holds in part and is contradicted in part",
        "sentence contradicted": "is contradicted",
        "sentence not shown": "is not shown",
        "sentence way": " ({})",
        "no number": "could not be measured",
        "counts": "{verdict}, {hold} of {parts}",
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
        "classifier_accuracy": "the classifier's accuracy, %",
        "left_out": "Left out, since it did not fit the model's context or there were too few rows to show: {} of {} cells.",
        "each dataset": "Each dataset by itself",
        "set": "set",
        "lowest": "lowest, {}",
        "median": "median, {}",
        "highest": "highest, {}",
        "on": " (on {})",
        "at least": " (at least)",
        "model_accuracy": "the model's accuracy, %",
        "aside": " (does not decide)",
        "scale line": (
            "{items} test items of each of {datasets}, or all there are; {seeds} draws of demonstrations; {shots} demonstrations unless said; written "
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
            "论断的一个部分，若整个区间都落在论断所说的一侧，则成立；若全部落在另一侧，则不成立。*成立*：每个部分都成立。*部分成立*：一些部分成立，其余未能证实。"
            "*互有出入*：一些部分成立，另一些不成立。*不成立*：没有部分成立，且至少一个不成立。*未能证实*：这个模型和这些样本不足以判定。数字为成立的部分数；每二十个区间中可能有一个因偶然而偏离。"
        ),
        "effect": "效应（百分点；带 × 者为倍数）",
        "claimed": "论断主张",
        "holds": "成立",
        "partly": "部分成立",
        "mixed": "互有出入",
        "contradicted": "不成立",
        "not shown": "未能证实",
        "unmeasured": "未测量",
        "direct": "未校准",
        "calibrated": "校准后",
        "seconds": "实测",
        "above": "高于 {}",
        "below": "低于 {}",
        "sentence": "对这个模型，该论断{verdict}{way}：{parts}。",
        "sentence holds": "成立",
        "sentence partly": "部分成立",
        "sentence mixed": "部分成立、部分不成立",
        "sentence way": "（{}）",
        "no number": "无法测量",
        "counts": "{verdict}，{hold}/{parts}",
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
        "left_out": "因超出模型的上下文长度或可用样本太少而略去的单元：{} 个（共 {} 个）。",
        "each dataset": "各数据集分别的结果",
        "set": "组",
        "lowest": "最低（{}）",
        "median": "中位（{}）",
        "highest": "最高（{}）",
        "on": "（{}）",
        "at least": "（至少）",
        "model_accuracy": "模型准确率（%）",
        "aside": "（不参与判定）",
        "scale line": (
            "{datasets} 各 {items} 个测试样本（不足则全部）；演示抽取 {seeds} 次；除另有说明外用 {shots} 个演示；由模型写出答案的任务为 {tasks}，各 {thinking_items} 个测试样本、"
            "{thinking_seeds} 次抽取；共 {tokens} 个 token。"
        ),
    },
}
