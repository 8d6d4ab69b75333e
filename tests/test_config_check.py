"""Unknown keys and options, and values of the wrong type, are one sentence before anything is computed."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Annotated, Any

import pytest
from composed import build, config
from hydra.errors import HydraException
from omegaconf import OmegaConf

from winnow import commands
from winnow.__main__ import main
from winnow.config import COMMANDS, POSITIVE, SHARES, _check_value, arguments, check, check_values
from winnow.errors import UserError
from winnow.messages import user_sentence


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["seed=abc"], "seed=abc is not a whole number; give a whole number."),
        (["seed=-1"], "seed=-1 is out of range; give a whole number from 0 to 4294967295."),
        (["seed=null"], "seed=null is not a whole number; give a whole number."),
        (["selection.count=ten"], "selection.count=ten is not a whole number; give a whole number, or null."),
        (["selection.count=1e3"], "selection.count=1000.0 has a decimal point; write selection.count=1000."),
        (["attack.query_budget=1e2"], "attack.query_budget=100.0 has a decimal point; write attack.query_budget=100."),
        (["selection.ratio=much"], "selection.ratio=much is not a number; give a number, or null."),
        (["selection=consistency", "selection.count=1.5"], "selection.count=1.5 is not a whole number; give a whole"),
        (
            ["selection=consistency", "selection.top_up=1"],
            "selection.top_up=1 is not true or false; give true or false.",
        ),
        (["tuning.max_steps=ten"], "tuning.max_steps=ten is not a whole number; give a whole number, or null."),
        (["tuning.epochs=two"], "tuning.epochs=two is not a whole number; give a whole number."),
        (["tuning.epochs=null"], "tuning.epochs=null is not a whole number; give a whole number."),
        (["tuning.epochs=true"], "tuning.epochs=true is not a whole number; give a whole number."),
        (["tuning.epochs=inf"], "tuning.epochs=inf is not a whole number"),
        (["evaluation.limit=ten"], "evaluation.limit=ten is not a whole number; give a whole number, or null."),
        (["pre_experience=ifd", "pre_experience.tuner.epochs=[1]"], "pre_experience.tuner.epochs=[1] is not a"),
        (["scoring.flush_seconds=soon"], "scoring.flush_seconds=soon is not a number; give a number."),
        (["method=aifd", "attack.max_words=few"], "attack.max_words=few is not a whole number"),
        (["tracking.csv=maybe"], "tracking.csv=maybe is not true or false"),
        (["method.name=3"], "method.name=3 is not a text; give a text."),
        (["evaluation.tasks=mmlu"], "evaluation.tasks=mmlu is not a list; give a list."),
        (["noising=padding", "noising.omega=[0.1]"], "noising.omega=[0.1] is not a number; give a number."),
        (["+selection.cont=3"], "selection.cont is no setting; did you mean selection.count? Known are ratio, count,"),
        (["+tuning.lora.r=3"], "tuning.lora is no setting"),
        (["method=aifd", "+attack.use.checklist.serch=greedy"], "method.attacks.checklist.serch is no setting; did"),
        (["~template.name"], "template.name is missing; give template.name=..."),
        (["~tuning"], "tuning is missing: write tuning=none."),
        (["~method"], "method is missing: leave ~method out."),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_a_wrong_type_is_one_sentence_with_its_key(overrides, told):
    with pytest.raises(UserError) as caught:
        check(config(*overrides))
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["selection.count=10", "selection.ratio=null", "tuning.max_steps=3", "tuning.learning_rate=1", "seed=7"],
        ["method=aifd", "selection=consistency", "pre_experience=ifd", "noising=padding", "adversary=nrm"],
        ["method=consistency", "method.betas=[1,10]", "method.beta=10", "evaluation=nlu_robust"],
        ["template.bos=auto", "data=file", f"data.path={__file__}", "backbone=hub", "start=model"],
    ],
)
def test_what_is_documented_passes(overrides):
    """Numbers where numbers stand, null where it may; what is missing is told elsewhere."""
    check(config(*overrides))


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("selection.cont=3", "selection.cont is no key; did you mean selection.count? Known are "),
        ("selecton.count=3", "selecton.count is no key; did you mean selection? Known are "),
        ("seeed=3", "seeed is no key; did you mean seed? Known are "),
        ("method=ifdd", "method=ifdd is no option; did you mean method=ifd? Known are adg, aifd, aioec, column,"),
        ("attack=[textbuger]", "attack=textbuger is no option; did you mean attack=textbugger? Known are "),
        ("experiment=ifd/mian", "experiment=ifd/mian is no option; did you mean experiment=ifd/main? Known are "),
        ("+experiment=ifd/main", "experiment is a key already: write experiment=... without the plus."),
        ("+selection.ratio=0.2", "selection.ratio is a key already: write selection.ratio=... without the plus."),
        ("+method=ifd", "method is a key already: write method=... without the plus."),
        ("++method=ifd", "method is a key already: write method=... without the plus."),
        ("data@start.pool=alpaca", "data@start.pool is a part of another option: give start=pool with it."),
        ("selection@selection.around=tpo", "selection@selection.around is a part of another option: give selection=eq"),
        ("data@targt=dolly", "Could not override 'data@targt'. Did you mean to override one of data, data@target?"),
        ("data@target=dollly", "data@target=dollly is no option; did you mean data@target=dolly? Known are "),
        ("backbone@scorer=gpt3", "backbone@scorer=gpt3 is no option; did you mean backbone@scorer=gpt2? Known are "),
        ("hydra/launcher=joblb", "hydra/launcher=joblb is no option; did you mean hydra/launcher=joblib? Known are "),
    ],
)
def test_an_override_that_hydra_cannot_use_is_one_sentence(override, told, monkeypatch):
    """Hydra's own advice, to put a plus before it, ends in an unknown argument: it is not given. Nor is a shared base
    (`_base`) an option."""
    monkeypatch.setattr(sys, "argv", ["winnow", override])
    with pytest.raises(HydraException) as caught:
        config(override)
    sentence = user_sentence(caught.value)
    assert sentence.startswith(told) and "\n" not in sentence and "+" not in sentence and "_base" not in sentence


class Above:
    def __init__(self, count: int, share: float = 0.1) -> None:
        self.count = count


class Below(Above):
    def __init__(self, mode: str | None, **further) -> None:
        super().__init__(**further)


def test_a_class_that_hands_arguments_on_takes_those_of_the_class_above():
    """Below names mode and hands the others to Above; a function that takes any name says so."""
    assert arguments(Below) == {"mode": (str | None, False), "count": (int, False), "share": (float, True)}
    assert "**" in arguments(lambda **any_name: None)


def test_a_marked_type_is_the_type_it_marks():
    """Annotated[int | None, ...] takes what int | None takes."""

    def made(count: Annotated[int | None, "free"] = 1) -> None: ...

    (kind, _) = arguments(made)["count"]
    _check_value("a.count", None, kind)
    with pytest.raises(UserError, match="a.count=ten is not a whole number; give a whole number, or null"):
        _check_value("a.count", "ten", kind)


def test_a_type_that_cannot_be_read_is_any():
    """`numpy` stands for what a type checker alone imports."""

    def made(rows) -> None: ...

    made.__annotations__["rows"] = "numpy.ndarray | None"
    assert arguments(made) == {"rows": (Any, False)}


def test_build_is_the_option_with_changes():
    """`${seed}` is that of the whole configuration: 0, or what the override says; an unknown argument is a sentence."""
    above = [build("method/ifd", **changes).filters[0] for changes in ({}, {"strict": True})]
    assert [one.open for one in above] == [False, True]
    assert (build("method/random").seed, build("method/random", "seed=7").seed) == (0, 7)
    assert build("attack/checklist").name == "checklist"
    with pytest.raises(UserError, match=r"method\.strickt is no setting; did you mean method\.strict\?"):
        build("method/ifd", strickt=True)
    with pytest.raises(UserError, match="method.max_ifd=high is not a number; give a number, or null"):
        build("method/ifd", max_ifd="high")


def test_build_raises_what_the_constructor_says():
    """Omega is a share: 2 is a number, so only the constructor can refuse it, alone or inside of another target."""
    with pytest.raises(UserError, match=r"^noising\.omega=2\.0 must be above 0 and at most 1"):
        build("noising/padding", omega=2.0)
    with pytest.raises(UserError, match=r"^tuning\.mode=half is unknown; choose one of lora, full"):
        build("pre_experience/ifd", "pre_experience.tuner.mode=half")


def test_help_is_quick_and_says_what_hydra_would(tmp_path):
    """Our page is Hydra's, which any further word on the command line gives; it is printed before Hydra is loaded."""
    code = "import sys; from winnow.__main__ import main; main(); assert not {'hydra', 'torch'} & set(sys.modules)"
    ours = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, cwd=tmp_path)
    assert ours.returncode == 0, ours.stderr
    words = [sys.executable, "-m", "winnow", "seed=0", "--help"]
    theirs = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert ours.stdout.split() == theirs.stdout.split() and "experiment/ifd: " in ours.stdout
    assert all(f"  {name} " in ours.stdout and callable(getattr(commands, name)) for name in COMMANDS)


