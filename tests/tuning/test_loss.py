"""What the tuner hands to an adversary: losses, gradients without weights, gradients that are handed over, draws."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_tuning import micro_batch, tiny_model, tiny_records
from torch.utils._python_dispatch import TorchDispatchMode

from winnow.tuning.dropout import again
from winnow.tuning.loss import MicroBatchLoss
from winnow.tuning.trainable import with_adapters


def model_of(mode: str, dropout: float = 0.0, tied: bool = True):
    """The tiny model as the tuner trains it. B of the adapters is no longer 0, so that A has a gradient too."""
    if mode == "full":
        return tiny_model(tied).requires_grad_(True).train()
    model = with_adapters(tiny_model(tied), 2, 4, dropout, "all-linear", seed=0).get_base_model().train()
    for number, (name, weight) in enumerate(model.named_parameters()):
        if "lora_B" in name:
            weight.data.copy_(0.2 * torch.sin(torch.arange(weight.numel()) + number).view_as(weight))
    return model


def setup(mode: str = "lora", dropout: float = 0.0, tied: bool = True, count: int = 6):
    """(loss_of, embeddings, model) of the first records of the tiny set."""
    model = model_of(mode, dropout, tied)
    batch = micro_batch(tiny_records(count))
    return MicroBatchLoss(model, batch), model.get_input_embeddings()(batch.ids), model


def trained(model) -> list[torch.Tensor]:
    return [p for p in model.parameters() if p.requires_grad]


def ramp(embeds: torch.Tensor, size: float = 0.05) -> torch.Tensor:
    return size * torch.sin(torch.arange(embeds.numel(), dtype=torch.float32)).view_as(embeds)


class Multiplications(TorchDispatchMode):
    """Counts those of all matrix products, forwards and backwards."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in ("mm", "bmm"):
            self.count += args[0].numel() * args[1].shape[-1]
        assert name not in ("addmm", "baddbmm", "matmul", "linear")  # nothing that is left out of the count
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_the_ascent_gradient_is_that_of_the_loss(mode):
    loss_of, embeds, _ = setup(mode)
    point = (embeds + ramp(embeds)).detach().requires_grad_()
    (expected,) = torch.autograd.grad(loss_of(point), point)
    assert torch.allclose(loss_of.gradient(point), expected, atol=1e-7)
    assert expected.norm() > 1e-2


def test_the_ascent_gradient_in_chunks(monkeypatch):
    """21 answer tokens, 8 at a time: those of the last, smaller chunk count no more than others."""
    loss_of, embeds, _ = setup()
    assert len(loss_of.batch.targets) == 21
    whole = loss_of.gradient(embeds)
    monkeypatch.setattr("winnow.tuning.loss.CHUNK_ROWS", 8)
    assert torch.allclose(loss_of.gradient(embeds), whole, atol=1e-7)


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_the_ascent_computes_no_weight_gradients(mode):
    """Counted in multiplications. Let F be those of all linear layers and the head in a forward pass, A those of the
    two products of attention. A layer y = W x costs as much for the gradient of x as it did forwards, a product of
    attention twice as much (both its factors depend on x). So an ascent costs F + A forwards and F + 2A backwards.
    Gradients of the weights would add another F, and a head computed again would add to it as well.

    A: 2 layers x 2 products x batch x length^2 x width. Beside these, the forward pass makes the angles of the rotary
    embedding, by a product of length times half a head's width of 8, or without one; no gradient goes there.
    """
    loss_of, embeds, model = setup(mode)
    model.set_attn_implementation("eager")
    with Multiplications() as forward, torch.no_grad():
        loss_of(embeds)
    with Multiplications() as ascent:
        loss_of.gradient(embeds)
    batch, length, width = embeds.shape
    attention = 2 * 2 * batch * length**2 * width
    (rotary,) = [one for name, one in model.named_modules() if name.endswith("rotary_emb")]
    with Multiplications() as angles:
        rotary(embeds, torch.arange(length)[None])
    assert angles.count in (0, length * 4)
    assert ascent.count == 2 * (forward.count - angles.count) + attention + angles.count
    assert all(p.grad is None for p in model.parameters()) and len(trained(model)) in (28, 20)


def test_the_ascent_keeps_nothing_for_the_weights():
    """A layer whose weight asks for a gradient keeps its input. In the ascent fewer bytes are kept than in a training
    forward pass of the same embeddings."""
    loss_of, embeds, _ = setup("lora", dropout=0.1)
    kept = []

    def pack(tensor):
        kept[-1] += tensor.numel() * tensor.element_size()
        return tensor

    for run in (lambda point: loss_of(point), lambda point: loss_of.gradient(point)):
        kept.append(0)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            run(embeds.detach().requires_grad_())
    assert kept[1] < 0.9 * kept[0]


def test_flags_come_back_after_an_error():
    loss_of, embeds, model = setup()
    before = len(trained(model))
    with pytest.raises(RuntimeError):
        loss_of.gradient(embeds[..., :3])
    assert len(trained(model)) == before > 0


