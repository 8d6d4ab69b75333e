"""What a selection costs: forwards, FLOPs and seconds of its passes.

    <store>/passes/<fingerprint>/ledger.jsonl   a line for each part that a model made: what it took

A pass is computed once for each record, by whatever run comes first. So what it costs is not what the run at hand took,
but the mean price of a record in its ledger, times the records, and no more than all of the ledger: a target has fewer
records than the pool, and records that are there twice are computed once. Passes that need no model cost nothing and
have no ledger.

    FLOPs of the forwards = 2 * parameters * tokens,   padding included

that is a multiplication and an addition for each weight and token; attention over the length, small here, is left out.
A backward pass through frozen weights takes as long as its forward, and counts as another one; one that trains all
weights counts as two. A preparation, a tuning before the scores, costs what its model took, however many records are
scored.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # who reads ledgers waits for no torch
    from torch import nn
    from torch.utils.hooks import RemovableHandle

LEDGER = "ledger.jsonl"
SUMS = ("forwards", "tokens", "flops", "seconds")


class Meter:
    """Counts what runs through a model while it is open. counts: forwards (rows of its batches) and tokens. backward:
    whether each forward pass has a backward one."""

    def __init__(self, model: nn.Module, encoder: bool, backward: bool = False) -> None:
        from winnow.backbone.causal_model import CausalModel, StatesAgain
        from winnow.backbone.quantized import count

        self.unrun = StatesAgain  # of a call that asks for the logits of states that are there
        self.body = model if encoder else CausalModel(model).body
        self.passes = 2 if backward else 1
        self.parameters = sum(count(one) for one in model.parameters())
        self.counts: Counter[str] = Counter()
        self._handle: RemovableHandle | None = None

    def open(self) -> None:
        self._handle = self.body.register_forward_hook(self._count, with_kwargs=True)

    def close(self) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def _count(self, module: nn.Module, args: tuple, given: Mapping[str, Any], out: Any) -> None:
        if isinstance(out, self.unrun):
            return
        inputs = [*args[:1], given.get("input_ids"), given.get("inputs_embeds")]
        rows, length = next(one for one in inputs if one is not None).shape[:2]
        self.counts += Counter(forwards=self.passes * rows, tokens=self.passes * rows * length)

    def entry(self, label: str, records: int, seconds: float) -> dict[str, Any]:
        """The line of a part, of what was counted since the last one."""
        line = {"pass": label, "records": records, "parameters": self.parameters, "seconds": round(seconds, 3)}
        line |= {key: self.counts[key] for key in ("forwards", "tokens")}
        self.counts.clear()
        return line


def charge(folder: Path, line: Mapping[str, Any]) -> None:
    """Add a line to the ledger of a folder of the store."""
    with (folder / LEDGER).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, allow_nan=False) + "\n")


def passes_of(card: Mapping[str, Any]) -> dict[str, int]:
    """{fingerprint: records} of all passes and preparations that a run's scoring and selection used. A stage names a
    pass twice that it used for the pool and for the target."""
    data = card["data"]
    pool, target = data.get("n_records") or 0, (data.get("target") or {}).get("n_records", 0)
    asked: dict[str, int] = {}
    for stage in ("score", "select"):
        used = (card["stages"].get(stage, {}).get("fingerprint") or "").split()
        asked = {one: pool + (target if used.count(one) > 1 else 0) for one in used} | asked
    return asked


def prices(store: Path, passes: Mapping[str, int]) -> dict[str, dict[str, Any]] | None:
    """{fingerprint: pass (its label) and forwards, tokens, flops and seconds of as many records as `passes` says}, for
    each pass that ran a model, and of each preparation; None where the store no longer has all. A line that a kill left
    unfinished is left out."""
    by_pass, store = {}, store.expanduser()
    for one, records in passes.items():
        tuned = store / "models" / one / "tuning.json"
        if tuned.is_file():
            report = json.loads(tuned.read_text(encoding="utf-8"))
            if "tokens" not in report:
                return None  # made before it was counted
            by_pass[one] = _preparation(report)
            continue
        path = store / "passes" / one / LEDGER
        if not path.parent.is_dir():
            return None
        total: Counter[str] = Counter()
        label = ""
        for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            label = line["pass"]
            total.update({key: line[key] for key in ("records", "forwards", "tokens", "seconds")})
            total["flops"] += 2 * line["parameters"] * line["tokens"]
        if total["records"]:
            share = min(1.0, records / total["records"])
            by_pass[one] = {"pass": label} | {key: total[key] * share for key in SUMS}
    return by_pass


def _preparation(tuning: Mapping[str, Any]) -> dict[str, Any]:
    """What a tuning took, from its tuning.json."""
    through = 2 if tuning["trainable_parameters"] < tuning["total_parameters"] else 3
    rows, tokens = through * tuning["rows"], through * tuning["tokens"]
    flops = 2 * tuning["total_parameters"] * tokens
    return {"pass": "preparation", "forwards": rows, "tokens": tokens, "flops": flops, "seconds": tuning["seconds"]}


def summed(several: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Forwards, tokens, flops and seconds of several passes together."""
    several = list(several)
    return {key: sum(one[key] for one in several) for key in SUMS}


def price(card: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the selection of a run costs: `passes`, a list; their sum; `tuning_seconds`, None where the tuned model came
    from the store, also in part; None where no pass was used, or the store no longer has them all."""
    stages = card["stages"]
    used = passes_of(card)
    store = card["config"].get("paths", {}).get("store")
    by_pass = prices(Path(store), used) if used and store else None
    if not by_pass:
        return None
    tune = stages.get("tune", {"status": "skipped"})
    whole = tune["status"] == "computed" and not tune.get("resumed")
    seconds = tune["seconds"] if whole else None
    return {"passes": list(by_pass.values())} | summed(by_pass.values()) | {"tuning_seconds": seconds}


def marginal(cards: Mapping[str, Mapping[str, Any]], kinds: Mapping[str, str]) -> dict[str, dict[str, float] | None]:
    """{method: forwards, tokens, flops and seconds of those of its passes that none of another kind uses}: what it adds
    where the others are there already. cards: method -> run card; None as in `prices`. kinds: method -> its kind."""
    users = Counter(one for one, _ in {(one, kinds[name]) for name, card in cards.items() for one in passes_of(card)})
    sums = {}
    for name, card in cards.items():
        store = card["config"].get("paths", {}).get("store")
        by_pass = prices(Path(store), passes_of(card)) if store else None
        own = [value for key, value in (by_pass or {}).items() if users[key] == 1]
        sums[name] = None if by_pass is None else summed(own)
    return sums
