"""The presets of the noise-consistency and the ADG paper run the protocol that they are named after: read off the
overrides of every job at the papers' scale, and off composed configurations. Values are those of the papers, see
docs/papers.md."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import lm_eval
import pytest
from composed import CONF, config, config_of_hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from omegaconf import OmegaConf

from winnow.commands import table_settings
from winnow.sweeps.rows import expand

PARSE = OverridesParser.create().parse_overrides


@cache
def jobs(name: str) -> list[dict[str, str]]:
    """The overrides of every job of an experiment, by key; composing them all would take a minute."""
    sweeper = config_of_hydra(f"experiment={name}").hydra.sweeper
    params = {key: str(value) for key, value in sweeper.params.items()}
    found = expand(list(sweeper.rows), params, [f"experiment={name}"], PARSE)
    return [dict(word.split("=", 1) for word in job) for job in found]


def of(name: str, **wanted: str) -> list[dict[str, str]]:
    return [job for job in jobs(name) if all(job.get(key) == value for key, value in wanted.items())]


def composed(name: str, job: dict[str, str]):
    return config(*(f"{key}={value}" for key, value in job.items()), "paths.run=run")


def test_q2q_is_run_with_its_pre_experience():
    """Table 1's Q2Q is IFD with the stage before it: 100 clusters, about 1,000 records, one epoch. All other rows score
    with the backbone as it is."""
    for job in jobs("consistency/table1"):
        assert (job.get("pre_experience") == "ifd") == (job["method"] == "ifd"), job
    (q2q,) = of("consistency/table1", method="ifd")
    stage = composed("consistency/table1", q2q).pre_experience
    assert (stage.clusters, stage.per_cluster, stage.tuner.epochs) == (100, 10, 1)


@pytest.mark.parametrize(("backbone", "count"), [("qwen2_0_5b", "7280"), ("qwen2_1_5b", "7800"), ("llama2_7b", "6240")])
def test_rivals_have_as_many_records_as_ours(backbone, count):
    """14, 15 and 12% of Alpaca's 52,002 records: int(7280.28), int(7800.3), int(6240.24), whatever a filter leaves."""
    chosen = [job for job in of("consistency/table1", backbone=backbone) if job["method"] != "full"]
    assert len(chosen) == (5 if backbone == "llama2_7b" else 1)
    assert {job["selection.count"] for job in chosen} == {count}


@pytest.mark.parametrize("name", ["table3", "table4", "table7", "table8", "figure_beta"])
def test_the_other_tables_have_llama2s_count(name):
    chosen = [job for job in jobs(f"consistency/{name}") if job.get("method") != "full"]
    assert chosen and {(job["selection.count"], job["row.ratio"]) for job in chosen} == {("6240", "0.12")}


@pytest.mark.parametrize("table", ["table1", "table7"])
def test_alpagasus_is_its_published_subset(table):
    """A fixed pool that is tuned on as a whole, on each of the three backbones, as a row of Alpaca's part."""
    found = of(f"consistency/{table}", data="alpagasus")
    assert len({job["backbone"] for job in found}) == len(found) == 3
    assert {(job["method"], job["row.pool"], job["row.method"]) for job in found} == {("full", "alpaca", "alpagasus")}
    assert not table_settings(f"consistency/{table}")["not_run"]


def test_figure_5_has_both_strengths_and_the_full_data():
    """5 to 15% at beta 1 and at beta 10, beside the full data, on Llama2-7B."""
    name = "consistency/figure_ratio"
    points = {(job["method.beta"], job["selection.ratio"]) for job in of(name, method="consistency")}
    assert points == {(beta, share) for beta in ("1", "10") for share in ("0.05", "0.08", "0.1", "0.12", "0.15")}
    assert len(of(name, method="full")) == 1 and {job["backbone"] for job in jobs(name)} == {"llama2_7b"}


@pytest.mark.parametrize("name", ["consistency/table2", "consistency/figure_pools"])
def test_flan_is_a_random_15000_and_dolly_keeps_35_percent(name):
    """FLAN: `data.sample`, drawn by seed; `data.limit` would take the first rows. Dolly: Table 6 keeps 5,153 of the
    14,702 that it counts, 0.3505; of 15,011 records that is int(0.35 * 15011) = int(5253.85)."""
    for job in jobs(name):
        assert (job.get("data.sample") == "15000") == (job["data"] == "flan_cot") and "data.limit" not in job, job
        if job["data"] == "dolly" and job["method"] != "full":
            assert job.get("selection.count") == "5253" or job.get("selection.ratio") == "0.35"
    data = composed(name, of(name, data="flan_cot")[0]).data
    assert (data.sample, data.limit, data.seed) == (15000, None, 0)


def test_table_6_selects_35_percent_of_dolly():
    (dolly,) = of("consistency/table6", data="dolly")
    assert dolly["selection.ratio"] == "0.35"


