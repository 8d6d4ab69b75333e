"""What `winnow publish` writes, and that it sends nothing unless it is asked to."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import yaml
from composed import config, places
from datasets import load_dataset

from winnow import commands, pipeline
from winnow.errors import UserError
from winnow.pages.model_card import tuned_model_card

ROWS = [
    {"instruction": "Name a fruit.", "input": "", "output": "A pear."},
    {"instruction": "Add.", "input": "1 + 1", "output": "The sum is two."},
    {"instruction": "Name a bird.", "input": "", "output": "No."},
]


@pytest.fixture
def run(tmp_path, tiny_folder):
    """method=length keeps the two longest answers of three records."""
    (tmp_path / "pool.json").write_text(json.dumps(ROWS))
    over = ["method=length", "selection.count=2", "data=file", f"data.path={tmp_path}/pool.json"]
    pipeline.run(config("stages=[score,select,report]", f"backbone.name={tiny_folder}", *over, *places(tmp_path)))
    return tmp_path / "run"


@pytest.fixture
def sent(monkeypatch):
    calls = []

    class Hub:
        public = ()

        def repo_info(self, name, repo_type):
            return SimpleNamespace(private=repo_type not in self.public)

        def create_repo(self, name, **given):
            calls.append(("create", name, given["repo_type"], given["private"]))

        def upload_folder(self, **given):
            assert given["delete_patterns"] == "*"  # nothing of an earlier run stays beside this one's files
            calls.append(("upload", given["repo_id"], given["repo_type"], given["folder_path"]))

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    return calls


def test_the_subset_as_parquet_and_as_the_chats_that_trainers_read(run, sent, capsys):
    """Two of three records, by hand: the sum has 15 bytes, the pear 7, `No.` 3; an input follows its instruction after
    a blank line. Nothing is sent. `load_dataset` reads the folder as the hub would, and the chats as TRL does."""
    commands.publish([str(run)])
    folder = run / "publish" / "dataset"
    assert f"{folder} is ready." in capsys.readouterr().out and not sent
    chats = [json.loads(line)["messages"] for line in (folder / "messages.jsonl").read_text().splitlines()]
    assert chats == [
        [{"role": "user", "content": "Name a fruit."}, {"role": "assistant", "content": "A pear."}],
        [{"role": "user", "content": "Add.\n\n1 + 1"}, {"role": "assistant", "content": "The sum is two."}],
    ]
    table = pq.read_table(folder / "data" / "train.parquet").to_pylist()
    assert [row["rank"] for row in table] == [2, 1] and [row["score"] for row in table] == [7.0, 15.0]
    assert [row["messages"] for row in table] == chats and table[1]["input"] == "1 + 1"
    assert len(pq.read_table(folder / "scores.parquet")) == 3
    assert load_dataset("json", data_files=str(folder / "messages.jsonl"), split="train")["messages"][:] == chats
    assert load_dataset(str(folder), split="train")["id"][:] == [row["id"] for row in table]
    info = json.loads((folder / "dataset_info.json").read_text())["subset"]
    assert (folder / info["file_name"]).is_file()
    assert set(chats[0][0]) == {info["tags"]["role_tag"], info["tags"]["content_tag"]}
    assert {turn["role"] for turn in chats[0]} == {info["tags"]["user_tag"], info["tags"]["assistant_tag"]}


def test_the_card_says_what_it_is(run):
    """Where the backbone lies is not said; another one that scored is."""
    commands.publish([str(run)])
    card = (run / "publish" / "dataset" / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["configs"] == [{"config_name": "default", "data_files": "data/train.parquet"}]
    assert "# 2 records of pool.json, selected by length" in card and "## Results" not in card
    assert "whose licence holds for them" in card
    lines = card.split("```yaml\n")
    assert yaml.safe_load(lines[1].split("```")[0])["datasets"][0]["type"] == "chat_template"
    assert yaml.safe_load(lines[2].split("```")[0])["dataset"] == "subset" and "; backbone: tiny; " in card
    made = json.loads((run / "run_card.json").read_text())
    made["config"]["scorer"] = {"name": "org/scorer"}
    (run / "run_card.json").write_text(json.dumps(made))
    commands.publish([str(run)])
    assert "; backbone: org/scorer; " in (run / "publish" / "dataset" / "README.md").read_text()


RESULTS = {
    "suite": "arc",
    "models": {
        "base": {"metrics": {"arc/acc": {"value": 0.25, "higher_is_better": True}}, "versions": {"lm-eval": "0.4.13"}},
        "tuned": {"metrics": {"arc/acc": {"value": 0.5, "higher_is_better": True}}},
    },
    "headline": ["arc/acc"],
    "comparison": {"arc/acc": {"difference": 0.25, "low": 0.1, "high": 0.4, "verdict": "win"}},
}


def test_a_model_goes_with_its_card_and_results(run, sent):
    """Two of three records are 66.7%. The weights are links to where they are, so that nothing is copied; the card of
    the store stays as it is; published twice it is the same folder."""
    store = run.parent / "store" / "models" / "x" / "model"
    store.mkdir(parents=True)
    (store / "adapter_model.safetensors").write_bytes(b"weights")
    (store / "README.md").write_text("---\nlibrary_name: peft\n---\n\n# tiny, tuned\n")
    (run / "model").symlink_to(store, target_is_directory=True)
    before = tuned_model_card(run)
    assert "- method: length\n- pool: pool.json, 3 records" in before and "## Results" not in before
    assert "- selected: 2 records, 66.7% of the pool" in before and str(run) not in before.split("- command")[0]
    (run / "results.json").write_text(json.dumps(RESULTS))
    for _ in range(2):
        commands.publish([str(run), "--push", "me/subset"])
    folder = run / "publish" / "model"
    assert (folder / "adapter_model.safetensors").read_bytes() == b"weights"
    text = (folder / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: peft\n---") and text.startswith(before.rstrip())
    assert "- arc/acc (high is good): base 0.2500, tuned 0.5000, +0.2500 [+0.1000, +0.4000], better" in text
    assert (store / "README.md").read_text().endswith("# tiny, tuned\n")
    assert sent[:4] == [
        ("create", "me/subset", "dataset", True),
        ("create", "me/subset", "model", True),
        ("upload", "me/subset", "dataset", str(run / "publish" / "dataset")),
        ("upload", "me/subset", "model", str(folder)),
    ]


@pytest.mark.parametrize("kind", ["dataset", "model"])
def test_nothing_is_sent_to_a_repository_that_is_public(run, sent, monkeypatch, kind):
    """`create_repo` leaves a public repository public: of the two, either one keeps both folders here."""
    store = run.parent / "store" / "models" / "x" / "model"
    store.mkdir(parents=True)
    (store / "README.md").write_text("---\nlibrary_name: peft\n---\n\n# tiny, tuned\n")
    (run / "model").symlink_to(store, target_is_directory=True)
    monkeypatch.setattr("huggingface_hub.HfApi.public", (kind,))
    with pytest.raises(UserError, match=f"The {kind} me/subset is public on the hub, .* nothing was sent"):
        commands.publish([str(run), "--push", "me/subset"])
    assert not [call for call in sent if call[0] == "upload"]


def test_repeats_have_their_own_ranks_and_an_optional_column_may_be_in_none(tmp_path, tiny_folder):
    """Three rows, the second a repeat of the first: with data.duplicates=keep two of them are taken, ranks 1 and 2. The
    system text is in the third row alone, so that the subset has no such column."""
    rows = [{"q": "Add 1 and 1.", "a": "The sum is two."}] * 2 + [{"q": "Name a bird.", "a": "No.", "s": "Be brief."}]
    (tmp_path / "pool.json").write_text(json.dumps(rows))
    over = ["method=length", "selection.count=2", "data=file", f"data.path={tmp_path}/pool.json"]
    over += ["data.duplicates=keep", "data.columns={instruction: q, output: a, system: s}"]
    pipeline.run(config("stages=[score,select,report]", f"backbone.name={tiny_folder}", *over, *places(tmp_path)))
    commands.publish([str(tmp_path / "run")])
    table = pq.read_table(tmp_path / "run" / "publish" / "dataset" / "data" / "train.parquet")
    assert sorted(table["rank"].to_pylist()) == [1, 2] and len(set(table["id"].to_pylist())) == 1


def test_a_model_that_the_store_freed_is_told_and_is_not_left_out_of_what_is_sent(run, sent, capsys):
    (run / "model").symlink_to(run.parent / "freed", target_is_directory=True)
    commands.publish([str(run)])
    told = capsys.readouterr().out
    assert "the store no longer has the tuned model; run stages=[tune,evaluate,report]" in told and "dataset is" in told
    with pytest.raises(UserError, match=rf"no longer has the tuned model; .* paths.run={run} to make it again"):
        commands.publish([str(run), "--push", "me/subset"])
    assert not sent


def test_what_cannot_be_published_is_one_sentence(run, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="run_card.json is missing"):
        commands.publish([str(tmp_path)])

    class Hub:
        def create_repo(self, name, **given):
            raise self.error

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    Hub.error = OSError("401 Client Error: Unauthorized")
    with pytest.raises(UserError, match="did not take .* as me/x .*run `hf auth login`, or check the name"):
        commands.publish([str(run), "--push", "me/x"])
    Hub.error = pytest.importorskip("httpx").ConnectError("no route")  # of the hub's client under transformers 5
    with pytest.raises(UserError, match=r"did not take .* as me/x \(no route\); check the name and the network"):
        commands.publish([str(run), "--push", "me/x"])
    for file in run.glob("subset.*"):
        file.unlink()
    with pytest.raises(UserError, match="holds no subset; run the stage select"):
        commands.publish([str(run)])
