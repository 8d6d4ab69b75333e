"""What is checked of a configuration before anything long begins."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from composed import build, config
from transformers import OPTConfig, OPTForCausalLM

from winnow.backbone import memory
from winnow.errors import UserError
from winnow.stages.parts import build_parts
from winnow.stages.tune import recipe_of
from winnow.store.describe import describe


def test_memory_is_asked_for_the_passes_of_the_stages_alone(tiny_folder, tmp_path, monkeypatch):
    """A selection without passes needs none, where the scores do not fit."""
    words = [f"backbone.name={tiny_folder}", "backbone.dtype=fp32", f"paths.store={tmp_path}", f"paths.run={tmp_path}"]
    words += ["method=ifd", "template.max_length=64"]
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: SimpleNamespace(total=1000, available=1))
    build_parts(config(*words, "stages=[select]"))
    for stage in ("score", "evaluate"):
        with pytest.raises(UserError, match="needs at least"):
            build_parts(config(*words, f"stages=[{stage}]"))


def test_a_preparation_is_refused_before_the_passes(tiny_folder, tmp_path, monkeypatch):
    """35,168 weights take 16 bytes each in full tuning, 0.56 MB, and 0.27 MB in passes over 64 tokens."""
    words = [f"backbone.name={tiny_folder}", "backbone.dtype=fp32", f"paths.store={tmp_path}", f"paths.run={tmp_path}"]
    words += ["method=ifd", "template.max_length=64", "stages=[score]"]
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: SimpleNamespace(total=500_000, available=1))
    build_parts(config(*words))
    with pytest.raises(
        UserError, match=r"^pre_experience\.tuner\.mode=full of backbone\.name=.* needs at least 0\.00056"
    ):
        build_parts(config(*words, "pre_experience=ifd"))


def test_a_preparation_of_the_store_needs_no_memory(tiny_folder, tmp_path, monkeypatch):
    """What `trainer=fsdp` has tuned is scored with on one device, which could not have tuned it."""
    words = [f"backbone.name={tiny_folder}", "backbone.dtype=fp32", f"paths.store={tmp_path}", f"paths.run={tmp_path}"]
    words += ["method=ifd", "template.max_length=64", "stages=[score]", "pre_experience=ifd"]
    parts = build_parts(config(*words))
    made = {"pre_experience": describe(parts.pre_experience), "backbone": describe(parts.runner.source)}
    with (artifact := parts.runner.store.artifact("models", made)).claim():
        artifact.finish()
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: SimpleNamespace(total=500_000, available=1))
    build_parts(config(*words))
    with pytest.raises(UserError, match=r"^pre_experience\.tuner\.mode=full"):
        build_parts(config(*words, "pre_experience.seed=7"))


@pytest.fixture
def words(tiny_folder, tmp_path):
    own = [f"backbone.name={tiny_folder}", "backbone.dtype=fp32", f"paths.store={tmp_path}", f"paths.run={tmp_path}"]
    return [*own, "template.max_length=256", "tuning.lora_target_modules=all-linear"]


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["adversary=latent", "adversary.layer=3"], "adversary.layer=3 does not exist: .* has the blocks 1 to 2"),
        (["adversary=latent", "adversary.layer=0"], "adversary.layer=0 does not exist"),
        (
            ["method=less", "method.preparation.tuner.lora_target_modules=[x]"],
            "^method.preparation.tuner.lora_target_mod",
        ),
        (
            ["pre_experience=ifd", "pre_experience.tuner.mode=lora", "pre_experience.tuner.lora_target_modules=[x]"],
            "^pre_experience.tuner.lora_target_modules: the backbone has no module x",
        ),
        (["pre_experience._target_=builtins.dict"], "pre_experience: dict is no Preparation"),
        (["tuning._target_=builtins.dict"], "tuning: dict is no Tuner"),
        (["evaluation._target_=builtins.dict"], "evaluation: dict is no Suite"),
        (["start._target_=builtins.dict"], "start: dict is neither ModelStart nor PoolStart"),
        (["adversary=nrm", "noising=replacement", "distortion=openai"], "a key in the environment variable OPENAI"),
        (
            ["adversary=nrm", "noising=replacement", f"distortion._target_={__name__}.Unkept"],
            "does not keep its .* size",
        ),
        (
            ["selection=consistency", "selection.instructions.name=NOWHERE"],
            "sentence encoder NOWHERE could not be loaded",
        ),
    ],
)
def test_what_a_later_stage_lacks_is_told_before_the_first(overrides, told, words, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (tmp_path / "none").mkdir()
    given = [word.replace("NOWHERE", str(tmp_path / "none")) for word in overrides]
    with pytest.raises(UserError, match=told.replace("NOWHERE", str(tmp_path / "none"))):
        build_parts(config(*words, *given))


@pytest.mark.parametrize(("choice", "key"), [("tuning=full", "tuning"), ("pre_experience=ifd", "pre_experience.tuner")])
def test_full_tuning_in_fp32_under_flash_attention(choice, key, words):
    """The weights are fp32 whatever the backbone, and bf16 arithmetic alone casts them."""
    flash = ["backbone.dtype=bf16", "backbone.attn_implementation=flash_attention_2", "method=ifd", choice]
    with pytest.raises(UserError, match=f"^{key}.dtype=fp32: full tuning .*_2 lacks: give {key}.dtype=bf16, whose"):
        build_parts(config(*words, *flash, f"{key}.dtype=fp32"))


class Unkept:
    def __init__(self, size: int = 1) -> None:
        pass


def test_an_evaluation_alone_needs_no_key(words, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    build_parts(config(*words, "stages=[evaluate]", "adversary=nrm", "noising=replacement", "distortion=openai"))


def test_latent_needs_blocks_as_wide_as_the_embeddings():
    """As in OPT-350M: embeddings of 8 dimensions before blocks of 16."""
    with torch.device("meta"):
        settings = {"vocab_size": 9, "ffn_dim": 4, "num_hidden_layers": 1, "num_attention_heads": 2}
        model = OPTForCausalLM(OPTConfig(**settings, hidden_size=16, word_embed_proj_dim=8))
    runner = SimpleNamespace(source=SimpleNamespace(name="opt", skeleton=model))
    with pytest.raises(UserError, match=r"backbone.name=opt has in 8 dimensions and its blocks in 16"):
        recipe_of(build("tuning/full"), None, runner, None, build("adversary/latent", layer=1), None, None)
