"""Linear layers in 8 and 4 bits: their weights by the papers' formulas, passes and gradients as with the same rounded
weights in an ordinary model, adapters beside them, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from importlib.util import find_spec

import pytest
import torch
from architectures import ARCHITECTURES, tiny_architecture
from composed import build, template
from safetensors.torch import load_file, save_file
from tiny import tiny_model
from tiny_passes import TRAINER, compute, make_records
from tiny_tuning import CPU, tuner
from torch import nn

from winnow.backbone import loading, quantized
from winnow.backbone.loading import Backbone
from winnow.backbone.memory import check_sharing, shapes
from winnow.errors import UserError
from winnow.evaluation.shared_prompts import answer_loglikelihoods
from winnow.scoring.passes.gradient import LoraGradient
from winnow.scoring.passes.likelihood import Likelihood
from winnow.store.describe import describe
from winnow.tuning.data import MicroBatches, Step
from winnow.tuning.loss import MicroBatchLoss
from winnow.tuning.memory import check_tuning
from winnow.tuning.saving import load_tuned
from winnow.tuning.trainable import shared_copy, with_adapters

needs_library = pytest.mark.skipif(
    find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed: pip install bitsandbytes"
)
both = pytest.mark.parametrize("dtype", ["int8", "nf4"])
# QLoRA, appendix E.
NF4 = [-1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105004, 0.0]
NF4 += [0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0]
IDS = torch.arange(3, 51).view(4, 12)


@pytest.fixture(scope="module")
def load(tiny_folder):
    """dtype -> the tiny backbone, loaded once; nobody may change it."""
    loaded: dict[str, Backbone] = {}

    def of(dtype: str) -> Backbone:
        if dtype not in loaded:
            loaded[dtype] = build("backbone/hub", name=str(tiny_folder), dtype=dtype).load()
        return loaded[dtype]

    return of


def rounded(layer: nn.Module) -> torch.Tensor:
    """(outputs, inputs): the weights with which the layer computes, read off the unit vectors, which both keep."""
    with torch.no_grad():
        return layer(torch.eye(layer.in_features, dtype=torch.bfloat16)).float().T


def ordinary(backbone: Backbone) -> Backbone:
    """The same rounded weights in a bf16 model of ordinary layers."""
    model = tiny_model().bfloat16()
    with torch.no_grad():
        for name, layer in model.named_modules():
            own = backbone.model.get_submodule(name)
            if own in quantized.layers(backbone.model):
                layer.weight.copy_(rounded(own))
    return dataclasses.replace(backbone, model=model, identity=backbone.identity | {"dtype": "bf16"})


@needs_library
def test_nf4_by_the_paper(load):
    """A block of 64 is two rows here. w becomes m code[q], code[q] the nearest to w / m: m is about 0.2, so neighbours
    lie 0.016 or more apart, and the error of m in 8 bits and of bf16 stays below 0.002."""
    layer, code = load("nf4").model.model.layers[1].mlp.up_proj, torch.tensor(NF4)
    blocks = tiny_model().model.layers[1].mlp.up_proj.weight.bfloat16().float().reshape(-1, 64)
    largest = blocks.abs().amax(1, keepdim=True)
    nearest = (blocks / largest)[..., None].sub(code).abs().argmin(-1)
    assert (largest * code[nearest] - rounded(layer).reshape(-1, 64)).abs().max() < 0.002


@needs_library
def test_int8_by_the_paper(load):
    """w becomes s q / 127, s the largest |w| of its row: at most half of s / 127 off, and half of bf16's 2^-10 below
    0.25. Some weights are nearly so far off."""
    layer = load("int8").model.model.layers[1].mlp.up_proj
    weight = tiny_model().model.layers[1].mlp.up_proj.weight.bfloat16().float()
    off = (weight - rounded(layer)).abs() / (weight.abs().amax(1, keepdim=True) / 254 + 2**-11 + 1e-4)
    assert 0.5 < off.max() <= 1


@needs_library
@both
def test_what_is_quantised_and_what_it_is_called(dtype, load, tiny_folder):
    """The 7 projections of both layers; embeddings, norms and head are bf16. Weights are counted as before. The
    identity is another for each dtype, and accelerate's hooks, which would move inputs and originals, are gone."""
    backbone, plain = load(dtype), tiny_model()
    assert quantized.dtype_name(backbone.model) == dtype and len(quantized.layers(backbone.model)) == 14
    assert {w.dtype for w in backbone.model.parameters() if w.is_floating_point()} == {torch.bfloat16}
    assert backbone.model.lm_head.weight.dtype == torch.bfloat16 == backbone.model.dtype
    assert shapes(backbone.model) == shapes(plain) and shapes(plain).weights == plain.num_parameters()
    bf16, own = (describe(build("backbone/hub", name=str(tiny_folder), dtype=one)) for one in ("bf16", dtype))
    assert own == bf16 | {"dtype": dtype}
    assert not {"to", "cuda", "_hf_hook"} & set(vars(backbone.model))


