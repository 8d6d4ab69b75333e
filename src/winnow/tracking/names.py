"""Our names and the names in the tables of the papers; no other module translates between them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Column `metric` of paper.csv -> key of results.json. `average` has another key in each table (`table.average`), and
# the key of micro_f1 begins with the data set.
METRICS = {
    "arc": "arc_challenge/acc_norm",
    "hellaswag": "hellaswag/acc_norm",
    "mmlu": "mmlu/acc",
    "truthfulqa": "truthfulqa_mc2/acc",
    "gsm8k": "gsm8k/exact_match,flexible-extract",
    "humaneval": "humaneval/pass@1",
    "commonsense_qa": "commonsense_qa/acc",
    "nq": "nq_open/exact_match",
    "bbh": "bbh/exact_match",
    "ifeval_prompt_strict": "ifeval/prompt_level_strict_acc",
    "ifeval_inst_strict": "ifeval/inst_level_strict_acc",
    "ifeval_prompt_loose": "ifeval/prompt_level_loose_acc",
    "ifeval_inst_loose": "ifeval/inst_level_loose_acc",
    "reasoning": "average/reasoning",
    "knowledge": "average/knowledge",
    "coding": "average/coding",
    "cmmlu": "cmmlu/acc",
    "ceval": "ceval-valid/acc",
}
# (paper, option) -> the pool's name in the paper.
POOLS = {
    ("anit", "lap14"): "14lap",
    ("anit", "rest14"): "14rest",
    ("consistency", "flan_cot"): "flan",
    ("adg", "flan_cot"): "cot",
}
NOISES = {
    "truncation": "random_truncation",
    "shuffling": "random_shuffling",
    "insertion": "random_insertion",
    "replacement": "random_replacement",
    "padding": "in_context_padding",
    "opposite": "opposite",
}
# (method, selection) -> one method in the consistency paper.
SELECTORS = {
    ("consistency", "consistency"): "noise_consistency+diversity",
    ("consistency", "quality_only"): "noise_consistency",
    ("consistency", "top"): "noise_consistency",
    ("consistency", "bottom"): "noise_consistency",
    ("consistency", "diversity_only"): "diversity",
    ("random", "diversity_only"): "diversity",
}
METHODS = {"superfilter": "superfiltering"}
CONTROLS = ("length_matched", "equal_tokens")  # selections that draw random records to match another rule
AROUND = "selection@selection.around"  # the group of that rule
ADVERSARIES = {"nrm": "anit"}  # all others have the same name in the paper


def identity(row: Mapping[str, object], choices: Mapping[str, str], paper: str) -> dict[str, str]:
    """The row of a job in its paper's table: backbone, pool, method, ratio and further settings, as text.

    row: the job's own labels (`row.<column>`). They go before the chosen options; a null label counts as absent. The
    ratio of `full` is 1.
    """
    rule = choices["selection"]
    if rule in CONTROLS:
        rule = choices.get(AROUND, "top")
    method = choices["method"]
    if paper != "verdict":  # whose tables are no paper's
        method = SELECTORS.get((method, rule), METHODS.get(method, method))
    method = control(method, choices)
    if paper == "anit":  # its methods are ways to tune on all data
        method = ADVERSARIES.get(choices.get("adversary", "none"), choices.get("adversary", "none"))
    words = {
        "backbone": choices["backbone"],
        "pool": POOLS.get((paper, choices["data"]), choices["data"]),
        "method": method,
        "ratio": None,
    }
    if choices.get("noising", "none") != "none":
        words["noise"] = NOISES.get(choices["noising"], choices["noising"])
    words |= {key: value for key, value in row.items() if value is not None and key != "job"}
    if words["method"] == "full":
        words["ratio"] = 1
    return {key: text(value) for key, value in words.items() if value not in (None, "")}


def control(method: str, choices: Mapping[str, str]) -> str:
    """`length_matched(ifd)` for the control of a selection by `ifd`; the method itself without a control."""
    return f"{choices['selection']}({method})" if choices.get("selection") in CONTROLS else method


def share(config: Mapping[str, Any]) -> dict[str, str]:
    """What is selected: `count` or `ratio`, as the budget takes them."""
    selection = config.get("selection") or {}
    key = "count" if selection.get("count") is not None else "ratio"
    return {} if selection.get(key) is None else {key: text(selection[key])}


def text(value: object) -> str:
    """A value in the form of paper.csv: lists joined by +, numbers without trailing zeros (0.10 is 0.1), whole ones
    with all digits, null, true and false."""
    if isinstance(value, list):
        return "+".join(text(one) for one in value)
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return str(value)
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else f"{number:g}"


def pool_name(source: str) -> str:
    """The last part of a pool's source, without the ending of a data file."""
    return re.sub(r"\.(jsonl?|ndjson|csv|tsv|parquet)(\.gz)?$", "", Path(source).name, flags=re.IGNORECASE)
