"""Dropout by record: the masks, what they do not depend on, and a training that micro-batches leave as it is."""

from __future__ import annotations

import hashlib

import pytest
import torch
from test_adversaries import ALL
from tiny_tuning import CPU, difference, micro_batch, tiny_backbone, tiny_records, tuner, weights
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, MixtralConfig, OPTConfig

from winnow.backbone.loading import Backbone
from winnow.errors import UserError
from winnow.tuning.adversary.none import NoAdversary
from winnow.tuning.dropout import RecordDropout, _mixed, _mixed_number, check_attention
from winnow.tuning.loss import MicroBatchLoss


def masks(keys, shape, p, seed=0, calls=1):
    """(calls, *shape): true where an entry of ones is kept."""
    torch.manual_seed(seed)
    with torch.random.fork_rng(devices=[]), RecordDropout(torch.tensor(keys), shape[1]):
        return torch.stack([nn.functional.dropout(torch.ones(shape), p) > 0 for _ in range(calls)])


@pytest.mark.parametrize("p", [0.05, 0.3, 0.5])
def test_the_share_that_is_kept(p):
    """320,000 entries: within 4 standard errors of sqrt(p q / 320,000). By channel, position and record (40, 100 and 8
    means, each of its own n entries) the largest deviation of so many is below 5 standard errors."""
    kept = masks([3, 1, 4, 15, 92, 65, 35, 89], (8, 100, 40), p, calls=10).double()
    assert kept.mean().item() == pytest.approx(1 - p, abs=4 * (p * (1 - p) / 320_000) ** 0.5)
    for dims in ((0, 1, 2), (0, 1, 3), (0, 2, 3)):
        means = kept.mean(dims)
        error = (p * (1 - p) / (kept.numel() / means.numel())) ** 0.5
        assert float((means - (1 - p)).abs().max()) < 5 * error
        # As far apart as chance puts them: a sum of n squared deviations lies within 5 sqrt(2 n) of n.
        squares = float((((means - (1 - p)) / error) ** 2).sum())
        assert abs(squares - means.numel()) < 5 * (2 * means.numel()) ** 0.5


def test_neighbours_are_unrelated():
    """Covariance over sqrt-n: of an entry with the next channel, position, record, call, and of the four corners of a
    rectangle (what a product of row and column hashes could give away): each within 4.5 standard errors of 0."""
    kept = masks(range(8), (8, 128, 96), 0.5, calls=4).double() * 2 - 1
    pairs = [
        kept[..., 1:] * kept[..., :-1],
        kept[:, :, 1:] * kept[:, :, :-1],
        kept[:, 1:] * kept[:, :-1],
        kept[1:] * kept[:-1],
        kept[:, :, 1:, 1:] * kept[:, :, :-1, 1:] * kept[:, :, 1:, :-1] * kept[:, :, :-1, :-1],
        kept[..., 3:] * kept[..., 2:-1] * kept[..., 1:-2] * kept[..., :-3],
    ]
    for product in pairs:
        assert abs(float(product.mean())) < 4.5 / product.numel() ** 0.5


def test_a_mask_belongs_to_the_record():
    """Alone or among others, with more padding or in rows of one list: the same entries. Another record, call or seed:
    others."""
    together = masks([7, 8, 9], (3, 5, 16), 0.5)[0]
    assert torch.equal(masks([8], (1, 5, 16), 0.5)[0, 0], together[1])
    assert torch.equal(masks([9, 7], (2, 11, 16), 0.5)[0, 0, :5], together[2])
    torch.manual_seed(0)
    with RecordDropout(torch.tensor([7, 8, 9]), 5):
        assert torch.equal(nn.functional.dropout(torch.ones(15, 16), 0.5).view(3, 5, 16) > 0, together)
    assert not torch.equal(together[0], together[1]) and not torch.equal(
        masks([7], (1, 5, 16), 0.5, seed=1)[0, 0], together[0]
    )
    first, second = masks([7], (1, 5, 16), 0.5, calls=2)
    assert torch.equal(first[0], together[0]) and not torch.equal(first, second)


def test_masks_stay_what_they_were():
    """Other masks would be other weights, under the same name in the store. A number is mixed as a tensor of it is."""
    kept = masks([3, -(2**63), 2**63 - 1], (3, 7, 12), 0.3, calls=2)
    assert hashlib.sha256(kept.numpy().tobytes()).hexdigest()[:16] == "c16a42ae6fd40430"
    for number in (0, 1, -1, 2**63 - 1, -(2**63), 1234567890123456789, -987654321):
        assert _mixed_number(number) == int(_mixed(torch.tensor(number)))


def test_what_is_kept_is_scaled():
    """x / (1 - p), its gradient the same; nothing happens in evaluation, at p = 0, or without keys; p = 1 leaves 0."""
    x = torch.full((2, 4, 8), 3.0, requires_grad=True)
    with RecordDropout(torch.tensor([1, 2]), 4):
        y = nn.Dropout(0.25)(x)
        assert set(y.unique().tolist()) == {0.0, 4.0}
        y.sum().backward()
        assert torch.equal(x.grad, y.detach() / 3)
        assert nn.functional.dropout(x, 0.25, training=False) is x and nn.functional.dropout(x, 0.0) is x
        assert not nn.functional.dropout(x, 1.0).any()
    with RecordDropout(None, 4):
        assert nn.functional.dropout(x, 0.25) is x


