"""What is saved is what ordinary transformers and peft load, and the backbone stays what it was."""

from __future__ import annotations

import copy
import json
import os
import random
from dataclasses import replace

import pytest
import torch
from composed import template
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors import SafetensorError
from safetensors.torch import save_file
from tiny_tuning import CPU, tiny_backbone, tiny_records, tuner
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from winnow.errors import UserError
from winnow.store.files import seal
from winnow.tuning.saving import (
    BACKBONE_FILE,
    HUB_NAMES,
    Prompt,
    load_tuned,
    model_card,
    save_tuned,
    tuned_identity,
    weights_digest,
)
from winnow.tuning.start import check_start
from winnow.tuning.trainable import shared_copy

IDS = torch.tensor([[5, 9, 2, 30, 1]])
SMALL = {"epochs": 1, "batch_size": 8, "micro_batch_size": 4, "learning_rate": 1e-2, "lora_r": 4}


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


@pytest.mark.parametrize(("saver", "kind"), [("model", SafetensorError), ("tokenizer", Exception)])
def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch, saver, kind):
    """The errors of safetensors and tokenizers are none of Python's OSError."""
    backbone = tiny_backbone()

    def save_pretrained(*_, **__):
        raise kind("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(getattr(backbone, saver), "save_pretrained", save_pretrained, raising=False)
    with pytest.raises(UserError, match="model cannot be written: No space left on device; choose a folder"):
        save_tuned(backbone.model, backbone, tmp_path / "model", {}, Prompt("{instruction}", True))
    assert not list(tmp_path.iterdir())


def test_sampling_values_without_sampling_do_not_end_a_tuning(tmp_path):
    """As in early copies of Llama 2: transformers reads them and refuses to write them. The token ids stay."""
    backbone = tiny_backbone()
    backbone.model.generation_config = GenerationConfig(temperature=0.9, top_p=0.6, eos_token_id=2)
    save_tuned(backbone.model, backbone, tmp_path / "model", {}, Prompt("{instruction}", True))
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "model").generation_config
    assert (found.eos_token_id, found.temperature) == (2, GenerationConfig().temperature)


def test_a_damaged_model_of_the_store_is_refused_by_name(tmp_path, monkeypatch):
    """One bit of a byte drawn at random: whoever reads weights is told, also where they cannot be computed anew, as of
    an earlier run's model or a start. Weights of another program have no checksums."""
    weights = tmp_path / "model" / "adapter_model.safetensors"
    weights.parent.mkdir()
    save_file({"a": torch.arange(8.0)}, weights)
    before, whole, draw = weights_digest(weights.parent), weights.read_bytes(), random.Random(0)
    seal(tmp_path)
    assert weights_digest(weights.parent) == before
    for _ in range(int(os.environ.get("WINNOW_TRIALS", "20"))):
        content = bytearray(whole)
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        weights.write_bytes(content)
        monkeypatch.setattr("winnow.store.files._sound", set())
        with pytest.raises(UserError, match="adapter_model.safetensors is damaged, so the model is not used"):
            weights_digest(weights.parent)
    (tmp_path / "DONE").unlink()
    weights.write_bytes(whole)
    assert weights_digest(weights.parent) == before


