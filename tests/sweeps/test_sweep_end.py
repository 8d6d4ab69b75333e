"""How a sweep ends: what it refuses, which jobs it names, and when it writes its table. The jobs are stand-ins."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from composed import config
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins

from winnow import __main__ as command_line
from winnow import pipeline
from winnow.console import announce, sweep_lines
from winnow.errors import UserError
from winnow.reproduce.collect import _is_earlier
from winnow.sweeps.objective import check_objective, objective, results_of
from winnow.sweeps.scale import scaled

TABLE = "experiment=consistency/table3"  # method=random, consistency, consistency


@dataclass
class Seen:
    """What a command did: its jobs' configurations, the tables that it wrote, what it said at its end."""

    jobs: list = field(default_factory=list)
    tables: list = field(default_factory=list)
    told: str = ""


def job(cfg, status: str = "finished") -> dict:
    """Leaves a run card."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    (folder / "run_card.json").write_text(json.dumps({"status": status, "error": None}))
    return {"selected": 3}


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Calls `python -m winnow` in this process, with a stand-in for the pipeline and for the writing of tables."""
    monkeypatch.setattr("hydra.plugins.sweeper.Sweeper.validate_batch_is_legal", lambda *_: None)  # the launch does so

    def run(*words: str, run_job=job, publish=None, own=True) -> Seen:
        seen = Seen()
        monkeypatch.setattr(pipeline, "run", lambda cfg: seen.jobs.append(cfg) or run_job(cfg))
        note = lambda settings, folder, scale: seen.tables.append((settings["name"], str(folder), scale))  # noqa: E731
        monkeypatch.setattr("winnow.reproduce.publish.publish", publish or note)
        monkeypatch.setattr("winnow.console.sweep_lines", lambda *given: ["The end."])
        own = own and not any(word.startswith("hydra.sweep.dir") for word in words)
        monkeypatch.setattr(sys, "argv", ["winnow", *words, *([f"hydra.sweep.dir={tmp_path / 's'}"] if own else [])])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
        try:
            command_line.main()
        except SystemExit as ended:
            seen.told = str(ended.code)
        return seen

    return run


@pytest.fixture
def launcher(monkeypatch):
    """Puts a function (the launcher's own launch, jobs, first number) in the place of the launcher's."""
    make = Plugins.instantiate_launcher

    def put(function) -> None:
        def made(*given, **named):
            one = make(*given, **named)
            one.launch = partial(function, one.launch)
            return one

        monkeypatch.setattr(Plugins, "instantiate_launcher", made)

    return put


def test_a_sweep_that_ends_well(call, tmp_path):
    """Three jobs, one table, nothing to tell, no notes left."""
    seen = call(TABLE, "scale=smoke")
    assert len(seen.jobs) == 3 and seen.told == "" and seen.tables == [("table3", str(tmp_path / "s"), "smoke")]
    assert json.loads((tmp_path / "s" / "sweep.json").read_text())["began"] > 0
    assert not list((tmp_path / "s").glob(".jobs*"))


@pytest.mark.parametrize(
    "words",
    [
        (TABLE, "scale=smoke,small"),
        ("-m", TABLE + ",consistency/table4", "scale=smoke"),
        ("-m", TABLE, "scale=choice(smoke,small)"),
    ],
)
def test_several_experiments_or_scales_are_refused(call, words, tmp_path):
    """In one sentence, before any job; the sweep's folder and table are those of one experiment at one scale."""
    seen = call(*words)
    assert not seen.jobs and not seen.tables and not (tmp_path / "s").exists()
    assert "give one command for each" in seen.told and "run_all.py" in seen.told and "\n" not in seen.told


def test_a_folder_of_one_run_and_a_search_of_a_group_are_refused(call, monkeypatch):
    """Before any job: each process of a group would choose settings of its own for one model."""
    seen = call("-m", "method=random,ifd", "paths.run=x")
    assert not seen.jobs and "the jobs of a sweep lie below hydra.sweep.dir=FOLDER" in seen.told
    monkeypatch.setenv("WORLD_SIZE", "2")
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    search = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "seed=range(0,3)"]
    seen = call("-m", *search)
    assert not seen.jobs and "A search in a group of 2 processes" in seen.told


