"""Every experiment under conf/experiment is composed; the files are found by walking the tree."""

from __future__ import annotations

from functools import cache

import pytest
from composed import CONF, config, config_of_hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf, open_dict

from winnow import commands
from winnow.reproduce.tables import matches, read_paper
from winnow.sweeps.rows import expand
from winnow.sweeps.scale import rescaled
from winnow.tracking.names import identity

FILES = sorted(path.relative_to(CONF / "experiment") for path in (CONF / "experiment").glob("*/*.yaml"))
PAPER = CONF.parent / "experiments"
TABLES = {
    "ifd": {"main", "pre_experience", "families", "kinds"},
    "aifd": {"headline", "levels", "layers", "audit"},
    "consistency": {*(f"table{n}" for n in (1, 2, 3, 4, 6, 7, 8)), "figure_beta", "figure_pools", "figure_ratio"},
    "adg": {"main", "ablation", "backbones", "budget", "k", "layers", "cross_backbone", "chinese", "time"},
    "anit": {"table1", "table2", "table3", "table4", "figure2a", "figure2bc", "robustness", "multitask"},
    "verdict": {"main", "noise", "robust", "lds", "card"},
    "search": {"consistency", "anit"},
}


def test_the_walk_finds_every_table():
    """A renamed folder must not turn the tests below into empty ones."""
    found: dict[str, set[str]] = {}
    for path in FILES:
        found.setdefault(path.parts[0], set()).add(path.stem)
    assert found == TABLES


SEEN: dict[str, set[str]] = {}  # paper: overrides that one of its experiments was composed with, in this process


def covering(paper: str, jobs: list[list[str]]) -> list[list[str]]:
    """Few of the jobs in which every override of all of them occurs that is not in `SEEN`, of a seed one value, at
    least one job; not the two overrides that a job has for itself. `SEEN` grows."""
    kinds = [{word.split("=")[0] if "seed=" in word else word for word in job[:-2]} for job in jobs]
    seen = SEEN.setdefault(paper, set())
    left = set().union(*kinds) - seen
    seen |= left
    chosen = []
    while left or not chosen:
        chosen.append(max(range(len(jobs)), key=lambda i: len(left & kinds[i])))
        left -= kinds[chosen[-1]]
    return [jobs[i] for i in chosen]


@pytest.mark.parametrize("name", commands.experiments())
def test_jobs_compose_at_smoke_scale_and_are_rows_of_the_paper(name):
    """Every override of every job occurs in at least one job that is composed, resolved and scaled, of this experiment
    or of one before it of the same paper: whether an override is legal does not hang on its neighbours, and 168 jobs of
    six noises and eight data sets need eight compositions. No job is two rows of the paper unless the paper gives a
    range; where all jobs are composed, every row of the paper has a job or a reason why not, and never both."""
    given = [f"experiment={name}", "scale=smoke"]
    sweep = config_of_hydra(*given)
    assert sweep.hydra.mode.name == "MULTIRUN" and f"{sweep.table.paper}/{sweep.table.name}" == name
    jobs = jobs_of(*given)
    assert len({job[-2] for job in jobs}) == len(jobs)  # folders
    found = []
    for job in jobs if len(jobs) <= 12 else covering(name.split("/")[0], jobs):
        cfg = config_of_hydra(*job, "paths.run=run")
        choices = {str(key): str(value) for key, value in cfg.hydra.runtime.choices.items()}
        with open_dict(cfg):
            del cfg["hydra"]
        new, changes = rescaled(OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True), [])
        assert new["backbone"]["name"].startswith("packaged:") and changes
        found.append(identity(new["row"], choices, new["table"]["paper"]))
    printed = read_paper(PAPER / name / "paper.csv")
    settings = commands.table_settings(name)
    assert settings == OmegaConf.to_container(sweep.table, resolve=True)  # what `winnow table` reads, bases and all
    for job in found:
        assert name == "aifd/headline" or sum(matches(job, row.identity) for row in printed) <= 1, job
    if len(found) == len(jobs):
        for row in printed:
            why = any(all(row.identity.get(k) == str(v) for k, v in one["rows"].items()) for one in settings["not_run"])
            assert why != any(matches(job, row.identity) for job in found), row.identity


@pytest.mark.parametrize("name", ["consistency", "anit"])
def test_searches_compose(name):
    """Optuna's own keys and the objective are there; the values that a trial sets exist."""
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    trial = {
        "consistency": ["method.beta=3.0", "selection.limit=0.8"],
        "anit": ["noising.omega=0.1", "adversary.epsilon=0.1", "adversary.alpha=0.01", "adversary.weight=1.0"],
    }[name]
    cfg = config_of_hydra(f"experiment=search/{name}", *trial)
    assert {word.split("=")[0] for word in trial} == set(cfg.hydra.sweeper.params)
    assert cfg.objective.startswith("tuned/") and cfg.hydra.sweeper.direction in ("minimize", "maximize")


def test_an_experiment_has_the_last_word():
    """It stands behind config.yaml's own keys: its folder, its batches and its sweeper are those that count."""
    cfg = config_of_hydra("experiment=ifd/main")
    assert cfg.scoring.tokens_per_batch == "auto" and cfg.hydra.sweep.dir == "outputs/experiments/ifd/main/paper"


