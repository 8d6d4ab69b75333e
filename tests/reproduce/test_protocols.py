"""The presets of the noise-consistency and the ADG paper run the protocol that they are named after: read off the
composed configuration of every job at the papers' scale. Values are those of the papers, see docs/papers.md."""

from __future__ import annotations

from functools import cache

import pytest
from composed import CONF, config
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from lm_eval.tasks import TaskManager
from omegaconf import OmegaConf

from winnow.sweeps.rows import expand
from winnow.tracking.names import identity


@cache
def jobs(name: str) -> list[tuple[dict, dict[str, str]]]:
    """(resolved configuration, row in the paper's table) of every job of an experiment."""
    found = []
    with initialize_config_dir(str(CONF), version_base="1.3"):
        sweep = compose("config", overrides=[f"experiment={name}"], return_hydra_config=True)
        params = {key: str(value) for key, value in sweep.hydra.sweeper.params.items()}
        parse = OverridesParser.create().parse_overrides
        for job in expand(list(sweep.hydra.sweeper.rows), params, [f"experiment={name}"], parse):
            cfg = compose("config", overrides=[*job, "paths.run=run"], return_hydra_config=True)
            choices = {str(key): str(value) for key, value in cfg.hydra.runtime.choices.items()}
            parts = ("data", "backbone", "method", "selection", "pre_experience", "row")
            own = {part: OmegaConf.to_container(cfg[part], resolve=True) for part in parts}
            found.append((own | {"choices": choices}, identity(own["row"], choices, name.split("/")[0])))
    return found


def rows(name: str, **wanted: str) -> list[dict]:
    return [own for own, row in jobs(name) if all(row.get(key) == value for key, value in wanted.items())]


def test_q2q_is_run_with_its_pre_experience():
    """Table 1's Q2Q is IFD with the stage before it; all other rows score with the backbone as it is."""
    for own, row in jobs("consistency/table1"):
        assert (own["pre_experience"].get("clusters") == 100) == (row["method"] == "ifd"), row


@pytest.mark.parametrize(("backbone", "count"), [("qwen2_0_5b", 7280), ("qwen2_1_5b", 7800), ("llama2_7b", 6240)])
def test_rivals_have_as_many_records_as_ours(backbone, count):
    """14, 15 and 12% of Alpaca's 52,002 records: int(7280.28), int(7800.3), int(6240.24), whatever a filter leaves."""
    chosen = [own for own in rows("consistency/table1", backbone=backbone) if own["choices"]["method"] != "full"]
    assert chosen and {own["selection"]["count"] for own in chosen} == {count}
    if backbone == "llama2_7b":
        assert len(chosen) == 5
        for name in ("table3", "table4", "table7", "table8", "figure_beta"):
            counts = {own["selection"]["count"] for own, row in jobs(f"consistency/{name}") if row["method"] != "full"}
            assert counts - {None} == {6240}, name


def test_alpagasus_is_its_published_subset():
    """A fixed pool that is tuned on as a whole, on each of Table 1's backbones, as a row of Alpaca's part."""
    for table, backbones in (("table1", 3), ("table7", 3)):
        found = rows(f"consistency/{table}", method="alpagasus")
        assert len(found) == backbones and {own["choices"]["data"] for own in found} == {"alpagasus"}
        assert {(own["choices"]["method"], own["row"]["pool"]) for own in found} == {("full", "alpaca")}


def test_figure_5_has_both_strengths_and_the_full_data():
    """5 to 15% at beta 1 and at beta 10, beside the full data, on Llama2-7B."""
    found = jobs("consistency/figure_ratio")
    assert {row["backbone"] for _, row in found} == {"llama2_7b"}
    points = {(row["beta"], row["ratio"]) for _, row in found if row["method"] != "full"}
    shares = {"0.05", "0.08", "0.1", "0.12", "0.15"}
    assert points == {(beta, share) for beta in ("1", "10") for share in shares}
    assert [row["ratio"] for _, row in found if row["method"] == "full"] == ["1"]


