"""What the attacks did to a pool, in numbers: how many prompts changed, how far, and whether they can still be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from winnow.perturb.attacks.prompts import PromptTable

INTELLIGIBLE = 0.8  # sentence similarity from which on a prompt counts as still intelligible (ours)


def audit(tables: Mapping[str, PromptTable]) -> dict:
    """Per attack, as JSON can hold it:

    records; changed, the share of records with an attacked prompt; of these the means of similarity (cosine of sentence
    vectors to the original), edit_distance (characters), words_changed and queries (over all records), and
    intelligible, the share whose similarity is at least the limit; flags, how often each reason for failure occurs;
    resources. A mean over nothing is None.
    """
    return {"intelligible_from": INTELLIGIBLE, "attacks": {name: _one(table) for name, table in tables.items()}}


def _one(table: PromptTable) -> dict:
    columns = table.table.to_pydict()
    done = [i for i, success in enumerate(columns["success"]) if success]
    # fp32 sums differ in the last digits between batches; a prompt that was kept at the limit is at the limit.
    readable = [columns["similarity"][i] >= INTELLIGIBLE - 1e-5 for i in done]
    return {
        "records": len(table),
        "changed": round(len(done) / len(table), 4) if len(table) else None,
        "similarity": _mean([columns["similarity"][i] for i in done]),
        "edit_distance": _mean([columns["edit_distance"][i] for i in done]),
        "words_changed": _mean([columns["words_changed"][i] for i in done]),
        "queries": _mean(columns["queries"]),
        "intelligible": _mean(readable),
        "flags": dict(sorted(Counter(flag for flag in table.flags() if flag).items())),
        "resources": sorted(set(columns["resources"])),
    }


def _mean(values: list) -> float | None:
    return round(float(np.mean(values)), 4) if values else None