def test_attention_with_dropout_by_its_formula():
    """With p next to 0 nothing is dropped (32 entries), so that torch's own kernel gives the same: causal, masked by
    bools or numbers, with shared keys."""
    torch.manual_seed(2)
    q, k, v = torch.randn(2, 4, 3, 8), torch.randn(2, 2, 3, 8), torch.randn(2, 2, 3, 8)
    mask = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 1]], dtype=torch.bool)
    for options in ({"is_causal": True, "scale": 0.3}, {"attn_mask": mask}, {"attn_mask": torch.randn(3, 3)}):
        plain = nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True, **options)
        with RecordDropout(torch.tensor([1, 2]), 3):
            ours = nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=1e-9, enable_gqa=True, **options)
            dropped = nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=0.5, enable_gqa=True, **options)
        assert torch.allclose(plain, ours, atol=1e-6) and not torch.allclose(plain, dropped, atol=1e-2)


def gpt2():
    """GPT-2 with its own dropouts: embeddings, residuals and, inside attention, weights; 0.1 each by default."""
    torch.manual_seed(0)
    shape = {"vocab_size": 48, "n_positions": 64, "n_embd": 16, "n_layer": 2, "n_head": 2}
    return GPT2LMHeadModel(GPT2Config(**shape)).train()


def opt():
    """OPT: dropout as a function call, on the residuals and on attention weights."""
    torch.manual_seed(0)
    shape = {"vocab_size": 48, "hidden_size": 16, "ffn_dim": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    return AutoModelForCausalLM.from_config(
        OPTConfig(**shape, max_position_embeddings=64, word_embed_proj_dim=16, dropout=0.1, attention_dropout=0.1)
    ).train()


@pytest.mark.parametrize("make", [gpt2, opt])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_backbones_own_dropouts_belong_to_the_record_too(make, attention):
    """The loss of 6 records is the mean over their answer tokens, together or one by one; without dropout it is
    another."""
    model, records = make(), tiny_records(6)
    model.set_attn_implementation(attention)

    def loss(batch):
        loss_of = MicroBatchLoss(model, batch)
        loss_of.same_dropout()
        return loss_of(model.get_input_embeddings()(batch.ids)).item() * len(batch.targets), len(batch.targets)

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        whole, tokens = loss(micro_batch(records))
        parts = [loss(micro_batch([record])) for record in records]
    assert sum(part for part, _ in parts) / tokens == pytest.approx(whole / tokens, abs=1e-6)
    model.eval()
    assert abs(loss(micro_batch(records))[0] - whole) / tokens > 1e-3


SETTINGS = {"epochs": 1, "batch_size": 8, "learning_rate": 1e-3, "lora_dropout": 0.1}


def tune(folder, micro, adversary=None, backbone=None, **settings):
    settings = {"micro_batch_size": micro} | SETTINGS | settings
    result = tuner(**settings).fit(backbone or tiny_backbone(), tiny_records(), folder, adversary, trainer_args=CPU)
    return [row["loss"] for row in result["train_loss"]], weights(folder / "model")


CHANGES = {"none": NoAdversary()} | {name: ALL[name] for name in ("nrm", "freelb", "neftune", "pgd", "fgm")}


@pytest.mark.parametrize("name", CHANGES)
def test_micro_batches_change_rounding_only(name, tmp_path):
    """Dropout 0.1, 22 records in batches of 8: losses of each step and weights with micro-batches of 1, 4 and 8.

    Steps are at most 1e-3 for a weight; Adam divides by the size of a gradient, so that rounding of a gradient near 0
    may show at a hundredth of a step: 2e-5 over the 3 steps. With dropout 0 weights differ by half a step.
    """
    losses, whole = tune(tmp_path / "8", 8, CHANGES[name])
    for micro in (1, 4):
        again, parts = tune(tmp_path / str(micro), micro, CHANGES[name])
        assert again == pytest.approx(losses, abs=2e-6)
        assert difference(whole, parts) < 2e-5
    _, without = tune(tmp_path / "without", 8, CHANGES[name], lora_dropout=0.0)
    assert difference(whole, without) > 5e-4


def test_full_tuning_with_a_backbones_own_dropout(tmp_path):
    """GPT-2, whose dropouts at embeddings, residuals and attention are 0.1."""
    runs = []
    for micro in (1, 4, 8):
        backbone = tiny_backbone()
        backbone = Backbone(gpt2().eval(), backbone.tokenizer, {"name": "gpt2"}, "gpt2")
        runs.append(tune(tmp_path / str(micro), micro, backbone=backbone, mode="full", learning_rate=1e-4))
    for losses, tensors in runs[:2]:
        assert losses == pytest.approx(runs[2][0], abs=2e-6)
        assert difference(tensors, runs[2][1]) < 1e-5


def test_a_mixture_of_experts_is_refused(tmp_path):
    """Mixtral hands each expert the tokens of all records in one list. With transformers 5 its experts are one tensor,
    for which PEFT refuses dropout itself."""
    shape = {"vocab_size": 48, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "num_local_experts": 4}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(MixtralConfig(**shape, **heads, max_position_embeddings=64)).eval()
    backbone = Backbone(model, tiny_backbone().tokenizer, {"name": "moe"}, "moe")
    with pytest.raises(
        UserError, match=r"several records into one list.*set tuning.lora_dropout=0|lora_dropout != 0\.$"
    ):
        tune(tmp_path / "on", 4, backbone=backbone)
    tune(tmp_path / "off", 4, backbone=backbone, lora_dropout=0.0)


def test_a_kernel_with_dropout_is_refused():
    with pytest.raises(UserError, match="attention_dropout=0.1.*backbone.attn_implementation=sdpa"):
        check_attention({"attention_dropout": 0.1}, "flash_attention_2")
    check_attention({"attention_dropout": 0.0}, "flash_attention_2")
    check_attention({"attn_pdrop": 0.1}, "sdpa")
