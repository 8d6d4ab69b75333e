"""Does a score predict what its records are worth? The linear datamodelling test for selection scores: `winnow lds`.

Datamodels (arXiv 2202.00622) judge a linear model of the training data by how well it predicts the output of models
trained on random subsets. Here the linear model is a selection score, and the output a metric of held-out data:

    LDS = Spearman correlation over random subsets S of   mean over S of the score   and   metric of a model tuned on S

with both signs turned so that higher is better. A score that says nothing has 0, one that ranks all subsets by what
they are worth has 1. The subsets are finished runs of method=random, each with the mean over its seeds; the scores are
those of the other runs on the same pool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata, spearmanr

from winnow import draws
from winnow.compare.runs import ComparedRun, read_runs
from winnow.compare.verdicts import RANDOM
from winnow.errors import UserError
from winnow.evaluation.comparison import LEVEL, holm
from winnow.reproduce.settings import differences
from winnow.store.files import write_atomically, write_json

DRAWS = 2000  # of the bootstrap over subsets
FEWEST = 8  # subsets: fewer say nothing about a correlation


def correlation(means: np.ndarray, values: np.ndarray) -> dict[str, float] | None:
    """Spearman's rho of the mean scores and the metric, both (subsets,), its bootstrap interval, low and high, and the
    two-sided p of rho = 0; None where one of the two is the same for all subsets.

    The 95% interval is that of the percentiles of `DRAWS` resamples of the subsets; resamples of one subset alone, or
    of subsets that are all alike in one of the two, have no correlation and are left out.
    """
    if len(np.unique(means)) < 2 or len(np.unique(values)) < 2:
        return None
    test = spearmanr(means, values)
    chosen = np.random.default_rng(draws.key("lds")).integers(0, len(means), (DRAWS, len(means)))
    ranks = [rankdata(one[chosen], axis=1) for one in (means, values)]
    centred = [one - one.mean(axis=1, keepdims=True) for one in ranks]
    spread = np.sqrt((centred[0] ** 2).sum(1) * (centred[1] ** 2).sum(1))
    drawn = (centred[0] * centred[1]).sum(1)[spread > 0] / spread[spread > 0]
    low, high = np.quantile(drawn, [LEVEL / 2, 1 - LEVEL / 2])
    return {"rho": float(test.statistic), "low": float(low), "high": float(high), "p": float(test.pvalue)}


def subset_means(scores: Mapping[str, float], subsets: Sequence[frozenset[str]]) -> np.ndarray:
    """(subsets,) mean score of the records of each subset that have one. Raises UserError for a subset without any."""
    rows = [[scores[one] for one in sorted(subset) if one in scores] for subset in subsets]
    if not all(rows):
        raise UserError("A subset holds no record that has a score: the runs are of different pools.")
    return np.array([np.mean(row) for row in rows])


def lds(runs: Sequence[ComparedRun]) -> dict[str, Any]:
    """`comparisons`: for each backbone, pool and headline metric the methods, best first. `score`: the correlation of
    the mean score; `rank`: that of the mean rank, which outliers do not move; p-values are Holm's over the methods."""
    arenas: dict[tuple[str, str, str | None], list[ComparedRun]] = {}
    for run in runs:
        arenas.setdefault((run.backbone, run.pool, run.fingerprint), []).append(run)
    comparisons, constant = [], []
    for (backbone, pool, _), members in arenas.items():
        tuned = [run for run in members if run.identity["method"] == RANDOM and run.metrics and run.subset]
        scored = {run.label: run for run in members if run.scores and run not in tuned}
        if not tuned or not scored:
            continue
        _check(tuned)
        last = {(run.subset, run.seed): run for run in sorted(tuned, key=lambda run: run.started)}
        subsets = list(dict.fromkeys(run.subset for run in tuned))
        for metric in tuned[0].headline:
            sign = 1.0 if tuned[0].metrics[metric]["higher_is_better"] else -1.0
            several = [[run.metrics[metric]["value"] for key, run in last.items() if key[0] == one] for one in subsets]
            values = sign * np.array([np.mean(seeds) for seeds in several])
            rows = []
            for name, run in scored.items():
                places = dict(zip(run.scores, rankdata(list(run.scores.values())), strict=True))
                score, rank = (correlation(subset_means(one, subsets), values) for one in (run.scores, places))
                if score is None or rank is None:
                    constant.append(f"{metric}, {name}")
                else:
                    rows.append({"method": name, "score": score, "rank": rank})
            if not rows:
                continue
            for kind in ("score", "rank"):
                for row, p in zip(rows, holm([row[kind]["p"] for row in rows]), strict=True):
                    row[kind]["p"] = p
            rows.sort(key=lambda row: -row["score"]["rho"])
            comparisons.append(
                {"backbone": backbone, "pool": pool, "metric": metric, "subsets": len(subsets)}
                | {"records": len(subsets[0]), "methods": rows}
            )
    if constant:
        print(f"Left out, because all subsets have the same value: {'; '.join(constant)}.")
    if not comparisons:
        raise UserError(
            "There is nothing to correlate: runs of method=random that were evaluated, and runs of other methods with "
            "scores of the same pool, are needed; run experiment=verdict/lds."
        )
    return {"level": LEVEL, "comparisons": comparisons}


def _check(tuned: Sequence[ComparedRun]) -> None:
    """Raises UserError where the random runs are too few, or were not tuned and selected alike."""
    differing = sorted({key for one in differences(tuned) for key in one} - {"method.seed"})
    if differing or len({run.share for run in tuned}) > 1:
        raise UserError(
            f"The random subsets were not made alike ({', '.join(differing or ['selection'])} differ): name the runs "
            f"of one kind alone."
        )
    subsets = len({run.subset for run in tuned})
    if subsets < FEWEST:
        raise UserError(f"{subsets} random subsets are too few: {FEWEST} different ones are needed, 40 say something.")


def write_lds(folders: Sequence[Path], out: Path) -> str:
    """Write `lds.json` and `lds.md` of all finished runs below the folders; returns the latter's content."""
    summary = lds(read_runs(*folders, tell=True))
    write_json(out / "lds.json", summary)
    text = "\n\n".join(map(_table, summary["comparisons"])) + "\n"
    write_atomically(out / "lds.md", text)
    return text


def _table(one: Mapping[str, Any]) -> str:
    """One metric as Markdown."""
    where = f"{one['metric']}: {one['backbone']}, {one['pool']}"
    title = f"{where}, {one['subsets']} random subsets of {one['records']} records"
    head = "| method | mean score | 95% | p (Holm) | mean rank | 95% | p (Holm) |\n|---|---:|---|---:|---:|---|---:|"
    rows = []
    for row in one["methods"]:
        cells = [row["method"]]
        for one in (row["score"], row["rank"]):
            cells += [f"{one['rho']:+.2f}", f"[{one['low']:+.2f}, {one['high']:+.2f}]", f"{one['p']:.2g}"]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join([title, "", head, *rows])