@needs_library
@both
def test_a_pass_is_that_of_the_rounded_weights(dtype, load, tmp_path):
    """The arithmetic is bf16 with the rounded weights, so an ordinary model that holds these has the same likelihoods,
    to bf16's rounding; those of nf4's unrounded weights are further off."""
    records, own = make_records(8), load(dtype)
    passes = [
        compute(one, records, tmp_path / str(i), Likelihood("direct")).ragged("nll")[0]
        for i, one in enumerate((own, ordinary(own), load("bf16")))
    ]
    quantised, same, plain = map(torch.tensor, passes)
    assert (quantised - same).abs().max() < 0.1
    assert dtype == "int8" or (quantised - plain).abs().max() > 0.1


@needs_library
@both
def test_gradients_pass_through(dtype, load):
    """The loading's trials ran the layer without gradients, after which bitsandbytes on a CPU with bf16 instructions
    turns nf4 weights into a form without any. By hand: the slope of <a, W x> is a W."""
    layer = load(dtype).model.model.layers[0].self_attn.q_proj
    inputs = torch.linspace(-1, 1, 3 * 32).view(1, 3, 32).bfloat16().requires_grad_()
    slopes = torch.sin(torch.arange(32) * 12.9898).bfloat16()
    (layer(inputs) * slopes).float().sum().backward()
    expected = slopes.float() @ rounded(layer)
    assert torch.allclose(inputs.grad.float(), expected.expand(1, 3, 32), atol=0.02) and expected.abs().max() > 0.2


@needs_library
@both
def test_an_adversarys_gradient_is_that_of_the_rounded_weights(dtype, load, tokenizer):
    """With respect to the embeddings, as NRM, PGD and FGM ask for it: its cosine with the gradient in the ordinary
    model that holds the same weights is 1 but for the rounding of bf16."""
    records = [one for one in template("alpaca").encode(make_records(5), tokenizer, eos=True) if not one.flag]
    batch = MicroBatches(records, [Step(0, [list(range(len(records)))])])[0]
    gradients = []
    for model in (load(dtype).model, ordinary(load(dtype)).model):
        gradients.append(MicroBatchLoss(model, batch).gradient(model.get_input_embeddings()(batch.ids)).flatten())
    assert torch.cosine_similarity(*gradients, dim=0) > 0.95


