"""`winnow publish`: the subset and the tuned model of a run as folders for the Hugging Face hub.

    <run>/publish/dataset/   README.md, data/train.parquet, scores.parquet, messages.jsonl, dataset_info.json
    <run>/publish/model/     README.md, and links to the files of the tuned model

`messages.jsonl` is the chat form that TRL, Axolotl and LLaMA-Factory all read; the card gives the lines that each
needs. Nothing leaves the machine without `push`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from winnow.config import build
from winnow.data.formats import file_format, read_table
from winnow.data.records import Record
from winnow.data.schemas import NO_COLUMNS, SCHEMAS
from winnow.errors import UserError, login
from winnow.pages.model_card import public_name, result_parts, tuned_model_card
from winnow.store.files import read_json, replacing, write_json, write_lines
from winnow.store.run_folder import earlier_output, present

FILE = "messages.jsonl"
ROLES = {
    "formatting": "sharegpt",
    "columns": {"messages": "messages"},
    "tags": {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
        "system_tag": "system",
    },
}
LINES = f"""\
TRL:

```python
dataset = load_dataset("json", data_files="{FILE}", split="train")
SFTTrainer(model, train_dataset=dataset).train()
```

Axolotl:

```yaml
datasets:
  - {{path: {FILE}, ds_type: json, type: chat_template}}
```

LLaMA-Factory, with this folder as it is:

```yaml
dataset_dir: path/to/this/folder
dataset: subset
```
"""


def publish(run: Path, push: str | None) -> list[Path]:
    """Write the folders of a run: of its subset, and of its tuned model, if it has one.

    push: `owner/name` on the hub, to which they are sent as a private data set and a private model. Raises UserError
    for a run without a subset, for what the hub refuses, and before anything is sent for a model that was freed or a
    repository that is public.
    """
    card = read_json(present(run, "run_card.json", "report"), "command", "config", "data", "stages")
    model = run / "model"
    if model.is_symlink() and not model.exists():
        freed = (
            f"{run}: the store no longer has the tuned model; run stages=[tune,evaluate,report] with the settings of "
            f"`{card['command']}` and paths.run={run} to make it again."
        )
        if push is not None:
            raise UserError(freed)
        print(freed)
    folders = {"dataset": _dataset(run, card)}
    if model.exists():
        folders["model"] = _model(run)
    if push is not None:
        _push(folders, push)
    return list(folders.values())


def messages(record: Record) -> list[dict[str, str]]:
    """A record as turns; instruction and input become one, with a blank line between, as under template=chat."""
    asked = "\n\n".join(text for text in (record.instruction, record.input) if text)
    turns = [*record.turns, ("user", asked), ("assistant", record.output)]
    return [{"role": role, "content": text} for role, text in turns]


def _dataset(run: Path, card: Mapping[str, Any]) -> Path:
    manifest = read_json(earlier_output(run, "selection.json", "select"), "decisions", "method", "n_records", "n_valid")
    decisions = [one for one in manifest["decisions"] if one["selected"]]  # in the order of the subset
    records = _subset(run, card)
    if [record.id for record in records] != [one["id"] for one in decisions]:
        raise UserError(f"{run}: its subset does not hold the records that selection.json takes; run the stage select.")
    chats = [messages(record) for record in records]
    table = pa.table(
        {
            "id": [record.id for record in records],
            "score": [one["score"] for one in decisions],
            "rank": [one["rank"] for one in decisions],
            "instruction": [record.instruction for record in records],
            "input": [record.input for record in records],
            "output": [record.output for record in records],
            "messages": chats,
        }
    )
    folder = run / "publish" / "dataset"
    with replacing(folder) as partial:
        (partial / "data").mkdir(parents=True)
        pa.parquet.write_table(table, partial / "data" / "train.parquet")
        shutil.copyfile(earlier_output(run, "scores.parquet", "score"), partial / "scores.parquet")
        write_lines(partial / FILE, ({"messages": chat} for chat in chats))
        write_json(partial / "dataset_info.json", {"subset": {"file_name": FILE, **ROLES}})
        (partial / "README.md").write_text(_dataset_card(run, card, manifest, len(records)), encoding="utf-8")
    return folder


def _subset(run: Path, card: Mapping[str, Any]) -> list[Record]:
    """The selected records, read from the subset in the way the pool was read."""
    files = sorted(run.glob("subset.*"))
    if not files:
        raise UserError(f"{run} holds no subset; run the stage select in this folder first.")
    schema, columns = card["data"]["schema"], card["config"]["data"].get("columns")
    if columns is not None:  # an optional column may be in no selected record
        rows = read_table(files[0], file_format(files[0])).rows
        found = {key for row in rows if isinstance(row.value, Mapping) for key in row.value}
        columns = {field: name for field, name in columns.items() if field in NO_COLUMNS or name in found}
    pool = build(
        "data/file",  # with turns=last: rows of data.turns=every were cut when they were written
        source=card["data"]["source"],
        path=files[0],
        schema=schema if schema in SCHEMAS else "auto",
        on_error="fail",
        columns=columns,
        duplicates="keep",
    )
    return pool.records


def _dataset_card(run: Path, card: Mapping[str, Any], manifest: Mapping[str, Any], count: int) -> str:
    scorer = public_name((card["config"].get("scorer") or card["config"]["backbone"])["name"])
    pool = public_name(str(card["data"]["source"]))
    front = [
        "---",
        "tags: [winnow, instruction-tuning]",
        "configs:",
        "- {config_name: default, data_files: data/train.parquet}",
        "---",
    ]
    facts = [
        f"- pool: {pool}, {manifest['n_records']} records, fingerprint {card['data']['fingerprint']}",
        f"- method: {manifest['method']}; backbone: {scorer}; scored: {manifest['n_valid']}; selected: {count}",
        "- `data/train.parquet`: id, score, rank (1 is the best), texts and messages of the selected records",
        "- `scores.parquet`: score and components of every record of the pool, without its texts",
        f"- `{FILE}`: the selected records as chats",
    ]
    parts = [
        "\n".join(front),
        f"# {count} records of {pool}, selected by {manifest['method']}",
        "The texts are those of the pool, whose licence holds for them: name it here before you share them.",
        "\n".join(facts),
        f"Made with Winnow:\n\n    {card['command']}",
        "## Train on it",
        LINES.rstrip(),
        *result_parts(run),
    ]
    return "\n\n".join(parts) + "\n"


def _model(run: Path) -> Path:
    """The folder of the tuned model, whose weights stay where they are."""
    source, folder = (run / "model").resolve(), run / "publish" / "model"
    with replacing(folder) as partial:
        partial.mkdir()
        for file in sorted(source.iterdir()):
            if file.name != "README.md":
                (partial / file.name).symlink_to(file)
        (partial / "README.md").write_text(tuned_model_card(run), encoding="utf-8")
    return folder


def _push(folders: Mapping[str, Path], name: str) -> None:
    """Every repository is there and private before anything is sent."""
    from huggingface_hub import HfApi

    hub = HfApi()
    for send in (False, True):
        for kind, folder in folders.items():
            try:
                if send:
                    # What an earlier run left would be loaded with it: another adapter, for instance.
                    hub.upload_folder(folder_path=str(folder), repo_id=name, repo_type=kind, delete_patterns="*")
                    continue
                hub.create_repo(name, repo_type=kind, private=True, exist_ok=True)
                private = hub.repo_info(name, repo_type=kind).private
            except Exception as error:
                if not isinstance(error, (OSError, ValueError)) and type(error).__module__.split(".")[0] != "httpx":
                    raise
                reason = " ".join(str(error).split())[:300].rstrip(".")
                raise UserError(
                    f"The hub did not take {folder} as {name} ({reason}); {login(error)}check the name and the network."
                ) from error
            if not private:
                raise UserError(
                    f"The {kind} {name} is public on the hub, and a private one was expected, because the texts are "
                    f"the pool's: nothing was sent; make it private or give another name."
                )