@pytest.mark.parametrize("way", ["hydra/launcher=joblib", "hydra/launcher=submitit_local", "hydra/sweeper=optuna"])
def test_jobs_of_several_devices_that_nothing_starts_are_refused(way, call):
    """Before any job: Lightning would start the whole command again for the second device. Slurm has tasks for it."""
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    words = ["-m", way, "seed=0,1", "trainer=ddp", "trainer.accelerator=cpu"]
    seen = call(*words, "trainer.devices=2")
    assert not seen.jobs and "cannot start several processes for a job; give trainer.devices=1, or give" in seen.told
    assert "hydra/launcher=submitit_slurm hydra.launcher.tasks_per_node=N trainer.devices=N" in seen.told


def test_jobs_and_changes_are_announced_and_the_end_is_told(call, capsys, monkeypatch):
    """Two methods: each job by what it alone has, and its number. At scale=smoke each change is printed once; `ifd` and
    `random` have the same ones. A third line ends the sweep. Of several processes the first one says it."""
    words = ["-m", "scale=smoke", "method=random,ifd", "selection.ratio=0.2"]
    call(*words, run_job=lambda cfg: job(scaled(cfg)))
    lines = capsys.readouterr().out.splitlines()
    jobs = [line for line in lines if line.startswith("Job ")]
    assert jobs == ["Job 1 of 2: method=random", "Job 2 of 2: method=ifd"] and lines[-1] == "The end."
    assert sum("tuning.max_steps" in line for line in lines) == 1 and lines[0].startswith("Sweep of 2 jobs in ")
    monkeypatch.setattr("winnow.distributed.is_leader", lambda: False)
    assert len(call(*words, run_job=lambda cfg: job(scaled(cfg))).jobs) == 2 and not capsys.readouterr().out


def test_the_end_of_a_sweep_is_ready_to_paste_and_says_where_no_verdict_is(tmp_path, monkeypatch):
    """A folder with a blank is quoted; the best parameters are as Hydra takes them, with all their digits."""
    (folder := tmp_path / "my sweep").mkdir()
    (folder / "optimization_results.yaml").write_text("best_value: 0.5\nbest_params: {a.b: -7.1234567, c: 1000}\n")
    row = {"method": "ifd", "value": 0.5, "seeds": [0], "against": None, "no_verdict": "random has no run"}
    summary = {"comparisons": [{"metric": "x", "pool": "p", "higher_is_better": True, "standings": [row]}]}
    monkeypatch.setattr("winnow.compare.verdicts.verdicts", lambda *given: summary)
    monkeypatch.setattr("winnow.compare.runs.read_runs", lambda folder: [SimpleNamespace(metrics=True)])
    monkeypatch.setattr("winnow.compare.dashboard.write_dashboard", lambda folder: folder)
    lines = sweep_lines(folder, [], {"paper": "p", "name": "t"})
    assert lines[1] == "Best trial: 0.5000 with a.b=-7.1234567 c=1000"
    assert lines[3] == "  ifd  0.5000  no verdict: random has no run"
    assert lines[-2:] == [f"  next       winnow compare '{folder}'", f"             winnow table p/t 'runs={folder}'"]


def test_a_run_names_the_backbone_that_scores(capsys):
    runner, scorer = (SimpleNamespace(source=SimpleNamespace(name=name, dtype="fp32")) for name in ("base", "other"))
    parts = SimpleNamespace(stages=["score"], method=SimpleNamespace(name="ifd"), runner=runner, scorer=scorer)
    counts = dict.fromkeys(("duplicates", "near_duplicates", "overlap", "n_quarantined"))
    announce(parts, {"source": "p", "n_records": 3, "unread": [], **counts})
    assert capsys.readouterr().out.endswith("| backbone base, fp32, scored by other\n")


