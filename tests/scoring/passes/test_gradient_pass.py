"""The gradient pass: what autograd gives for one record alone, whatever the batch, and a sketch that keeps products."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
from composed import template
from tiny_passes import compute, make_records
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, GPT2LMHeadModel, OPTConfig, OPTForCausalLM

from winnow.backbone.loading import Backbone, OptimizerState
from winnow.errors import UserError
from winnow.scoring.passes import gradient
from winnow.scoring.passes.gradient import LoraGradient, adam_step, add_sketch
from winnow.scoring.passes.likelihood import Likelihood
from winnow.tuning.trainable import with_adapters


def adapted(backbone) -> Backbone:
    """With adapters of rank 2, B not 0, so that A has a gradient too."""
    model = with_adapters(backbone.model, 2, 4, 0.0, "all-linear", seed=0).get_base_model().eval()
    for number, (name, weight) in enumerate(model.named_parameters()):
        if "lora_B" in name:
            weight.data.copy_(0.2 * torch.sin(torch.arange(weight.numel()) + number).view_as(weight))
    identity = backbone.identity | {"adapted": True}
    return dataclasses.replace(backbone, model=model.requires_grad_(False), identity=identity)


def another(backbone, model: type, settings) -> Backbone:
    """With the weights of its own seeded start."""
    torch.manual_seed(0)
    return dataclasses.replace(backbone, model=model(settings).eval().requires_grad_(False))


GPT2 = GPT2Config(vocab_size=259, n_positions=512, n_embd=32, n_layer=2, n_head=4)
OPT = OPTConfig(259, 32, 2, ffn_dim=48, num_attention_heads=4, max_position_embeddings=512, word_embed_proj_dim=32)


def encoded(backbone, count=6):
    records = [one for one in template("alpaca").encode(make_records(count + 1), backbone.tokenizer) if not one.flag]
    return records[:count]


def batch_of(records):
    return LoraGradient().collate(records) | {"shared": 0}


@pytest.mark.parametrize(("kind", "layers"), [("llama", 14), ("conv1d", 8), ("opt", 12)])
def test_gradients_are_those_of_autograd_one_by_one(kind, layers, backbone, monkeypatch):
    """All factors of all layers, each record alone and without padding, to 1e-5; the largest entry is above 1e-2. The
    norm is that of all factors together. OPT hands all tokens of a batch to its MLP in one list."""
    made = {"conv1d": (GPT2LMHeadModel, GPT2), "opt": (OPTForCausalLM, OPT)}
    own = adapted(another(backbone, *made[kind]) if kind in made else backbone)
    records, found, names = encoded(own), {}, []
    module = LoraGradient(dimensions=8).module(own)
    monkeypatch.setattr(module, "place", lambda name, entries, device: names.append(name))
    monkeypatch.setattr(gradient, "add_sketch", lambda sketch, one, place: found.update({names[-1]: one.clone()}))
    columns = module.predict_step(batch_of(records), 0)
    weights = {name: weight for name, weight in own.model.named_parameters() if "lora_" in name}
    assert {f"{name}.weight" for name in found} == set(weights) and len(weights) == 2 * layers
    largest = 0.0
    for i, record in enumerate(records):
        for weight in weights.values():
            weight.requires_grad_()
        logits = own.model(input_ids=torch.tensor([record.ids])).logits[0, record.answer_start - 1 : -1]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(record.ids[record.answer_start :]))
        alone = dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))
        for name, rows in found.items():
            assert torch.allclose(rows[i], alone[f"{name}.weight"].flatten(), atol=1e-5)
        norm = math.sqrt(sum(float(one.square().sum()) for one in alone.values()))
        assert columns["norm"][i] == pytest.approx(norm, rel=1e-4)
        largest = max(largest, *(float(one.abs().max()) for one in alone.values()))
    assert largest > 1e-2


def test_the_sketch_keeps_products():
    """E <Pa, Pb> = <a, b> and E (<Pa, Pb> - <a, b>)^2 <= 2 / k |a|^2 |b|^2, here over 200 draws of P with k = 256: for
    dense vectors, for equal ones, and for those with all their weight in few entries. The mean's own error is at most
    sqrt(2 / 256 / 200) = 0.0063."""
    source = torch.Generator().manual_seed(0)
    dense = torch.nn.functional.normalize(torch.randn(2, 4096, generator=source))
    peaked = torch.zeros(2, 4096)
    peaked[0, :3] = torch.tensor([0.8, 0.6, 0.0])
    peaked[1, :3] = torch.tensor([0.6, 0.0, 0.8])
    for one, other in (dense, (dense[0], dense[0]), peaked):
        errors = []
        for _ in range(200):
            place = torch.randint(2 * 256, (4096,), generator=source, dtype=torch.int32)
            sketch = torch.zeros(2, 256)
            add_sketch(sketch, torch.stack([one, other]), place)
            errors.append(float(sketch[0] @ sketch[1] - one @ other))
        assert abs(sum(errors) / 200) < 3 * 0.0063
        assert sum(error**2 for error in errors) / 200 < 1.3 * 2 / 256


def test_a_vector_is_the_sketch_of_the_whole_gradient(backbone):
    """|v| = 1, and the cosine of two records' vectors is that of their gradients within 4 sqrt(2 / 4096) = 0.09.
    Another seed draws another P, and with it another vector."""
    own = adapted(backbone)
    batch, parts = batch_of(encoded(own)), []
    module = LoraGradient(dimensions=4096).module(own)
    step = module.predict_step(batch, 0)
    vectors = torch.tensor(step["vector"][0].tolist()), torch.tensor(step["vector"][1].tolist())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradient, "add_sketch", lambda sketch, one, place: parts.append(one.clone()))
        module.predict_step(batch, 0)
    whole = torch.nn.functional.normalize(torch.cat(parts, dim=1))
    assert vectors[0].norm() == pytest.approx(1, abs=1e-3)
    assert float(vectors[0] @ vectors[1]) == pytest.approx(float(whole[0] @ whole[1]), abs=0.09)
    places = [module.place(name, 64, torch.device("cpu")) for name in ("one factor", "another")]
    assert not torch.equal(*places)
    other = LoraGradient(dimensions=4096, seed=1).module(own).predict_step(batch, 0)["vector"]
    assert abs(float(vectors[0] @ torch.tensor(other[0].tolist()))) < 0.2


def test_adams_step_by_hand():
    """g = 1 and -2 for a weight with m = 2, v = 4: (1.8 + 0.1) / sqrt(3.996 + 0.001 + 1e-8), (1.8 - 0.2) / sqrt(3.996 +
    0.004 + 1e-8). Without moments g = 1e-4 gives 1e-5 / sqrt(1e-11 + 1e-8)."""
    state = OptimizerState(1e-4, {"w": torch.tensor([[2.0]])}, {"w": torch.tensor([[4.0]])})
    step = adam_step(torch.tensor([[1.0], [-2.0]]), state, "w")
    assert step.flatten().tolist() == pytest.approx([1.9 / math.sqrt(3.997), 1.6 / 2.0])
    none = OptimizerState(1e-4, {"w": torch.zeros(1, 1)}, {"w": torch.zeros(1, 1)})
    assert float(adam_step(torch.tensor([[1e-4]]), none, "w")) == pytest.approx(1e-5 / math.sqrt(1.001e-8), rel=1e-4)


def test_a_record_is_itself_in_any_batch(backbone, tmp_path):
    """One record at a time and all at once; a record without an answer and one too long have none. Each record is one
    forward and one backward pass: two forwards in the ledger."""
    own, records = adapted(backbone), make_records(12)
    alone = compute(own, records, tmp_path / "a", LoraGradient(dimensions=64), budget=1)
    batch = compute(own, records, tmp_path / "b", LoraGradient(dimensions=64), budget=8192)
    assert [flag is None for flag in alone.flags()] == [row not in (5, 7) for row in range(12)]
    there = [row for row in range(12) if row not in (5, 7)]
    assert alone.numbers("norm")[there] == pytest.approx(batch.numbers("norm")[there], rel=1e-4)
    assert alone.vectors("vector")[there] == pytest.approx(batch.vectors("vector")[there], abs=2e-3)
    (ledger,) = (tmp_path / "b").rglob("ledger.jsonl")
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    assert sum(line["forwards"] for line in lines) == 2 * 10


def test_the_price_in_forwards(backbone):
    """At most 3.5 times the operations of the likelihood pass over the same batch; the sketch only adds."""
    own = adapted(backbone)
    batch = batch_of(encoded(own))
    module = LoraGradient(dimensions=64).module(own)
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        Likelihood().module(backbone).predict_step(batch, 0)
    with FlopCounterMode(display=False) as whole:
        module.predict_step(batch, 0)
    assert 2 < whole.get_total_flops() / forward.get_total_flops() <= 3.5


def test_bf16_follows_fp32(backbone):
    """The adapters stay fp32; the norms of a bf16 backbone are within 5%, and are other numbers."""
    records = encoded(backbone)
    norms = []
    for dtype in (torch.float32, torch.bfloat16):
        backbone.model.to(dtype)
        norms.append(LoraGradient().module(adapted(backbone)).predict_step(batch_of(records), 0)["norm"])
    assert norms[0] == pytest.approx(norms[1], rel=0.05) and norms[0] != norms[1]


@pytest.mark.parametrize(("fewer", "name"), [(6, "mlp"), (0, "experts")])
def test_tokens_of_several_records_in_one_list(backbone, fewer, name):
    """What a mixture of experts hands to an adapter has no record, be it as many tokens as the batch has."""
    own = adapted(backbone)
    module = LoraGradient().module(own)
    module.factors = {factor.replace("mlp", name): one for factor, one in module.factors.items()}
    layer = own.model.model.layers[0].mlp.up_proj
    layer.register_forward_pre_hook(lambda module, args: (args[0].flatten(0, 1)[fewer:],))
    with pytest.raises(UserError, match=rf"The adapter on model.layers.0.{name}.up_proj sees the tokens of several"):
        module.predict_step(batch_of(encoded(own)), 0)