@pytest.mark.parametrize("mode", ["lora", "full"])
@pytest.mark.parametrize("tied", [True, False])
def test_two_lines_of_ordinary_code_load_what_was_tuned(mode, tied, tmp_path):
    """Same logits from plain transformers/peft as from `load_tuned`, and not those of the base model."""
    backbone = tiny_backbone(tied)
    backbone.model.save_pretrained(tmp_path / "base")
    backbone.model.config._name_or_path = str(tmp_path / "base")
    own = replace(backbone, model=copy.deepcopy(backbone.model))  # full tuning trains the weights that it is given
    result = tuner(mode=mode, **SMALL).fit(own, tiny_records(), tmp_path, trainer_args=CPU)
    saved = tmp_path / "model"
    assert result["path"] == str(saved)
    if mode == "lora":
        plain = AutoModelForCausalLM.from_pretrained(str(tmp_path / "base"))
        plain = PeftModel.from_pretrained(plain, str(saved)).eval()
        config = json.loads((saved / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == str(tmp_path / "base")
    else:
        plain = AutoModelForCausalLM.from_pretrained(str(saved)).eval()
    tuned = load_tuned(backbone, saved)
    assert torch.allclose(logits(plain), logits(tuned.model), atol=1e-6)
    assert float((logits(tuned.model) - logits(backbone.model)).abs().max()) > 1e-2
    assert AutoTokenizer.from_pretrained(str(saved))("w5 w9").input_ids == [5, 9]
    assert "- base: base (a local folder" in (saved / "README.md").read_text()


def test_full_tuning_holds_the_backbone_once(tmp_path):
    """The weights of an fp32 backbone are trained where they lie, so there is no second copy of them; an adapter's
    backbone keeps its values."""
    for mode in ("full", "lora"):
        backbone = tiny_backbone()
        before = {name: (p.data_ptr(), p.detach().clone()) for name, p in backbone.model.named_parameters()}
        tuner(mode=mode, **SMALL).fit(backbone, tiny_records(), tmp_path / mode, trainer_args=CPU)
        after = dict(backbone.model.named_parameters())
        assert all(after[name].data_ptr() == place for name, (place, _) in before.items())
        assert all(torch.equal(after[name], value) for name, (_, value) in before.items()) == (mode == "lora")


def test_adapters_do_not_alter_the_backbone(tmp_path):
    """Weights, flags, modes, module types and logits are those of before, after tuning and after loading."""

    def look(model):
        modules = [(name, type(m), m.training) for name, m in model.named_modules()]
        flags = [(name, p.requires_grad, p.dtype) for name, p in model.named_parameters()]
        return modules, flags, sorted(vars(model)), model.config.to_dict()

    backbone = tiny_backbone()
    before, weights = look(backbone.model), copy.deepcopy(backbone.model.state_dict())
    first = logits(backbone.model)
    tuner(mode="lora", gradient_checkpointing=True, **SMALL).fit(backbone, tiny_records(), tmp_path, trainer_args=CPU)
    tuned = load_tuned(backbone, tmp_path / "model")
    logits(tuned.model)
    assert look(backbone.model) == before
    assert all(torch.equal(weights[name], value) for name, value in backbone.model.state_dict().items())
    assert torch.equal(logits(backbone.model), first)


def test_a_shared_copy_has_its_own_modules_over_the_same_memory():
    model = tiny_backbone().model
    twin = shared_copy(model)
    mine, theirs = dict(model.named_parameters()), dict(twin.named_parameters())
    assert mine.keys() == theirs.keys()
    assert all(mine[n].data_ptr() == theirs[n].data_ptr() and mine[n] is not theirs[n] for n in mine)
    assert twin.lm_head.weight is twin.model.embed_tokens.weight  # tied stays tied
    assert not {id(m) for m in model.modules()} & {id(m) for m in twin.modules()}


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_bf16_backbone_trains_fp32_weights_and_saves_its_own_dtype(mode, tmp_path):
    """dtype=auto follows the backbone. The full model is saved as bf16, adapters as fp32."""
    backbone = tiny_backbone()
    backbone.model = backbone.model.to(torch.bfloat16)
    result = tuner(mode=mode, **SMALL).fit(backbone, tiny_records(), tmp_path, trainer_args=CPU)
    assert result["dtype"] == "bf16"
    tuned = load_tuned(backbone, tmp_path / "model").model
    kinds = {name: p.dtype for name, p in tuned.named_parameters()}
    assert {d for n, d in kinds.items() if "lora" not in n} == {torch.bfloat16}
    assert {d for n, d in kinds.items() if "lora" in n} == ({torch.float32} if mode == "lora" else set())
    assert torch.isfinite(logits(tuned)).all()


def test_the_identity_follows_the_weights(tmp_path):
    """Other weights, other identity; the base's own keys stay. A folder without weights is refused."""
    backbone = tiny_backbone()
    for seed in (0, 1):
        tuner(seed=seed, **SMALL).fit(backbone, tiny_records(), tmp_path / str(seed), trainer_args=CPU)
    identities = [tuned_identity(backbone.identity, tmp_path / str(seed) / "model") for seed in (0, 1)]
    assert identities[0]["name"] == identities[1]["name"] == "tiny"
    assert identities[0]["tuned"] != identities[1]["tuned"]
    assert load_tuned(backbone, tmp_path / "0" / "model").identity == identities[0]
    with pytest.raises(UserError, match="holds no tuned model"):
        load_tuned(backbone, tmp_path / "elsewhere")


def test_an_adapter_names_a_relative_base_by_its_place(tmp_path, monkeypatch):
    """A backbone given as `base` in one folder is found from another one."""
    backbone = tiny_backbone()
    backbone.model.save_pretrained(tmp_path / "base")
    backbone.model.config._name_or_path = "base"
    monkeypatch.chdir(tmp_path)
    tuner(**SMALL).fit(backbone, tiny_records(), tmp_path, trainer_args=CPU)
    monkeypatch.chdir(os.sep)
    found = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "model")
    assert torch.allclose(logits(found), logits(load_tuned(backbone, tmp_path / "model").model), atol=1e-6)


PLAIN = template("plain", with_input="w2 {instruction} w3 {input} w4", without_input="w2 {instruction} w4")
CHAT = template("chat")


@pytest.mark.parametrize(("mode", "template"), [("lora", PLAIN), ("full", CHAT)])
def test_the_lines_of_the_card_generate(mode, template, tmp_path, capsys):
    """They are run as they stand but for the folders. The tokenizer also gives token types, as many do, which no model
    takes. The prompt is the template's."""
    backbone = tiny_backbone()
    backbone.tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    backbone.tokenizer.chat_template = "{% for m in messages %}w7 {{ m['content'] }} {% endfor %}w9"
    backbone.model.save_pretrained(tmp_path / "base")
    backbone.name = backbone.model.config._name_or_path = str(tmp_path / "base")
    tuner(mode=mode, **SMALL).fit(backbone, tiny_records(), tmp_path, trainer_args=CPU, template=template)
    card = (tmp_path / "model" / "README.md").read_text()
    front, code = card.split("---")[1], card.split("```python\n")[1].split("```")[0]
    assert "base_model" not in front and "- base: base (a local folder" in card  # a place on this machine is no name
    assert f"- template: {template.name}" in card and "- transformers: " in card
    assert ("w2 {instruction} w4" if template is PLAIN else "w7 {instruction} w9") in code
    space = {}
    assert str(tmp_path) not in card
    code = code.replace("path/to/this/folder", str(tmp_path / "model"))
    exec(code.replace("path/to/base", str(tmp_path / "base")), space)
    assert space["answer"].shape[1] > space["ids"].shape[1] > 0


def test_the_card_of_a_packaged_backbone_names_the_hubs():
    name = HUB_NAMES["packaged:smollm2_135m"]
    card = model_card(name, "packaged:smollm2_135m", True, {}, None, Prompt("{instruction}", True), "fp32")
    assert f'base_model: "{name}"' in card and "rounded" in card
    assert f'from_pretrained("{name}", dtype="float32")' in card
    pinned = model_card("gpt2", "gpt2", True, {}, "abc", Prompt("{instruction}", True), "bf16")
    assert 'base_model: "gpt2"' in pinned and '("gpt2", revision="abc", dtype="bfloat16")' in pinned


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("adapter_config.json", b"{}", r"adapter_config.json lacks peft_type, r, target_modules"),
        ("adapter_config.json", b"", r"adapter_config.json cannot be read"),
        ("adapter_config.json", b"[]", r"adapter_config.json lacks"),
        ("adapter_model.safetensors", b"cut", r"cannot be loaded .*cut, missing or of another backbone"),
        ("adapter_model.safetensors", None, r"holds no tuned model"),
        ("model.safetensors", b"cut", r"cannot be loaded .*cut, missing or of another backbone"),
    ],
)
def test_damaged_files_of_an_adapter(name, content, expected, tmp_path):
    """And the weights of a full model."""
    mode = "full" if name == "model.safetensors" else "lora"
    tuner(**SMALL, mode=mode).fit(tiny_backbone(), tiny_records(), tmp_path, trainer_args=CPU)
    file = tmp_path / "model" / name
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(UserError, match=expected) as caught:
        load_tuned(tiny_backbone(), tmp_path / "model")
    assert "\n" not in str(caught.value)


def test_an_empty_object_in_place_of_the_backbones_identity(tmp_path):
    tuner(**SMALL).fit(tiny_backbone(), tiny_records(), tmp_path, trainer_args=CPU)
    (tmp_path / "model" / BACKBONE_FILE).write_text("{}")
    with pytest.raises(UserError, match="backbone.json lacks name"):
        check_start(tmp_path / "model", "lora", {"name": "tiny"})