@cache
def jobs_of(*given: str) -> list[list[str]]:
    """The overrides of each job of a sweep."""
    sweeper = config_of_hydra(*given).hydra.sweeper
    params = {key: str(value) for key, value in sweeper.params.items()}
    return expand(list(sweeper.rows), params, list(given), OverridesParser.create().parse_overrides)


def words_of(name: str) -> list[tuple[dict[str, str], list[str]]]:
    """(key -> value, overrides) of each job of an experiment at its paper's scale."""
    return [(dict(word.split("=", 1) for word in job), job) for job in jobs_of(f"experiment={name}")]


def composed(job: list[str]) -> dict:
    return OmegaConf.to_container(config(*job, "paths.run=run"), resolve=True)


def test_ifd_scores_answers_of_one_token():
    """s(A) of a one-token answer needs a token before it. The template of `verdict/noise` puts none there; the one that
    IFD's rows bring writes "### Response:". `superfilter` and `sifd` have no score for all or half of such answers."""
    jobs = words_of("verdict/noise")
    methods = {words["method"] for words, _ in jobs}
    assert "ifd" in methods and not {"superfilter", "sifd"} & methods
    for job in [job for words, job in jobs if words["method"] == "ifd" and words["seed"] == "0"]:
        cfg = composed(job)
        assert (cfg["template"]["direct"], cfg["method"]["template"]["direct"]) == ("", "### Response:")


@pytest.mark.parametrize("name", ["headline", "levels", "layers", "audit"])
def test_the_attacks_of_a_table_are_greedy_and_smaller_scales_substitute_them(name):
    """At the paper's scale every attack in use searches greedily with the papers' resources; at smoke it does not, and
    the two changes are among those that are printed, once each. What the command line sets stays."""
    job = next(job for words, job in words_of(f"aifd/{name}") if words.get("method") != "random")
    cfg = composed(job)
    attacks = cfg["attack"]["use"]
    if cfg["method"].get("attacks"):
        attacks = attacks | {f"method {key}": one for key, one in cfg["method"]["attacks"].items()}
    assert {(one["search"], one["resources"]) for one in attacks.values()} == {("greedy", "paper")}
    small = composed([*job, "scale=smoke"])
    new, changes = rescaled(small, [])
    used = [*new["attack"]["use"].values(), *new["method"].get("attacks", {}).values()]
    assert {(one["search"], one["resources"]) for one in used} == {("random", "offline")}
    assert {key: value for key, value in changes.items() if key.endswith((".search", ".resources"))} == {
        "attack.search": ["greedy", "random"],
        "attack.resources": ["paper", "offline"],
    }
    assert rescaled(small, ["attack.search"])[0]["attack"]["search"] == "greedy"


def test_rows_of_aifd_and_ifd():
    """1%, 5% and 10% by four methods; pre-experience with 100 clusters of 1 to 20 records; a random row."""
    rows = [words for words, _ in words_of("aifd/headline")]
    assert {(one["method"], one["selection.ratio"]) for one in rows if one["data"] == "alpaca"} == {
        (method, ratio) for method in ("random", "ifd", "aifd", "aioec") for ratio in ("0.01", "0.05", "0.1")
    }
    cfgs = [composed(job) for words, job in words_of("ifd/pre_experience") if "row.pre_experience" in words]
    sizes = [one["pre_experience"].get("clusters", 0) * one["pre_experience"].get("per_cluster", 0) for one in cfgs]
    assert sizes == [0, 100, 300, 500, 1000, 2000] == [one["row"]["pre_experience"] for one in cfgs]
    main = words_of("ifd/main")
    assert {words["data"] for words, _ in main if words.get("method") == "random"} == {"alpaca", "wizardlm"}
    assert {composed(job)["selection"]["budget"] for _, job in main[:2]} == {"valid"}
    assert composed(words_of("aifd/headline")[0][1])["selection"]["budget"] == "records"


def test_figures_of_anit():
    """2a: eight data sets, three backbones, omega 0.1 to 0.5 by five noises, and a baseline of each: 8 * 3 * (5 * 5 +
    1) jobs. 2b and c: FGSM, PGD and FreeLB at 5 rounds, ANIT with random replacement; FGM and NEFTune are ours."""
    rows = [words for words, _ in words_of("anit/figure2a")]
    assert len(rows) == 624 and len({(one["data"], one["backbone"]) for one in rows}) == 24
    assert sum(one["adversary"] == "none" for one in rows) == 24
    assert {one["noising.omega"] for one in rows if one["adversary"] == "nrm"} == {f"0.{n}" for n in range(1, 6)}
    job = next(job for words, job in words_of("anit/figure2a") if words["adversary"] == "none")
    assert composed(job)["row"]["omega"] is None
    rows = {(one["adversary"], one["noising"], one.get("adversary.rounds")) for one, _ in words_of("anit/figure2bc")}
    plain = {(name, "none", None) for name in ("none", "fgsm", "fgm", "neftune")}
    assert rows == plain | {("pgd", "none", "5"), ("freelb", "none", "5"), ("nrm", "replacement", None)}


def test_several_tasks_at_once():
    """All eight data sets in one pool, each asked with its own test set."""
    cfg = composed(words_of("anit/multitask")[0][1])
    assert cfg["data"]["dataset"] == cfg["evaluation"]["datasets"] and len(cfg["data"]["dataset"]) == 8
    assert cfg["table"]["average"] == "average/tasks"
