"""Micro-batches without padding: the losses, gradients and dropout of the padded way, from fewer tokens."""

from __future__ import annotations

import pytest
import torch
from composed import build
from test_adversaries import ALL
from test_dropout import gpt2, tune
from test_loss import model_of, ramp, trained
from tiny_tuning import VOCABULARY, difference, micro_batch, tiny_backbone, tiny_records, tuner
from transformers import AttentionInterface, AttentionMaskInterface, AutoModelForCausalLM, MambaConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from winnow.backbone.causal_model import CausalModel
from winnow.backbone.loading import Backbone
from winnow.errors import UserError
from winnow.store.describe import describe
from winnow.tuning.adversary.none import NoAdversary
from winnow.tuning.dropout import again
from winnow.tuning.loss import MicroBatchLoss

ADVERSARIES = ALL | {
    "none": NoAdversary(),
    "smart": build("adversary/smart", epsilon=0.3, sigma=0.1, alpha=0.1),
    "latent": build("adversary/latent", layer=1, epsilon=0.3, alpha=0.1, rounds=2),
}


def shapes_run(model) -> list[tuple[int, int]]:
    """(rows, length) of every forward pass from now on."""
    shapes: list[tuple[int, int]] = []
    model.model.layers[0].register_forward_pre_hook(lambda _, given: shapes.append(tuple(given[0].shape[:2])))
    return shapes


@pytest.mark.parametrize(("name", "mode"), [*((name, "lora") for name in ADVERSARIES), ("nrm", "full")])
def test_losses_and_gradients_are_those_of_the_padded_way(name, mode):
    """Six records of 3 to 11 tokens, 43 in all, padded to 66; with LoRA, dropout 0.3, which each record must meet at
    its own positions. A perturbation has its record's norm only if the record's own gradient is found."""
    found = []
    records = tiny_records(6)
    for padding_free in (False, True):
        model = model_of(mode, dropout=0.3)
        batch = micro_batch(records)
        loss_of, embeds = (
            MicroBatchLoss(model, batch, padding_free=padding_free),
            model.get_input_embeddings()(batch.ids),
        )
        shapes = shapes_run(model)
        with torch.random.fork_rng(devices=[]):
            loss_of.same_dropout()
            loss = ADVERSARIES[name].loss(loss_of, embeds, batch.mask)
        found.append((loss.item(), torch.autograd.grad(loss, trained(model))))
        assert set(shapes) == {(1, 43) if padding_free else (6, 11)}
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-5)
    largest = max(float(wanted.abs().max()) for wanted in found[0][1])
    for wanted, gradient in zip(*(gradients for _, gradients in found), strict=True):
        assert torch.allclose(wanted, gradient, atol=1e-4 * largest)
    assert largest > 1e-3


def test_the_ascent_has_the_shape_of_the_batch_and_ends_before_padding():
    """dL/dembeds of the padded way; exactly 0 at padding, which the model never meets."""
    model, batch = model_of("lora"), micro_batch(tiny_records(6))
    embeds = model.get_input_embeddings()(batch.ids)
    padded, packed = (
        MicroBatchLoss(model, batch, padding_free=way).gradient(embeds + ramp(embeds)) for way in (False, True)
    )
    assert torch.allclose(padded, packed, atol=1e-6) and not packed[~batch.mask].any()
    assert padded.norm() > 1e-2


def test_records_of_one_length_are_not_packed():
    """There is no padding to save, and the mask that tells records apart has a price."""
    model, batch = model_of("lora"), micro_batch([tiny_records()[3]] * 2)
    loss_of = MicroBatchLoss(model, batch, padding_free=True)
    shapes = shapes_run(model)
    loss_of(model.get_input_embeddings()(batch.ids))
    assert shapes == [tuple(batch.ids.shape)]


def test_activations_computed_again_meet_the_same_dropout():
    """Gradient checkpointing runs the packed row a second time; without its masks the gradients would be others."""
    found = []
    for checkpointing in (False, True):
        model, batch = model_of("lora", dropout=0.5), micro_batch(tiny_records(6))
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": again})
        loss_of = MicroBatchLoss(model, batch, padding_free=True)
        with torch.random.fork_rng(devices=[]):
            loss_of.same_dropout()
            found.append(torch.autograd.grad(loss_of(model.get_input_embeddings()(batch.ids)), trained(model)))
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(*found, strict=True))


def test_a_run_trains_the_same_model(tmp_path):
    """NRM with dropout 0.1 over 22 records in micro-batches of 8; the tolerances are those of micro-batches of other
    sizes. The setting is no part of the model's identity."""
    padded, packed = (tune(tmp_path / way, 8, ALL["nrm"], packing=way) for way in ("none", "padding_free"))
    assert packed[0] == pytest.approx(padded[0], abs=2e-6)
    assert difference(packed[1], padded[1]) < 2e-5
    assert describe(tuner(packing="padding_free")) == describe(tuner(packing="none"))


def test_a_kernel_without_fp32_shares_a_row_in_full_tuning():
    """As flash attention, which reads bf16 alone; full tuning holds its weights in fp32 and computes under autocast."""

    def in_bf16(module, query, *rest, **options):
        assert query.dtype == torch.bfloat16
        return sdpa_attention_forward(module, query, *rest, **options)

    AttentionInterface.register("in_bf16", in_bf16)
    AttentionMaskInterface.register("in_bf16", ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    backbone = tiny_backbone()
    backbone.model.to(torch.bfloat16).set_attn_implementation("in_bf16")
    causal = tuner(mode="full", packing="padding_free")._trainable(backbone, None)[1]
    assert causal.dtype == torch.float32 and CausalModel(causal).packing


def test_what_cannot_share_a_row_is_refused(tmp_path):
    """Mamba carries its state from one record to the next; GPT-2 has dropout on attention weights."""
    shape = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 1, "state_size": 4}
    torch.manual_seed(0)
    mamba = AutoModelForCausalLM.from_config(MambaConfig(**shape)).eval()
    for model, reason in ((mamba, "does not keep records in one row apart"), (gpt2().eval(), "attn_pdrop=0.1")):
        backbone = Backbone(model, tiny_backbone().tokenizer, {"name": "other"}, "other")
        with pytest.raises(UserError, match=f"{reason}.*set tuning.packing=none"):
            tune(tmp_path, 4, backbone=backbone, packing="padding_free")