def test_what_a_killed_sweep_left_is_removed_by_its_own_host(call, tmp_path, monkeypatch):
    """The notes of a process that is gone go; those of the host `gpu-1` are not those of `gpu`."""
    monkeypatch.setattr("platform.node", lambda: "gpu")
    own, other = (tmp_path / "s" / f".jobs-{host}-{2**31 - 1}-0a" for host in ("gpu", "gpu-1"))
    for left in (own, other):
        left.mkdir(parents=True)
    call("-m", "seed=1")
    assert not own.exists() and other.exists()


def test_a_sweep_is_named_by_what_it_is(call, tmp_path, monkeypatch):
    """The same command, in any order, has the same folder; another ratio has another one."""
    monkeypatch.chdir(tmp_path)
    for ratio in ("0.1", "0.1", "0.2"):
        call("-m", f"selection.ratio={ratio}", "method=random,length", "hydra.sweep.subdir=${hydra:job.num}", own=False)
    call("-m", "method=random,length", "selection.ratio=0.1", own=False)
    folders = sorted(path.name for path in (tmp_path / "outputs" / "sweeps").iterdir())
    assert [path.rpartition("-")[0] for path in folders] == ["random_length-0.1", "random_length-0.2"]


@pytest.mark.parametrize(
    ("words", "number"),
    [
        (("-m", "method=random,length", "seed=range(0,3)"), 6),
        ((TABLE, "scale=smoke", "seed=0,1"), 6),
        (("-m", "method=glob(l*)"), None),
    ],
)
def test_the_number_of_jobs(call, capsys, words, number):
    """Two methods by three seeds; three rows by two seeds; a pattern, which Hydra alone resolves."""
    call(*words)
    assert f"Sweep{f' of {number} jobs' if number else ''} in" in capsys.readouterr().out


def test_scales_of_a_sweep_without_an_experiment(call):
    """Its folder has no scale, and it has no table."""
    seen = call("-m", "scale=smoke,small", "method=random")
    assert [cfg.scale.name for cfg in seen.jobs] == ["smoke", "small"] and seen.told == "" and not seen.tables


def test_jobs_outside_of_the_sweeps_folder_are_named_and_make_no_table(call, tmp_path):
    """The sweep's folder hangs on a setting that the rows change: a failure in another folder is found all the same."""

    def bad(cfg):
        if cfg.method.name == "random":
            raise UserError("no ratio")
        return job(cfg)

    seen = call(TABLE, "scale=smoke", f"hydra.sweep.dir={tmp_path}/${{method.name}}", run_job=bad)
    first, second = seen.told.split("\n")
    assert first.startswith(f"error: 1 job of the sweep failed: {tmp_path}/random/") and first.endswith(": no ratio")
    assert "no table of consistency/table3 is written: 1 of 3 jobs, as " in second and not seen.tables


@pytest.mark.parametrize("subdir", ["same", "${seed}", "${data.limit}-${method.name}-${seed}/x"])
def test_two_jobs_never_write_one_folder(call, tmp_path, subdir):
    """Of three jobs the second and third would write where the first did: they are refused by name, and the folder
    tells of the first alone."""
    seen = call("-m", "selection.ratio=0.1,0.2,0.3", "method=random", f"hydra.sweep.subdir={subdir}")
    assert [cfg.selection.ratio for cfg in seen.jobs] == [0.1]
    folder = seen.told.split(": ")[2].split(", ")[0]
    assert seen.told.startswith("error: 2 jobs of the sweep failed: ") and "refused, as an earlier job" in seen.told
    assert "selection.ratio=0.1" in (tmp_path / "s" / folder / ".hydra" / "overrides.yaml").read_text()
    assert not (tmp_path / "s" / folder / "failed.json").exists()


