"""What a backbone cannot do is said when it is named or loaded, in one sentence with the cause first."""

from __future__ import annotations

import json
import shutil
from functools import partial
from unittest.mock import Mock

import pytest
import torch
from architectures import ARCHITECTURES, LLAMA, tiny_architecture
from composed import build
from peft import LoraConfig, get_peft_model
from tiny import tiny_model
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM, Gemma3Config, Llama4Config, T5Config
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from winnow.backbone import memory
from winnow.backbone.causal_model import CausalModel
from winnow.backbone.loading import folder_hash
from winnow.errors import UserError
from winnow.evaluation.shared_prompts import can_share_prompts
from winnow.tuning.saving import load_tuned
from winnow.tuning.trainable import with_adapters

backbone = partial(build, "backbone/hub", dtype="fp32")


@pytest.fixture
def folder(tiny_folder, tmp_path):
    return shutil.copytree(tiny_folder, tmp_path / "model")


def change(file, **values) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_no_sdpa_falls_back(folder, tokenizer, capsys):
    """BLOOM has eager attention alone: one sentence; the identity says what is used, not a word of networks."""
    tiny_architecture("bloom", ARCHITECTURES["bloom"][0]).save_pretrained(folder)
    source = backbone(name=str(folder))
    assert source.identity["attention"] == "eager"
    assert capsys.readouterr().out.count("has no SDPA attention: attn_implementation=eager is used.") == 1
    assert source.load().model.config._attn_implementation == "eager"


def test_caps_of_attention_are_not_left_out(folder, tokenizer, capsys):
    """Gemma-2 caps its attention, which SDPA of transformers 4 would leave out: eager, with one sentence."""
    tiny_architecture("gemma2", ARCHITECTURES["gemma2"][0] | {"attn_logit_softcapping": 0.01}).save_pretrained(folder)
    source = backbone(name=str(folder))
    loaded, ids = source.load().model, torch.arange(3, 40)[None]
    assert source.identity["attention"] == "eager" == loaded.config._attn_implementation
    assert capsys.readouterr().out.count("caps its attention: attn_implementation=eager is used.") == 1
    with_caps = loaded(ids).logits
    loaded.config.attn_logit_softcapping = None
    for layer in loaded.model.layers:
        layer.self_attn.attn_logit_softcapping = None
    assert (loaded(ids).logits - with_caps).abs().max() > 1e-4


def test_tuning_rwkv_does_not_change_its_backbone(folder):
    """With rescale_every=6 the last 2 of 8 blocks would be halved in place for evaluation, and doubled, in the weights
    that they share, when the copy with adapters (B = 0) is trained."""
    tiny_architecture("rwkv", ARCHITECTURES["rwkv"][0] | {"num_hidden_layers": 8}).save_pretrained(folder)
    change(folder / "config.json", rescale_every=6)
    loaded, ids = backbone(name=str(folder)).load(), torch.arange(3, 40)[None]
    before = loaded.model(ids).logits
    adapted = with_adapters(loaded.model, 2, 4, 0.0, "all-linear", seed=0).train()
    assert torch.allclose(adapted(input_ids=ids).logits, before, atol=1e-5)
    assert torch.equal(loaded.model(ids).logits, before)
    assert load_tuned(loaded, folder).model.config.rescale_every == 0


def test_jamba_needs_no_kernels(folder):
    """Its configuration asks for them by default, and its layers then refuse a CPU."""
    tiny_architecture("jamba", ARCHITECTURES["jamba"][0] | {"use_mamba_kernels": True}).save_pretrained(folder)
    assert not backbone(name=str(folder)).load().model.config.use_mamba_kernels