@pytest.mark.parametrize("name", ["consistency/table2", "consistency/figure_pools"])
def test_flan_is_a_random_15000_and_dolly_keeps_35_percent(name):
    """FLAN: `data.sample`, drawn by seed; `data.limit` would take the first rows. Dolly: Table 6 keeps 5,153 of the
    14,702 that it counts, 0.3505; of 15,011 records that is int(0.35 * 15011) = int(5253.85)."""
    for own, row in jobs(name):
        flan = own["choices"]["data"] == "flan_cot"
        assert (own["data"]["sample"], own["data"]["limit"]) == ((15000, None) if flan else (None, None)), row
        if row["method"] != "full" and not flan:
            chosen = own["selection"]
            assert chosen["count"] == 5253 or (chosen["count"], chosen["ratio"]) == (None, 0.35)


def test_table_6_selects_35_percent_of_dolly():
    (dolly,) = [own for own, _ in jobs("consistency/table6") if own["choices"]["data"] == "dolly"]
    assert dolly["selection"]["ratio"] == 0.35


def test_table_4_is_llama2():
    """Its caption says so."""
    assert {row["backbone"] for _, row in jobs("consistency/table4")} == {"llama2_7b"}


def test_multiple_choice_is_answered_by_perplexity():
    """The options are ranked by their likelihood: the harness's output type `multiple_choice`, no generated letter."""
    wanted, manager = ["mmlu_anatomy", "commonsense_qa"], TaskManager()
    loaded = manager.load_task_or_group(wanted)
    assert {loaded[name].OUTPUT_TYPE for name in wanted} == {"multiple_choice"}
    assert {"mmlu", "commonsense_qa"} <= {task["task"] for task in config("evaluation=consistency").evaluation.tasks}


def test_the_limit_compares_instructions_by_sentence_vectors():
    """[paper 2.3]; the classes are those of the backbone's final hidden states over prompt and answer."""
    own = config("selection=consistency").selection
    assert own.instructions._target_.endswith("SentenceEmbedding") and own.instructions.region == "instruction"
    assert own.embedding._target_.endswith("BackboneEmbedding") and own.embedding.region == "all"


ADG = ["main", "ablation", "backbones", "budget", "k", "layers", "cross_backbone", "chinese", "time"]


@pytest.mark.parametrize("name", ADG)
def test_adg_bins_by_the_instruction_and_draws_from_the_likeliest_50(name):
    """Bins are of the instruction's text; `generate` of the published code leaves its library's top-k of 50 in force,
    beside temperature 1.4, top-p 0.9 and 256 tokens."""
    found = [own for own, _ in jobs(f"adg/{name}") if own["choices"]["method"] == "adg"]
    assert found
    for own in found:
        method, embedding = own["method"], own["selection"]["embedding"]
        drawn = [method[key] for key in ("top_k", "temperature", "top_p", "max_new_tokens")]
        assert drawn == [50, 1.4, 0.9, 256] and embedding["region"] == "instruction"


def test_adg_has_its_ablations():
    """Each part of the score alone at the top of the bins, and both parts at top, middle and bottom."""
    found = {
        (row["score"], row["part"]): (own["method"]["dispersion_weight"], own["method"]["anisotropy_weight"])
        for own, row in jobs("adg/ablation")
    }
    both = (0.6, 0.4)
    assert found == {
        ("both", "top"): both,
        ("both", "middle"): both,
        ("both", "bottom"): both,
        ("D", "top"): (1, 0),
        ("I", "top"): (0, 1),
    }
    rules = {row["part"]: own["choices"]["selection"] for own, row in jobs("adg/ablation")}
    assert rules == {"top": "adg", "middle": "adg_middle", "bottom": "adg_bottom"}


def test_adg_has_instruct_backbones_and_a_small_one():
    """The summary says Instruct, the scripts base: the main table has the latter, the further one the former."""
    names = {own["backbone"]["name"] for own, _ in jobs("adg/backbones")}
    assert names == {"meta-llama/Meta-Llama-3-8B-Instruct", "Qwen/Qwen2.5-7B-Instruct", "meta-llama/Llama-3.2-1B"}
    base = {own["backbone"]["name"] for own, _ in jobs("adg/main")}
    assert base == {"meta-llama/Meta-Llama-3-8B", "Qwen/Qwen2.5-7B"}