@pytest.mark.parametrize(("word", "meant"), [("--verison", "--version"), ("help", "--help")])
def test_a_flag_that_is_nearly_one(word, meant, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["winnow", word])
    with pytest.raises(SystemExit, match=f"^error: {word} is no argument; did you mean `winnow {meant}`"):
        main()


def test_a_command_that_cannot_know_what_is_meant(tmp_path):
    """A table nearly named; a store of one's own, whose runs may lie anywhere."""
    with pytest.raises(UserError, match="found consistency/tabel1; did you mean consistency/table1"):
        commands.table(["consistency/tabel1"])
    (tmp_path / "passes" / "a").mkdir(parents=True)
    with pytest.raises(UserError, match=f"--free unused: give --runs FOLDER, .* with the store {tmp_path} lie"):
        commands.store([str(tmp_path), "--free", "unused"])
    assert (tmp_path / "passes" / "a").is_dir()
    commands.store([str(tmp_path), "--free", "unused", "--runs", str(tmp_path)])
    assert not (tmp_path / "passes" / "a").exists()


def test_a_missing_file_is_said_before_torch_is_imported(tmp_path):
    code = "import atexit, sys; atexit.register(lambda: print(*sys.modules)); from winnow.__main__ import main; main()"
    words = ["data=file", "data.path=gone.jsonl", "paths.run=run"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.startswith("error: gone.jsonl does not exist")
    assert "hydra" in done.stdout.split() and not {"torch", "transformers"} & set(done.stdout.split())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["selection.ratio=0"], "selection.ratio=0 must be above 0 and at most 1; 0.05 is 5 percent."),
        (["selection.ratio=1.5"], "selection.ratio=1.5 must be above 0 and at most 1; 0.05 is 5 percent."),
        (["tuning.batch_size=-1"], "tuning.batch_size=-1 must be above 0."),
        (["data=file", "data.path=gone.jsonl"], "gone.jsonl does not exist: give a file or folder that is there"),
        (["start=model", "start.path=gone"], "gone does not exist: give a file or folder that is there with start."),
        (["data.exclude=gone"], "gone does not exist: give a file or folder that is there with data.exclude="),
        (["data@target=file", "target.path=gone"], "gone does not exist: give a file or folder that is there with "),
        (["method=column", "method.path=gone"], "gone does not exist: give a file or folder that is there with "),
        (["evaluation=ifeval", "paths.eval=gone"], "with evaluation.mirror=..."),
        (["evaluation=nlu", "evaluation.path=gone"], "with evaluation.path=..."),
    ],
)
def test_values_are_checked_before_any_target_is_imported(words, sentence):
    """What is out of range, and a path that is not there; a start is not read where nothing is tuned."""
    with pytest.raises(UserError, match=re.escape(sentence)):
        check_values(config("paths.run=run", *words))
    check_values(config("paths.run=run", "stages=[score,select]", "start=model", "start.path=gone"))


def test_every_range_is_of_a_key():
    """A key that is renamed must not lose its range in silence."""
    cfg = config("paths.run=run")
    for key in (*SHARES, *POSITIVE):
        parent, _, name = key.rpartition(".")
        assert name in OmegaConf.select(cfg, parent)
