"""Run by test_prompts.py in two processes: `two_prompt_processes.py FOLDER` makes attacked prompts as the tasks of a
Slurm job do; each process writes down what it made."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from test_prompts import RECORDS, attack_of

from winnow.distributed import join, rank
from winnow.perturb.attacks import prompts
from winnow.store.artifacts import Store

if __name__ == "__main__":
    folder, made, real = Path(sys.argv[1]), [], prompts.rows_of
    join()
    prompts.rows_of = lambda attack, texts, asks=None: made.extend(one for one, _ in texts) or real(attack, texts, asks)
    table = prompts.attacked_prompts(attack_of("checklist"), RECORDS, Store(folder / "store"), progress=False)
    (folder / f"rank_{rank()}.json").write_text(json.dumps({"made": made, "prompts": table.prompts()}))