def test_table_4_is_llama2():
    """Its caption says so."""
    assert {job["backbone"] for job in jobs("consistency/table4")} == {"llama2_7b"}


def test_multiple_choice_is_answered_by_perplexity():
    """The options are ranked by their likelihood: the harness's output type `multiple_choice`, no generated letter."""
    tasks = Path(lm_eval.__file__).parent / "tasks"
    for file in ("mmlu/default/_default_template_yaml", "commonsense_qa/default.yaml"):
        assert "output_type: multiple_choice\n" in (tasks / file).read_text(encoding="utf-8")
    assert {"mmlu", "commonsense_qa"} <= {task["task"] for task in config("evaluation=consistency").evaluation.tasks}


def test_the_limit_compares_instructions_by_sentence_vectors():
    """[paper 2.3]; the classes are those of the backbone's final hidden states over prompt and answer."""
    own = config("selection=consistency").selection
    assert own.instructions._target_.endswith("SentenceEmbedding") and own.instructions.region == "instruction"
    assert own.embedding._target_.endswith("BackboneEmbedding") and own.embedding.region == "all"


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "experiment" / "adg").glob("*.yaml")))
def test_adg_draws_from_the_likeliest_50(name):
    """`generate` of the published code leaves its library's top-k of 50 in force."""
    found = [job for job in jobs(f"adg/{name}") if job.get("method", "adg") == "adg"]
    assert found and {job["method.top_k"] for job in found} == {"50"}
    assert not any("method.top_k" in job for job in jobs(f"adg/{name}") if job not in found)


def test_adg_bins_by_the_instruction():
    """Bins are of the instruction's text; beside top-k 50 stand temperature 1.4, top-p 0.9 and 256 tokens."""
    cfg = composed("adg/main", of("adg/main", method="adg")[0])
    drawn = [cfg.method[key] for key in ("top_k", "temperature", "top_p", "max_new_tokens")]
    assert drawn == [50, 1.4, 0.9, 256] and cfg.selection.embedding.region == "instruction"


def test_adg_has_its_ablations():
    """Each part of the score alone at the top of the bins, and both parts at top, middle and bottom."""
    weights = ("method.dispersion_weight", "method.anisotropy_weight")
    found = {
        (job["row.score"], job["row.part"]): (job.get("selection"), *(job.get(key) for key in weights))
        for job in jobs("adg/ablation")
    }
    assert found == {
        ("both", "top"): ("adg", None, None),
        ("both", "middle"): ("adg_middle", None, None),
        ("both", "bottom"): ("adg_bottom", None, None),
        ("D", "top"): (None, "1", "0"),
        ("I", "top"): (None, "0", "1"),
    }
    own = config("method=adg", "selection=adg")
    assert (own.method.dispersion_weight, own.method.anisotropy_weight) == (0.6, 0.4)


def test_adg_has_instruct_backbones_and_a_small_one():
    """The summary says Instruct, the scripts base: the main table has the latter, the further one the former."""
    assert {job["backbone"] for job in jobs("adg/main")} == {"llama3_8b", "qwen2_5_7b"}
    names = {job["backbone"] for job in jobs("adg/backbones")}
    assert names == {"llama3_8b_instruct", "qwen2_5_7b_instruct", "llama3_2_1b"}
    hub = {OmegaConf.load(CONF / "backbone" / f"{name}.yaml").name for name in names}
    assert hub == {"meta-llama/Meta-Llama-3-8B-Instruct", "Qwen/Qwen2.5-7B-Instruct", "meta-llama/Llama-3.2-1B"}


EXPERIMENTS = sorted(
    path.relative_to(CONF / "experiment").with_suffix("").as_posix()
    for path in (CONF / "experiment").rglob("*.yaml")
    if not path.name.startswith("_") and path.parent.name != "search"  # which has trials in place of rows
)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_suites_of_an_experiment_can_be_built(name):
    """At the paper's scale, which no test runs. `heldout` reads pools."""
    for choice in {job.get("evaluation") for job in jobs(name)}:
        cfg = composed(name, {} if choice is None else {"evaluation": choice})
        if cfg.evaluation._target_ == "winnow.evaluation.suite.Suite":
            instantiate(cfg.evaluation)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_curve_holds_one_method(name):
    for figure in table_settings(name).get("figures", []):
        methods = {job["method"] for job in jobs(name) if "method" in job}
        told = {figure["x"], *figure["by"], *(figure.get("where") or {})}
        assert "method" in told or len(methods) < 2, figure


def test_published_tables_name_experiments_that_there_are():
    for page in (CONF.parent / "experiments").rglob("results-*.md"):
        assert set(re.findall(r"experiment=([\w/]+)", page.read_text())) <= set(EXPERIMENTS), page