@pytest.mark.parametrize(
    ("kind", "name"), [(Llama4Config, "Llama4ForCausalLM"), (Gemma3Config, "Gemma3ForConditionalGeneration")]
)
def test_the_skeleton_is_of_the_class_that_is_loaded(kind, name, tmp_path):
    """Of Llama-4 the text model alone, from its part of the configuration; of Gemma-3 the whole."""
    small = {"hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 32, "num_attention_heads": 4}
    kind(text_config=LLAMA | {"num_local_experts": 2}, vision_config=small).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").touch()
    skeleton = backbone(name=str(tmp_path)).skeleton
    assert type(skeleton).__name__ == name and skeleton.get_input_embeddings().weight.shape == (259, 32)


def test_sdpa_where_there_is_one(folder):
    source = backbone(name=str(folder))
    assert source.identity["attention"] == "sdpa" == source.load().model.config._attn_implementation


def test_attention_of_a_gpu_is_tried_there(folder, monkeypatch):
    """An attention that transformers knows by a name of its own stands for `flash_attention_2`, which is not here."""
    moved = []
    monkeypatch.setattr(memory, "on_device", lambda model, trainer: moved.append(trainer) or model)
    AttentionInterface.register("of_a_gpu", sdpa_attention_forward)
    loaded = backbone(name=str(folder), attn_implementation="of_a_gpu").load()
    assert moved == [{}] and not can_share_prompts(loaded.model)
    assert can_share_prompts(backbone(name=str(folder)).load().model) and len(moved) == 1
    with pytest.raises(UserError, match="could not be loaded by AutoModelForCausalLM: Flash"):
        backbone(name=str(folder), dtype="bf16", attn_implementation="flash_attention_2").load()


def test_flash_attention_has_no_fp32():
    """Neither 2 nor 3; both have bf16."""
    for number in (2, 3):
        with pytest.raises(UserError, match=f"flash_attention_{number} has no fp32.*: give backbone.dtype=bf16, or"):
            backbone(name="any", attn_implementation=f"flash_attention_{number}")
        assert backbone(name="any", dtype="bf16", attn_implementation=f"flash_attention_{number}").lacks_fp32


def test_weights_that_are_not_finite(folder):
    model = tiny_model()
    model.model.layers[1].mlp.up_proj.weight[3, 4] = float("nan")
    model.model.norm.weight[0] = float("inf")
    model.save_pretrained(folder)
    with pytest.raises(UserError, match=r"not finite \(first: model.layers.1.mlp.up_proj.weight; 2 tensors in all\)"):
        backbone(name=str(folder)).load()


def test_logits_that_are_not_finite(folder):
    """Finite weights of 1e38 overflow on the way."""
    model = tiny_model()
    model.lm_head.weight.fill_(3e38)
    model.save_pretrained(folder)
    with pytest.raises(UserError, match="gives logits that are not finite"):
        backbone(name=str(folder)).load()


def test_adapter_folder(folder):
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "some/base"}))
    with pytest.raises(UserError, match="is an adapter, not a model: set backbone.name to some/base.*start.path=/"):
        backbone(name=str(folder)).identity  # noqa: B018
    for content, told in (("{}", "lacks base_model_name_or_path"), ("{", "cannot be read")):
        (folder / "adapter_config.json").write_text(content)
        with pytest.raises(UserError, match=f"adapter_config.json {told}.*; it is an adapter's: set backbone.name to"):
            backbone(name=str(folder)).identity  # noqa: B018