@pytest.mark.parametrize(("mode", "tied"), [("lora", True), ("full", True), ("full", False)])
def test_kept_gradients_are_those_of_the_sum(mode, tied):
    """0.25 L(e) + 0.75 L(e + delta), scaled by 3 as the tuner scales a share: the same gradients as from one graph, the
    embedding matrix included, which under tied weights is met at both ends of the model."""
    loss_of, embeds, model = setup(mode, tied=tied)
    delta = ramp(embeds)
    plain = 0.25 * loss_of(embeds) + 0.75 * loss_of(embeds + delta)
    expected = torch.autograd.grad(3 * plain, trained(model))

    embeds = model.get_input_embeddings()(loss_of.batch.ids)
    kept = loss_of.keep(embeds)
    kept.add(torch.zeros_like(delta), 0.25)
    gradient = kept.add(delta, 0.75)
    loss = kept.loss()
    (3 * loss).backward()
    assert loss.item() == pytest.approx(plain.item(), abs=1e-6)
    assert torch.allclose(gradient, loss_of.gradient(embeds + delta), atol=1e-7)
    for parameter, wanted in zip(trained(model), expected, strict=True):
        assert torch.allclose(parameter.grad, wanted, atol=1e-6)
    assert max(float(wanted.abs().max()) for wanted in expected) > 1e-2


def test_kept_gradients_are_handed_over_once():
    loss_of, embeds, _ = setup()
    kept = loss_of.keep(embeds)
    kept.add(torch.zeros_like(embeds), 1.0)
    loss = kept.loss()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="once only"):
        loss.backward()


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_under_autocast_the_gradients_stay_close(mode):
    """bf16 has 8 bits: gradients of two kept terms and of the ascent point where those of fp32 do (cosine > 0.99)."""
    found = {}
    for on in (False, True):
        loss_of, embeds, model = setup(mode)
        with torch.autocast("cpu", torch.bfloat16, enabled=on):
            embeds = model.get_input_embeddings()(loss_of.batch.ids)
            ascent = loss_of.gradient(embeds + ramp(embeds))
            kept = loss_of.keep(embeds)
            kept.add(torch.zeros_like(embeds), 0.5)
            kept.add(ramp(embeds), 0.5)
            loss = kept.loss() + loss_of(embeds)
        loss.backward()
        flat = torch.cat([p.grad.flatten() for p in trained(model)])
        found[on] = (ascent.flatten(), flat)
    for half, whole in zip(found[True], found[False], strict=True):
        assert torch.nn.functional.cosine_similarity(half, whole, dim=0) > 0.99
        assert not torch.equal(half, whole)


def test_a_bf16_backbone_without_autocast_takes_fp32_perturbations():
    """tuning.dtype=fp32 on backbone.dtype=bf16: frozen weights are bf16, and nothing else brings the input to them."""
    model = with_adapters(tiny_model().bfloat16(), 2, 4, 0.0, "all-linear", seed=0).get_base_model().train()
    batch = micro_batch(tiny_records(4))
    loss_of, embeds = MicroBatchLoss(model, batch), model.get_input_embeddings()(batch.ids)
    delta = ramp(embeds)
    assert embeds.dtype == torch.bfloat16 and loss_of.gradient(embeds + delta).dtype == torch.float32
    assert torch.isfinite(loss_of(embeds + delta))


def test_a_records_draw_belongs_to_the_record():
    """The same in any micro-batch and at any padding; another one in the next step and for another record."""
    records = tiny_records(8)
    model = model_of("lora")
    together = MicroBatchLoss(model, micro_batch(records)).uniform()
    assert together.abs().max() <= 1 and together[5, : len(records[5].ids)].abs().max() > 0.9
    assert together[0, len(records[0].ids) :].abs().sum() == 0
    alone = MicroBatchLoss(model, micro_batch(records[5:6])).uniform()
    assert torch.equal(alone[0], together[5, : len(records[5].ids)])
    assert not torch.equal(MicroBatchLoss(model, micro_batch(records, step=1)).uniform(), together)
    assert not torch.equal(MicroBatchLoss(model, micro_batch(records), seed=1).uniform(), together)
    assert not torch.equal(together[0, :2], together[5, :2])


def test_the_same_dropout_on_request():
    loss_of, embeds, _ = setup(dropout=0.5)
    losses = []
    with torch.random.fork_rng(devices=[]):
        for same in (True, False, True):
            if same:
                loss_of.same_dropout()
            losses.append(loss_of(embeds).item())
    assert losses[0] == losses[2] != losses[1]


def test_dropout_belongs_to_the_seed_the_step_and_the_record():
    """One text under two names, in two steps and of two seeds: four losses. Asked again, the first one."""
    model, (record,) = model_of("lora", dropout=0.5), tiny_records(6)[5:]

    def loss(name: str = "one", step: int = 0, seed: int = 0) -> float:
        batch = micro_batch([replace(record, id=name)], step)
        loss_of = MicroBatchLoss(model, batch, seed)
        loss_of.same_dropout()
        return loss_of(model.get_input_embeddings()(batch.ids)).item()

    with torch.random.fork_rng(devices=[]):
        losses = [loss(), loss(name="other"), loss(step=1), loss(seed=1)]
        assert len(set(losses)) == 4 and loss() == losses[0]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_an_ascent_without_dropout(checkpointing):
    """It is the gradient of the model in evaluation mode, draws nothing, and leaves dropout on for what follows. With
    dropout two ascents differ."""
    loss_of, embeds, model = setup(dropout=0.5)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": again})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        state = torch.get_rng_state()
        without = loss_of.gradient(embeds, dropout=False)
        assert torch.equal(torch.get_rng_state(), state)
        assert not torch.equal(loss_of.gradient(embeds), loss_of.gradient(embeds))
    assert all(module.training for module in model.modules())
    assert torch.allclose(without, MicroBatchLoss(model.eval(), loss_of.batch).gradient(embeds), atol=1e-7)
