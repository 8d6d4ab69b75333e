"""attacks.parquet, attacks.json and attacks.html: the attacked prompts of a run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import pyarrow as pa
import pyarrow.parquet as pq
from rapidfuzz.distance import Indel, Prefix

from winnow.data.records import Record
from winnow.pages.files import render
from winnow.perturb.attacks.audit import audit
from winnow.perturb.attacks.prompts import PromptTable
from winnow.store.files import replacing, write_atomically, write_json

PROMPTS_SHOWN = 50
CHARACTERS_SHOWN = 1500  # of one instruction
BEFORE_CHANGE = 500  # of them, before the first change
_PIECES = re.compile(r"\s+|[^\W_]+|[\W_]", re.UNICODE)


def write_attacks(folder: Path, tables: Mapping[str, PromptTable], records: Sequence[Record], scores: pa.Table) -> dict:
    """Write the three files into a run folder and return the audit, with the mean change of the loss under each attack
    (`loss_change`) and the share of answers that became less likely (`harder`), over the prompts that changed; None
    where the method does not measure it. Tables, records and scores line up."""
    numbers, changes = audit(tables), loss_changes(tables, scores)
    for name, row in numbers["attacks"].items():
        known = [one for one in changes[name] if one is not None]
        row["loss_change"] = round(fmean(known), 4) if known else None
        row["harder"] = round(fmean(one > 0 for one in known), 4) if known else None
    _write_table(folder / "attacks.parquet", tables, records)
    write_json(folder / "attacks.json", numbers)
    page = {"numbers": numbers, "groups": _groups(tables, records, changes), "pool": len(records)}
    html = render("pages/attack_page.html.j2", page, share=_share, decimals=_decimals)
    write_atomically(folder / "attacks.html", html)
    return numbers


def _write_table(path: Path, tables: Mapping[str, PromptTable], records: Sequence[Record]) -> None:
    """One row per record and attack, in the order of the records."""
    parts = []
    for name, table in tables.items():
        columns = table.table.drop_columns(["attack"])
        columns = columns.add_column(1, "row", pa.array([record.row for record in records], pa.int64()))
        columns = columns.add_column(2, "attack", pa.array([name] * len(table), pa.string()))
        columns = columns.add_column(3, "instruction", pa.array([r.instruction for r in records], pa.string()))
        parts.append(columns)
    rows = pa.concat_tables(parts).sort_by([("row", "ascending"), ("attack", "ascending")])
    with replacing(path) as partial:
        pq.write_table(rows, partial)


def loss_changes(tables: Mapping[str, PromptTable], scores: pa.Table) -> dict[str, list[float | None]]:
    """{attack: for each record, its answer's loss after the attacked prompt minus that after its own, nats per token};
    None where the prompt did not change or a loss is missing."""
    columns = {name: scores[name].to_pylist() for name in scores.column_names if name.startswith("nll_")}
    clean = columns.get("nll_conditioned", [None] * len(scores))
    changes = {}
    for name, table in tables.items():
        attacked = columns.get(f"nll_{name}", [None] * len(scores))
        changes[name] = [
            after - before if changed and after is not None and before is not None else None
            for changed, after, before in zip(table.table["success"].to_pylist(), attacked, clean, strict=True)
        ]
    return changes


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _decimals(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _groups(
    tables: Mapping[str, PromptTable], records: Sequence[Record], changes: Mapping[str, Sequence[float | None]]
) -> list[dict]:
    """Evenly spaced records with their attacked prompts, 50 prompts in total."""
    count = min(-(-PROMPTS_SHOWN // len(tables)), len(records))
    chosen = [i * len(records) // count for i in range(count)]
    rows = {name: table.table.take(chosen).to_pylist() for name, table in tables.items()}
    groups, shown = [], 0
    for place, i in enumerate(chosen):
        variants = []
        for name in list(tables)[: PROMPTS_SHOWN - shown]:
            row = rows[name][place]
            before, after = marked(records[i].instruction, row["prompt"] or "")
            sides = {"before": before, "after": after}
            variants.append(row | {"attack": name, "loss_change": changes[name][i]} | sides)
        shown += len(variants)
        groups.append({"row": records[i].row, "id": records[i].id, "variants": variants})
    return groups


def marked(original: str, attacked: str) -> tuple[list[tuple[bool, str]], list[tuple[bool, str]]]:
    """Both texts as (changed, stretch) pairs, compared word by word, blanks and punctuation each on their own.

    A long text shows the part around the first change. The comparison covers twice that part, because text that moves
    past the end of one side alone would look changed.
    """
    start = 0
    if max(len(original), len(attacked)) > CHARACTERS_SHOWN:
        start = max(0, Prefix.similarity(original, attacked) - BEFORE_CHANGE)
    before, after = (_PIECES.findall(text[start : start + 2 * CHARACTERS_SHOWN]) for text in (original, attacked))
    sides: tuple[list, list] = ([], [])
    for kind, a, b, c, d in Indel.opcodes(before, after):
        for side, stretch in zip(sides, ("".join(before[a:b]), "".join(after[c:d])), strict=True):
            changed = kind != "equal"
            if side and side[-1][0] == changed:
                side[-1] = (changed, side[-1][1] + stretch)
            elif stretch:
                side.append((changed, stretch))
    lead = [(False, "… ")] if start else []
    return lead + _cut(sides[0]), lead + _cut(sides[1])


def _cut(stretches: list[tuple[bool, str]]) -> list[tuple[bool, str]]:
    """No more than CHARACTERS_SHOWN characters."""
    shown, room = [], CHARACTERS_SHOWN
    for changed, text in stretches:
        if len(text) > room:
            shown.append((changed, text[:room] + " …"))
            break
        shown.append((changed, text))
        room -= len(text)
    return shown