def test_adapter_of_the_hub(folder, tmp_path):
    """transformers would load the base and put the adapter into it; the next adapter would join that one."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    get_peft_model(model, LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path / "adapter")
    for file in (folder / "config.json", *folder.glob("*token*")):
        shutil.copy(file, tmp_path / "adapter")
    source = backbone(name="some/adapter")
    source.folder = str(tmp_path / "adapter")  # what the hub would give
    with pytest.raises(UserError, match="some/adapter is an adapter, not a model: .* start=model start.path=FOLDER"):
        source.load()


def test_no_weights_or_pickled_ones_only(folder):
    (folder / "model.safetensors").unlink()
    for _ in range(2):
        with pytest.raises(UserError, match="pytorch_model.bin.*safe_serialization=True"):
            backbone(name=str(folder)).check_window(1, "")
        torch.save({}, folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError("a/b does not appear to have a file named config.json."), "a/b is an adapter, not a model"),
        (OSError("or do not set `use_safetensors=True`."), "pytorch_model.bin.*safe_serialization=True"),
        (Exception("data did not match any variant"), "could not be loaded by AutoConfig: data did not match"),
    ],
)
def test_what_the_hub_lacks(monkeypatch, error, told):
    """In the words of transformers and tokenizers. Memory that ended is no fault of the model."""
    load = Mock(side_effect=[error, MemoryError])
    monkeypatch.setattr(AutoConfig, "from_pretrained", load)
    monkeypatch.setattr("transformers.utils.find_adapter_config_file", lambda name, revision: name)
    with pytest.raises(UserError, match=told):
        backbone(name="a/b").check_window(1, "")
    with pytest.raises(MemoryError):
        backbone(name="a/b").check_window(1, "")


def test_a_tokenizer_that_was_cut(folder):
    (folder / "tokenizer.json").write_text('{"model": {}}')
    with pytest.raises(UserError, match="could not be loaded by AutoTokenizer: "):
        backbone(name=str(folder)).tokenizer  # noqa: B018


def test_no_tokenizer(folder):
    for file in folder.glob("*token*"):
        file.unlink()
    with pytest.raises(UserError, match="holds no tokenizer"):
        backbone(name=str(folder)).tokenizer  # noqa: B018


def test_no_end_token(folder):
    change(folder / "tokenizer_config.json", eos_token=None)
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    with pytest.raises(UserError, match="without an end-of-sequence token"):
        backbone(name=str(folder)).tokenizer  # noqa: B018


@pytest.mark.parametrize("kind", ["pad", "bos"])
def test_special_token_without_an_embedding(folder, kind):
    """A token that was added to the tokenizer alone gets the number 259; the model has rows 0 to 258."""
    tokenizer = backbone(name=str(folder)).tokenizer
    tokenizer.add_special_tokens({f"{kind}_token": "<|new|>"})
    tokenizer.save_pretrained(folder)
    with pytest.raises(UserError, match=rf"has 259 embeddings, .* tokenizer's {kind}_token '<\|new\|>' is token 259"):
        backbone(name=str(folder)).tokenizer  # noqa: B018


def test_markers_without_an_embedding(folder):
    """A marker added to the tokenizer alone gets the number 259; the model has rows 0 to 258."""
    tokenizer = backbone(name=str(folder)).tokenizer
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tokenizer.save_pretrained(folder)
    backbone(name=str(folder)).check_markers()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    tokenizer.chat_template = "{% for m in messages %}{{ '<|turn|>' + m['content'] }}{% endfor %}"
    tokenizer.save_pretrained(folder)
    with pytest.raises(UserError, match=r"has 259 embeddings, but its chat template writes <\|turn\|>, whose"):
        backbone(name=str(folder)).check_markers()


def test_weights_that_git_lfs_did_not_fetch(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 9\n")
    with pytest.raises(UserError, match="model.safetensors is a pointer of Git LFS.*git lfs pull"):
        backbone(name=str(folder)).load()


def test_window_above_the_positions(folder):
    source = backbone(name=str(folder))
    source.check_window(2048, "template.max_length=2048")
    with pytest.raises(UserError, match="template.max_length=2048 with method.max_new_tokens=9 asks for 2057 tokens"):
        source.check_window(2057, "template.max_length=2048 with method.max_new_tokens=9")


def test_local_folder_gives_the_librarys_own_reason(folder):
    """A folder is there: no word about networks or names."""
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match="could not be loaded") as caught:
        backbone(name=str(folder)).load()
    assert "hub was asked" not in str(caught.value)


def test_load_tries_once(folder, monkeypatch):
    """What loading found is found for every later reader of the same model."""
    model = backbone(name=str(folder)).load().model
    monkeypatch.setattr(CausalModel, "_tried", lambda self: pytest.fail("tried again"))
    assert CausalModel(model)._found.readout == "head"


def test_an_encoder_decoder_model_is_one_sentence(tmp_path):
    T5Config(d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, vocab_size=32).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(UserError, match="could not be loaded by AutoModelForCausalLM: .*T5Config"):
        _ = backbone(name=str(tmp_path)).skeleton


def test_code_in_a_folder_is_part_of_its_identity(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "modeling.py").write_text("a = 1")
    before = folder_hash(str(tmp_path))
    (tmp_path / "modeling.py").write_text("a = 2")
    assert folder_hash(str(tmp_path)) != before