@needs_library
@both
def test_record_gradients_are_those_of_autograd(dtype, load, tokenizer):
    """The hooks' norms for a batch, and autograd's for each record alone, to bf16's rounding."""
    adapted = with_adapters(load(dtype).model, 2, 4, 0.0, "all-linear", seed=0).get_base_model().eval()
    weights = [weight for name, weight in adapted.named_parameters() if "lora_" in name]
    for number, weight in enumerate(weights[1::2]):  # B, so that A has a gradient too
        weight.data.copy_(0.2 * torch.sin(torch.arange(weight.numel()) + number).view_as(weight))
    own = dataclasses.replace(load(dtype), model=adapted.requires_grad_(False))
    records = [one for one in template("alpaca").encode(make_records(5), tokenizer) if not one.flag]
    found = LoraGradient().module(own).predict_step(LoraGradient().collate(records) | {"shared": 0}, 0)["norm"]
    for record, norm in zip(records, found, strict=True):
        for weight in weights:
            weight.requires_grad_()
        logits = adapted(input_ids=torch.tensor([record.ids])).logits[0, record.answer_start - 1 : -1]
        loss = nn.functional.cross_entropy(logits.float(), torch.tensor(record.ids[record.answer_start :]))
        alone = torch.autograd.grad(loss, weights)
        assert norm == pytest.approx(float(sum(one.square().sum() for one in alone) ** 0.5), rel=0.05)


@needs_library
@both
def test_a_copy_shares_weights_and_scales_and_disturbs_nothing(dtype, load):
    model = load(dtype).model
    with torch.no_grad():
        before = model(IDS).logits
        copy = shared_copy(model)
        assert torch.equal(copy(IDS).logits, before)
        for one, other in zip(quantized.layers(model), quantized.layers(copy), strict=True):
            assert one is not other and one.weight is other.weight
            assert (
                one.scale.data_ptr() == other.scale.data_ptr()
                if dtype == "int8"
                else (one.quant_state is other.quant_state)
            )
        copy.train()(IDS)
        assert torch.equal(model(IDS).logits, before)


@needs_library
@both
def test_a_row_is_itself_beside_any_neighbour(dtype, load):
    """LLM.int8()'s own product takes the columns in which a neighbour has an entry of 6 or more out of the rounding."""
    layer = load(dtype).model.model.layers[0].mlp.gate_proj
    rows = torch.sin(torch.arange(64) * 1.7).view(1, 2, 32).bfloat16()
    with torch.no_grad():
        alone = layer(rows)[0, 0]
        rows[0, 1] = 100
        assert torch.equal(layer(rows)[0, 0], alone)


@needs_library
@both
def test_qlora(dtype, load, tmp_path):
    """Adapters of fp32 beside weights that stay as they are. Three records in 12 steps lose a tenth of a nat. The saved
    adapter loads beside the quantised weights, gives the evaluation the same likelihoods, and its page says which
    weights these are. Checkpointing computes the same."""
    backbone = load(dtype)
    with torch.no_grad():
        before = backbone.model(IDS).logits
    records = template("alpaca").encode(make_records(3), backbone.tokenizer, eos=True)
    settings = {"batch_size": 3, "micro_batch_size": 3, "lora_r": 4, "learning_rate": 1e-2, "max_steps": 12}
    settings["checkpoint_every_steps"] = 5
    results = [
        tuner(**settings, lora_dropout=0, gradient_checkpointing=again).fit(
            backbone, records, tmp_path / str(again), trainer_args=CPU
        )
        for again in (False, True)
    ]
    losses, same = ([step["loss"] for step in result["train_loss"]] for result in results)
    assert losses == pytest.approx(same, abs=1e-3) and losses[-1] < losses[0] - 0.1
    assert results[0]["dtype"] == "bf16" and results[0]["total_parameters"] == tiny_model().num_parameters()
    tuned = load_tuned(backbone, tmp_path / "False" / "model")
    batch = MicroBatches(records, [Step(0, [[0, 1, 2]])])[0]
    after = float(MicroBatchLoss(tuned.model, batch)(tuned.model.get_input_embeddings()(batch.ids)))
    assert after == pytest.approx(losses[-1], abs=0.1)
    pairs = [(tuple(one.ids[: one.answer_start]), tuple(one.ids[one.answer_start :])) for one in records]
    evaluated = sum(score for score, _ in answer_loglikelihoods(tuned.model, pairs, 2, progress=False))
    assert -evaluated / sum(len(answer) for _, answer in pairs) == pytest.approx(after, abs=0.02)
    with torch.no_grad():
        assert torch.equal(backbone.model(IDS).logits, before)
    assert {w.dtype for name, w in tuned.model.named_parameters() if "lora_" in name} == {torch.float32}
    card = (tmp_path / "False" / "model" / "README.md").read_text()
    flag = "load_in_4bit" if dtype == "nf4" else "load_in_8bit"
    assert f"in {dtype} by bitsandbytes" in card and f"quantization_config=BitsAndBytesConfig({flag}=True" in card