def test_a_failed_job_keeps_its_verdict_when_another_is_refused(call, tmp_path):
    def bad(cfg):
        raise UserError("no ratio")

    told = call("-m", "seed=1,2", "method=random", "hydra.sweep.subdir=same", run_job=bad).told
    assert "same: no ratio" in told and "same: refused" in told
    assert json.loads((tmp_path / "s" / "same" / "failed.json").read_text())["error"] == "no ratio"


def test_a_folder_named_after_the_overrides(call, tmp_path):
    """A usual idiom: each job has its own folder, and a value that no file name holds is one sentence."""
    idiom = "hydra.sweep.subdir=${hydra.job.override_dirname}"
    seen = call("-m", "seed=1,2", "method=random", idiom)
    assert len(seen.jobs) == 2 and seen.told == ""
    seen = call("-m", "seed=1,2", f"data.path={'n' * 250}", idiom)
    assert "File name too long; give shorter names (a sweep: hydra.sweep.subdir=...)" in seen.told


def test_a_folder_that_another_job_gets_begins_a_wandb_run(call, tmp_path):
    """The number 0 keeps its job and its W&B run, though all compute elsewhere now; the number 1 has another job."""

    def tracked(cfg):
        folder = Path(HydraConfig.get().runtime.output_dir)
        (folder / "wandb").mkdir(exist_ok=True)
        with (folder / "wandb" / "run_id").open("a") as file:
            file.write(f"{cfg.method.name} ")
        hydra = {"overrides": list(HydraConfig.get().overrides.task)}
        (folder / "run_card.json").write_text(json.dumps({"status": "finished", "error": None, "hydra": hydra}))
        return {"selected": 3}

    call("-m", "trainer.devices=auto", "method=random,length", run_job=tracked)
    call("-m", "trainer=cpu", "trainer.devices=1", "method=random,ifd", run_job=tracked)
    found = [(tmp_path / "s" / number / "wandb" / "run_id").read_text() for number in "01"]
    assert found == ["random random ", "ifd "]


@pytest.mark.fault("Ctrl-C in a sweep", promise="one sentence with the number of jobs that finished", trials="1")
def test_an_interrupted_sweep_counts_its_jobs(call):
    """In the third of three jobs, of which one finished and one failed: one. There is no table; the next sweep of the
    process starts with none."""

    def interrupted(cfg):
        if cfg.method.name == "random":
            return job(cfg)
        if cfg.row.order == "high":
            raise UserError("no ratio")
        raise KeyboardInterrupt

    seen = call(TABLE, "scale=smoke", run_job=interrupted)
    assert len(seen.jobs) == 3 and not seen.tables
    told = "Interrupted. 1 job of the sweep finished. The store holds the finished results; the same command continues"
    assert seen.told == f"{told} from there."


def test_no_table_without_a_job_of_its_scale(call):
    """Rows that set the scale themselves: the table of the command's scale would be an empty one."""
    seen = call(TABLE, "hydra.sweeper.rows=['scale=smoke', 'scale=smoke method=random']")
    assert len(seen.jobs) == 2 and not seen.tables
    assert seen.told.startswith("error: no table of consistency/table3 at scale=paper is written")


def test_failed_jobs_are_named_when_the_table_cannot_be_written(call, capsys):
    """The user's error and ours; the same reason is told once."""

    def bad(cfg):
        raise UserError("no ratio")

    def publish(*given):
        raise UserError("disk full")

    told = call(TABLE, "scale=smoke", run_job=bad, publish=publish).told.split("\n")
    assert len(told) == 2 and told[0].startswith("error: 3 jobs of the sweep failed: ")
    assert told[1] == "error: disk full" and told[0].count("no ratio") == 1
    with pytest.raises(ZeroDivisionError):
        call(TABLE, "scale=smoke", run_job=bad, publish=lambda *given: 1 / 0)
    assert "3 jobs of the sweep failed" in capsys.readouterr().err


