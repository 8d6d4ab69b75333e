"""AIFD and AIOEC beside IFD: what one sweep costs, what the attacks did, and what the scores see.

    python experiments/benchmarks/attack_audit.py alpaca_data.json [records] [records for AIOEC's layers]

One store for `method=ifd,aifd,aioec`, as in a sweep. Forwards: sequences through the backbone per record; the plain
way, each method on its own, needs 2 + 12 + 7 = 21. Then the same methods on the embedded pool, whose planted defects
give an AUC (0.5 is chance). In bf16. The histogram of AIFD with the 5% cut goes to results/aifd_distribution.svg.
"""

from __future__ import annotations

import sys
import tempfile
import time

import numpy as np
from common import HERE, TRAINER, best, correlation, judged, overlap, parts, save, scored

from winnow.config import build
from winnow.pages.plots import score_histogram
from winnow.perturb.attacks.audit import audit
from winnow.scoring.price import Meter
from winnow.scoring.runner import PassRunner
from winnow.store.artifacts import Store

LAYERS = {
    "last token": {"pooling": "last"},
    "layer 0": {"layer": 0},
    "layer 15": {"layer": 15},
    "layer 24": {"layer": 24},
}


def alpaca(cfg, source, template, attacks, pool: str, count: int, few: int) -> dict:
    records = build("data/file", source=pool, limit=count).records
    methods = {
        "ifd": build("method/ifd"),
        "aifd": build("method/aifd", attacks=attacks),
        "aioec": build("method/aioec", attacks=attacks),
    }
    backbone = source.load()
    source.load = lambda: backbone
    meter, numbers = Meter(backbone.model, encoder=False), {"records": len(records)}
    meter.open()
    with tempfile.TemporaryDirectory() as store:
        runner = PassRunner(source, Store(store), TRAINER)
        prompts, rates = {}, {}
        for name, attack in attacks.items():
            runner.prompts({name: attack}, records[:1], template)  # loads TextAttack and the attack's resources
            start = time.perf_counter()
            prompts |= runner.prompts({name: attack}, records, template)
            rates[name] = round((len(records) - 1) / (time.perf_counter() - start), 2)  # the first one is there
        numbers["prompts_per_second"] = rates
        start, scores, passes = time.perf_counter(), {}, {}
        for name, method in methods.items():
            before = len(runner.computed)
            scores[name] = scored(method, runner, records, template)
            passes[name] = len(runner.computed) - before
        numbers["scoring_seconds"] = round(time.perf_counter() - start, 1)
        numbers["passes_computed"] = passes
        usable = int(np.sum([reason is None for reason in scores["ifd"].flag]))
        numbers["forwards_per_record"] = round(meter.counts["forwards"] / usable, 3)
        numbers["attacks"] = audit(prompts)["attacks"]
        ratios = {
            name: scores["aifd"].components[f"nll_{name}"] / scores["aifd"].components["nll_direct"] for name in attacks
        }
        kept = {
            name: table.table["similarity"].to_numpy(zero_copy_only=False).astype(float)
            for name, table in prompts.items()
        }
        numbers["spearman_ratio_with_similarity"] = {name: correlation(ratios[name], kept[name], 3) for name in attacks}
        numbers["spearman"] = {
            "aifd_ifd": correlation(scores["aifd"].score, scores["ifd"].score, 3),
            "aifd_aioec": correlation(scores["aifd"].score, scores["aioec"].score, 3),
            "aifd_mean_similarity": correlation(scores["aifd"].score, np.nanmean(list(kept.values()), axis=0), 3),
        }
        tops = {name: best(method, scores[name], records, 0.1).chosen for name, method in methods.items()}
        numbers["top_10_percent_in_common"] = {
            f"{a}_{b}": overlap(tops[a], tops[b], 3) for a, b in (("aifd", "ifd"), ("aifd", "aioec"), ("aioec", "ifd"))
        }
        top = best(methods["aifd"], scores["aifd"], records, 0.05)
        values = scores["aifd"].score
        numbers["aifd"] = {f"percentile_{q}": round(float(np.nanpercentile(values, q)), 4) for q in (5, 25, 50, 75, 95)}
        numbers["aifd"] |= {
            "cut_5_percent": round(top.cut, 4),
            "not_eligible": int(np.nansum(values > 3)),
            "null": int(np.isnan(values).sum()),
        }
        chosen = set(top.chosen)
        selected = [i in chosen for i in range(len(records))]
        shown = [None if np.isnan(value) else float(value) for value in values]
        (HERE / "results" / "aifd_distribution.svg").write_text(
            score_histogram(shown, selected, top.cut, "AIFD"), encoding="utf-8"
        )
        first = records[:few]
        numbers["aioec_spearman_with_default"] = {"records": len(first)} | {
            name: correlation(
                scored(build("method/aioec", attacks=attacks, **option), runner, first, template).score,
                scores["aioec"].score[:few],
                3,
            )
            for name, option in LAYERS.items()
        }
    return numbers


def planted(source, template, attacks) -> dict:
    """How well each method finds the planted defects of the embedded pool."""
    records = build("data/embedded").records
    numbers = {}
    with tempfile.TemporaryDirectory() as store:
        runner = PassRunner(source, Store(store), TRAINER)
        for method in (
            build("method/ifd"),
            build("method/aifd", attacks=attacks),
            build("method/aioec", attacks=attacks),
        ):
            _, _, found = judged(method, runner, records, template)
            numbers[method.name] = {"auc": round(found["overall"]["auc"], 3)} | {
                kind: round(value["auc"], 3) for kind, value in found["by_kind"].items()
            }
    return numbers


def main() -> None:
    from hydra.utils import instantiate

    pool, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 500
    few = int(sys.argv[3]) if len(sys.argv) > 3 else 100
    cfg, source, template = parts("method=aifd", "backbone.dtype=bf16")
    attacks = instantiate(cfg.attack.use)
    numbers = {
        "alpaca": alpaca(cfg, source, template, attacks, pool, count, few),
        "planted_defects_auc": planted(source, template, attacks),
    }
    save("attack_audit", numbers)


if __name__ == "__main__":
    main()