def test_without_the_library(monkeypatch, tiny_folder):
    monkeypatch.setattr(quantized.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="backbone.dtype=nf4 needs bitsandbytes.*run `pip install bitsandbytes`, or"):
        build("backbone/hub", name=str(tiny_folder), dtype="nf4")


def test_a_device_that_cannot_do_it(monkeypatch, tiny_folder):
    def fails(*_):
        raise NotImplementedError("no kernel image is available")

    monkeypatch.setattr(quantized, "check_installed", lambda dtype: None)
    monkeypatch.setattr(quantized, "options", lambda dtype, gpu: {})
    monkeypatch.setattr(loading, "CausalModel", fails)
    with pytest.raises(UserError, match=r"dtype=int8 cannot be computed on this device \(no kernel image .*dtype=bf16"):
        build("backbone/hub", name=str(tiny_folder), dtype="int8").load()


@pytest.mark.parametrize(
    ("method", "dtype", "cure"),
    [(one, "bf16", "name the model that they were made") for one in ("bitsandbytes", "fp8", "gptq", "awq")]
    + [("mxfp4", "fp32", "give backbone.dtype=bf16")],
)
def test_weights_that_are_quantised_before(method, dtype, cure, tiny_folder):
    source = build("backbone/hub", name=str(tiny_folder), dtype=dtype)
    source._config.quantization_config = {"quant_method": method}
    with pytest.raises(UserError, match=f"holds weights that {method} has quantised before: {cure}"):
        source.load()


def test_mxfp4_becomes_bf16(tiny_folder, tmp_path):
    """A byte 0x22 holds two weights of code 2, which is 1.0 in E2M1; the scale 124 is 2^(124 - 127) = 0.125."""
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    settings = ARCHITECTURES["gpt_oss"][0] | {"intermediate_size": 32}
    tiny_architecture("gpt_oss", settings).bfloat16().save_pretrained(folder)
    weights, config = load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())
    for name in [name for name in weights if name.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        experts, inputs, outputs = weights.pop(name).shape
        shape = (experts, outputs, inputs // 32)  # blocks of 32 weights
        weights[f"{name}_blocks"] = torch.full((*shape, 16), 0x22, dtype=torch.uint8)
        weights[f"{name}_scales"] = torch.full(shape, 124, dtype=torch.uint8)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "mxfp4"}}))
    experts = build("backbone/hub", name=str(folder), dtype="bf16").load().model.model.layers[0].mlp.experts
    assert torch.equal(experts.down_proj, torch.full((2, 32, 32), 0.125, dtype=torch.bfloat16))


@both
def test_full_tuning_full_models_and_shards(dtype, tmp_path):
    """Whole numbers have no gradient, and a full model is not quantised on its way in. A tensor of whole numbers is
    what makes a model a quantised one."""
    with pytest.raises(UserError, match=f"full cannot train the weights of backbone.dtype={dtype}.*give tuning=lora"):
        check_tuning("tiny", shapes(tiny_model()), build("tuning/full"), dtype, TRAINER)
    with pytest.raises(UserError, match=f"fsdp does not shard the weights of backbone.dtype={dtype}: give trainer=ddp"):
        check_sharing(dtype)
    model = tiny_model()
    model.save_pretrained(tmp_path)
    kind = torch.uint8 if dtype == "nf4" else torch.int8
    model.extra = nn.Parameter(torch.ones(2, dtype=kind), requires_grad=False)
    with pytest.raises(UserError, match=f"a full model, whose weights backbone.dtype={dtype} does not quantise: name"):
        load_tuned(Backbone(model, None, {}, "tiny"), tmp_path)