def test_a_launcher_that_breaks(call, launcher, tmp_path):
    """The first job is finished, the second is still said to be running, the third never began: the second one is
    named, the launcher's error is one sentence, the table is written. A second time the card of the first attempt does
    not count: a job that ends before it writes one is named too."""

    def breaking(launch, jobs, initial_job_idx):
        launch(jobs[:2], initial_job_idx)
        raise RuntimeError("A worker is gone:\nkilled\n------\nits log")

    def half(cfg):
        return job(cfg, "finished" if cfg.method.name == "random" else "running")

    launcher(breaking)
    seen = call(TABLE, "scale=smoke", run_job=half)
    first, second = seen.told.split("\n")
    assert first.startswith("error: 1 job of the sweep failed: consistency-") and first.endswith(
        "it was killed, or it still runs"
    )
    assert "ended early: RuntimeError: A worker is gone: killed (" in second and "its log" not in second
    assert len(seen.tables) == 1 and "ZeroDivision" not in (tmp_path / "s" / "sweep_error.txt").read_text()
    seen = call(TABLE, "scale=smoke", run_job=lambda cfg: {})
    assert seen.told.startswith("error: 2 jobs of the sweep failed: ") and len(seen.tables) == 1


def test_a_launcher_that_does_not_begin(call, launcher):
    """One sentence, and no table."""

    def broken(launch, jobs, initial_job_idx):
        raise FileNotFoundError("no sbatch")

    launcher(broken)
    seen = call(TABLE, "scale=smoke")
    assert seen.told.startswith("error: FileNotFoundError: no sbatch (its traceback: ") and not seen.tables


def test_only_picks_rows(call):
    """As it is written on the command line."""
    seen = call(TABLE, "scale=smoke", "hydra.sweeper.only={row.order: [high, mid], seed: [0, 1]}")
    assert len(seen.jobs) == 1 and seen.told == ""


def test_only_knows_keys_with_an_at(call):
    rows = "hydra.sweeper.rows=['method=random', 'method=ifd backbone@scorer=qwen2_0_5b', 'method=ifd']"
    seen = call(TABLE, "scale=smoke", rows, "hydra.sweeper.only={backbone@scorer: qwen2_0_5b}")
    assert [cfg.scorer.name for cfg in seen.jobs] == ["Qwen/Qwen2-0.5B"]


def test_an_only_without_keys_is_one_sentence(call):
    seen = call(TABLE, "scale=smoke", "hydra.sweeper.only=noise")
    assert "keys and values" in seen.told and seen.told.count("error:") == 1 and "\n" not in seen.told and not seen.jobs


def test_a_search_with_a_wrong_objective(call):
    """Every trial is refused before its first stage; the sweep names them all with one sentence, and the names that
    there are."""
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    seen = call("experiment=search/consistency", "scale=smoke", "hydra.sweeper.n_trials=2", "objective=tuned/speed")
    assert not seen.jobs
    first, second = seen.told.split("\n")
    assert first.startswith("error: 2 jobs of the sweep failed: 0, 1: objective=tuned/speed: a run with these")
    assert "tuned/embedded_choice/acc_norm" in first and first.count("objective=") == 1
    assert "ended early: ValueError: No trials are completed yet." in second


def test_a_search_returns_its_objective(call, tmp_path):
    """The better one of two trials."""
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    words = ["scale=smoke", "hydra.sweeper.n_trials=2", "hydra.sweeper.direction=maximize", "objective=selected"]
    found = iter((3.0, 5.0))
    seen = call("experiment=search/consistency", *words, run_job=lambda cfg: job(cfg) | {"selected": next(found)})
    assert seen.told == "" and "best_value: 5.0" in (tmp_path / "s" / "optimization_results.yaml").read_text()


