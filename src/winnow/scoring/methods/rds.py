"""RDS+: records whose hidden states are most like those of a target.

    v = sum over the tokens t = 1 .. n of t h_t / sum of t,   h_t the final hidden state;   prompt and answer
    round robin: each query of the target in turn takes the record most like it, by cos(v, v_query), that is not taken

score = the place at which a record is taken, from 1; low is wanted. So every budget holds the first places, each query
its share of them. Source: "Practical Large-Scale Data Selection for Instruction Tuning" (arXiv 2503.01807; code:
hamishivi/automated-instruction-selection).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from winnow.data.records import Record
from winnow.errors import UserError
from winnow.scoring.passes.embedding import BackboneEmbedding
from winnow.scoring.protocols import Method
from winnow.scoring.runner import PassTable
from winnow.scoring.scores import Scores, first_reason

NON_FINITE = "non_finite_states"


class RepresentationSimilarity(Method):
    """The target's records are the queries, in their order."""

    version = 2

    def __init__(self, name: str) -> None:
        self.name = name
        states = BackboneEmbedding("all", -1, "weighted")
        self.passes, self.target_passes = {"states": states}, {"queries": states}

    def score(self, tables: dict[str, PassTable], records: Sequence[Record]) -> Scores:
        flag = tables["states"].flags()
        asked = np.array([reason is None for reason in tables["queries"].flags()], dtype=bool)
        valid = np.array([reason is None for reason in flag], dtype=bool)
        if valid.any() and asked.any():
            states, queries = (_unit(tables[name].vectors("vector")) for name in ("states", "queries"))
            finite, asked = np.isfinite(states).all(1), np.isfinite(queries).all(1)
            flag = first_reason(flag, [None if ok else NON_FINITE for ok in finite])
            valid &= finite
        if not valid.any() or not asked.any():
            raise UserError(
                f"method={self.name}: {valid.sum()} records and {asked.sum()} of the target have a vector, and both "
                f"must be above 0; see template.max_length, backbone.dtype and whether they have answers."
            )
        cosines = states[valid] @ queries[asked].T
        places, best, query = (np.full(len(records), np.nan) for _ in range(3))
        places[valid], best[valid] = round_robin(cosines), cosines.max(1)
        query[valid] = np.flatnonzero(asked)[cosines.argmax(1)]
        return Scores(
            score=places,
            flag=flag,
            components={"cosine": best, "query": query},
            higher_is_better=False,
            descriptions={
                "score": "place at which the record is taken, each query of the target in turn; low is wanted",
                "cosine": "largest cosine with a query of the target",
                "query": "which record of the target that is, from 0",
            },
        )


def round_robin(cosines: np.ndarray) -> np.ndarray:
    """(records,) place of each record, from 1, when the queries in turn take the best record that is left.

    cosines: (records, queries). Of equal cosines the earlier record.
    """
    orders = np.argsort(-cosines, axis=0, kind="stable").T
    places = np.zeros(len(cosines), np.int64)
    reached = [0] * len(orders)
    for place in range(1, len(cosines) + 1):
        query = (place - 1) % len(orders)
        while places[orders[query][reached[query]]]:
            reached[query] += 1
        places[orders[query][reached[query]]] = place
    return places


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