def test_a_failed_job_of_several_processes_ends_the_sweep(call, monkeypatch, tmp_path):
    """They wait for one another: none goes on to the second job. A follower that hears the leader's end says so, and
    leaves its note alone."""

    def bad(cfg):
        raise UserError("no ratio")

    def cut(cfg):
        raise UserError("connection closed")

    monkeypatch.setattr("winnow.distributed.in_group", lambda: True)
    words = ["-m", "seed=1,2", "method=random", "hydra.sweep.subdir=${seed}"]
    seen = call(*words, run_job=bad)
    first, second = seen.told.split("\n")
    assert len(seen.jobs) == 1 and first == "error: 1 job of the sweep failed: 1: no ratio"
    assert second == "error: the sweep ended early: no ratio; the same command runs the missing jobs."
    monkeypatch.setattr("winnow.distributed.is_leader", lambda: False)
    seen = call(*words, run_job=cut)
    assert len(seen.jobs) == 1 and seen.told == "error: connection closed"
    assert json.loads((tmp_path / "s" / "1" / "failed.json").read_text())["error"] == "no ratio"


def test_a_job_that_was_started_twice_and_ends_well_is_finished(call, tmp_path):
    """The second start is refused while the first one runs, and leaves its note in the folder of both."""

    def twice(cfg):
        (tmp_path / "s" / "0" / "failed.json").write_text('{"error": "Another run is writing"}')
        return job(cfg)

    assert call("-m", "seed=1", "hydra.sweep.subdir=0", run_job=twice).told == ""


def test_clocks_of_two_hosts_may_differ():
    """A job is of an earlier sweep if it began a minute before the last one did."""
    assert [_is_earlier(began, 1000.0) for began in (900.0, 970.0, 1030.0)] == [True, False, False]


def test_an_objective_is_a_number_of_the_results():
    """What a sweeper optimises; a name that is not there, or that has no number, is one sentence."""
    assert objective({"detection_auc": 0.75}, "detection_auc") == 0.75
    for name in ("speed", "cut"):
        with pytest.raises(UserError, match=f"objective={name} is not a number in the results of this run: cut"):
            objective({"cut": None}, name)


def test_objectives_are_what_stages_and_suite_report():
    """Nothing is tuned: the base model's alone. A stage less: nothing of it. NLU: the data set's micro-F1, and with
    noises the mean over them. A start: its model's numbers too."""
    names = results_of(config("paths.run=run"))
    assert {"detection_auc", "final_loss", "base/embedded_choice/acc_norm"} <= {*names}
    assert "tuned/embedded_answers/bits_per_byte" in names
    assert "tuned/embedded_choice/acc" not in names and not any(name.startswith("start/") for name in names)
    assert not any("tuned/" in name or name == "steps" for name in results_of(config("tuning=none", "paths.run=run")))
    assert results_of(config("stages=[score]", "paths.run=run")) == ["scored", "records"]
    start = ["start=pool", "data@start.pool=lap14"]
    nlu = results_of(config("data=sst2", "evaluation=nlu_robust", *start, "paths.run=run"))
    assert {"tuned/sst2/clean/micro_f1", "start/average/sst2/noisy"} <= {*nlu}
    cfg = config("objective=tuned/sst2/micro_f1", "data=sst2", "evaluation=nlu", "stages=[evaluate]", "paths.run=run")
    check_objective(cfg)
    with pytest.raises(UserError, match="choose base/sst2/micro_f1, tuned/sst2/micro_f1"):
        check_objective(config("objective=sst2", "data=sst2", "evaluation=nlu", "stages=[evaluate]", "paths.run=run"))


def test_an_objective_that_needs_code_execution():
    """HumanEval is left out unless it is allowed, and the average that needs it."""
    headline = ["average/both", "humaneval/pass@1", "embedded_choice/acc"]
    common = [
        *("stages=[evaluate]", "tuning=none", "paths.run=run", f"evaluation.headline={headline}"),
        "evaluation.tasks=[{task: humaneval, num_fewshot: 0, metrics: [pass@1]},"
        " {task: embedded_choice, num_fewshot: 0, metrics: [acc]}]",
        f"+evaluation.averages.both={headline[1:]}",
    ]
    assert results_of(config(*common)) == ["base/embedded_choice/acc"]
    allowed = results_of(config(*common, "evaluation.allow_code_execution=true"))
    assert allowed == [f"base/{key}" for key in headline]
