"""The formulas of the adversaries, by hand and on the tiny model."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from composed import build
from test_loss import model_of, setup, trained
from tiny_tuning import micro_batch, tiny_records
from torch import Tensor

from winnow.data.templates import Encoded
from winnow.errors import UserError
from winnow.tuning.adversary.ball import norm, project, uniform_start, unit
from winnow.tuning.loss import KeptGradients, MicroBatchLoss

neftune = partial(build, "adversary/neftune")
fgm = partial(build, "adversary/fgm")
fgsm = partial(build, "adversary/fgsm")
pgd = partial(build, "adversary/pgd")
freelb = partial(build, "adversary/freelb")
nrm = partial(build, "adversary/nrm")

ALL = {
    "neftune": neftune(alpha=0.5),
    "fgm": fgm(epsilon=0.3),
    "fgsm": fgsm(epsilon=0.02),
    "pgd": pgd(epsilon=0.3, alpha=0.1, rounds=3),
    "freelb": freelb(epsilon=0.3, alpha=0.1, rounds=3),
    "nrm": nrm(epsilon=0.3, alpha=0.1, distortion=0.2),
}
each = pytest.mark.parametrize("adversary", ALL.values(), ids=ALL)


class Linear:
    """L(e) = <slope, e>: the gradient is `slope` everywhere, and every number can be worked out by hand. `points` holds
    each perturbation at which a loss or a gradient was asked for; U(-1, 1) comes out as `draw`."""

    def __init__(self, slope: Tensor, draw: Tensor | None = None) -> None:
        self.slope, self.draw, self.points = slope, draw, []

    def __call__(self, embeds: Tensor) -> Tensor:
        self.points.append(embeds)
        return (self.slope * embeds).sum()

    def gradient(self, embeds: Tensor, dropout: bool = True) -> Tensor:
        self.points.append(embeds)
        return self.slope

    def keep(self, embeds: Tensor) -> Linear:
        self.total = torch.zeros(())
        return self

    def add(self, delta: Tensor, weight: float) -> Tensor:
        self.total = self.total + weight * self(delta)
        return self.slope

    def loss(self) -> Tensor:
        return self.total

    def uniform(self) -> Tensor:
        return self.draw

    def same_dropout(self) -> None:
        pass


def one_sample(adversary, draw=((1.0, 1.0), (1.0, 1.0))) -> tuple[float, list[list]]:
    """Loss and points for one sample of 2 tokens and width 2 at embeddings 0, with slope ((3, 0), (0, 4)) of norm 5."""
    loss_of = Linear(torch.tensor([[[3.0, 0.0], [0.0, 4.0]]]), torch.tensor([draw]))
    zeros = torch.zeros(1, 2, 2)
    loss = adversary.loss(loss_of, zeros, torch.ones(1, 2, dtype=torch.bool))
    return float(loss), [point.flatten().tolist() for point in loss_of.points]


def test_nrm_by_hand():
    """eps 0.1, alpha 0.03, beta 0.9, draw 1 everywhere, N = 4, weight 2.

    eq. 7: delta0 = 10 / 2 * 0.1 * 0.1 = 0.05 in each entry. eq. 5, 6: g / ||g|| = (0.6, 0, 0, 0.8), so the step
    arrives at (0.068, 0.05, 0.05, 0.074), of squared norm 0.004624 + 0.0025 + 0.0025 + 0.005476 = 0.0151: outside, so
    scaled by 0.1 / sqrt(0.0151). eq. 8: L = 0 + 2 (3 * 0.068 + 4 * 0.074) * that = 2 * 0.5 * 0.1 / sqrt(0.0151).
    """
    loss, (start, clean, end) = one_sample(nrm(epsilon=0.1, alpha=0.03, weight=2.0, distortion=0.9))
    scale = 0.1 / math.sqrt(0.0151)
    assert start == pytest.approx([0.05] * 4) and clean == [0.0] * 4
    assert end == pytest.approx([0.068 * scale, 0.05 * scale, 0.05 * scale, 0.074 * scale])
    assert loss == pytest.approx(scale)


def test_nrm_at_full_distortion_starts_at_zero():
    """beta = 1: delta0 = 0, and the step alpha g / ||g|| = 0.03 (0.6, 0, 0, 0.8) stays inside the ball of 0.1.
    beta = 0: delta0 = 10 / 2 * 0.1 = 0.5, ten times what beta = 0.9 gives."""
    _, (start, _, end) = one_sample(nrm(epsilon=0.1, alpha=0.03, distortion=1.0))
    assert start == [0.0] * 4 and end == pytest.approx([0.018, 0, 0, 0.024])
    _, (start, _, _) = one_sample(nrm(epsilon=0.1, alpha=0.03, distortion=0.0))
    assert start == pytest.approx([0.5] * 4)


def test_neftune_by_hand():
    """alpha / sqrt(L d) = 5 / sqrt(2 * 2) = 2.5 times the draw; one forward pass."""
    loss, points = one_sample(neftune(alpha=5.0), draw=((1.0, -0.5), (0.0, 0.2)))
    assert points == [pytest.approx([2.5, -1.25, 0.0, 0.5])] and loss == pytest.approx(3 * 2.5 + 4 * 0.5)


def test_fgm_and_fgsm_by_hand():
    """FGM moves by eps (0.6, 0, 0, 0.8) and adds eps ||g|| = 5 eps to the clean 0; FGSM by eps (1, 0, 0, 1), since the
    sign of 0 is 0, and adds 7 eps."""
    loss, (clean, end) = one_sample(fgm(epsilon=0.1, weight=2.0))
    assert clean == [0.0] * 4 and end == pytest.approx([0.06, 0, 0, 0.08]) and loss == pytest.approx(2 * 0.5)
    loss, (clean, end) = one_sample(fgsm(epsilon=0.1))
    assert clean == [0.0] * 4 and end == pytest.approx([0.1, 0, 0, 0.1]) and loss == pytest.approx(0.7)


def test_pgd_by_hand():
    """eps 0.1, alpha 0.04, from 0: along (0.6, 0, 0, 0.8) to 0.04, 0.08, then 0.12, which is projected to 0.1."""
    loss, points = one_sample(pgd(epsilon=0.1, alpha=0.04, rounds=3, random_start=False))
    along = [point[0] / 0.6 for point in points]
    assert along == pytest.approx([0, 0.04, 0.08, 0.0, 0.1]) and loss == pytest.approx(0.5)
    _, points = one_sample(pgd(epsilon=0.1, alpha=0.04, rounds=1))
    assert points[0] == pytest.approx([0.05] * 4)  # eps / sqrt(N) = 0.1 / 2


def test_freelb_by_hand():
    """eps 0.2, alpha 0.1, K 2: from 0.2 / 2 = 0.1 everywhere, whose norm 0.2 lies on the ball, to 0.1 + 0.1 (0.6, 0, 0,
    0.8) = (0.16, 0.1, 0.1, 0.18), of squared norm 0.078, projected. L = mean of 0.7 and (0.48 + 0.72) 0.2 /
    sqrt(0.078)."""
    loss, points = one_sample(freelb(epsilon=0.2, alpha=0.1, rounds=2))
    scale = 0.2 / math.sqrt(0.078)
    assert points[0] == pytest.approx([0.1] * 4)
    assert points[1] == pytest.approx([0.16 * scale, 0.1 * scale, 0.1 * scale, 0.18 * scale])
    assert loss == pytest.approx((0.7 + 1.2 * scale) / 2)


def test_freelb_has_one_dropout_in_all_rounds():
    """At epsilon = 0 the three rounds have the loss at the embeddings, under the first draw."""
    loss_of, embeds, _ = setup(dropout=0.5)
    with torch.random.fork_rng(devices=[]):
        loss_of.same_dropout()
        first = loss_of(embeds).item()
        loss = freelb(epsilon=0.0, alpha=0.1, rounds=3).loss(loss_of, embeds, loss_of.batch.mask).item()
    assert loss == pytest.approx(first, abs=1e-6)


@pytest.mark.parametrize("make", [pgd, nrm])
def test_an_ascent_has_the_dropout_that_is_asked_for(make, monkeypatch):
    """`gradient` is told what `ascent_dropout` says, in every round."""
    asked, gradient = [], Linear.gradient
    monkeypatch.setattr(
        Linear, "gradient", lambda self, embeds, dropout=True: asked.append(dropout) or gradient(self, embeds)
    )
    for wanted in (True, False):
        one_sample(make(ascent_dropout=wanted))
    assert asked == [True] * (len(asked) // 2) + [False] * (len(asked) // 2) and asked


def test_each_sample_has_its_own_norm():
    """Samples of norm 0, 1 and 4: a ball of 2 leaves the first two and halves the third; the unit of 0 is 0."""
    delta = torch.tensor([[[0.0, 0.0]], [[0.6, 0.8]], [[4.0, 0.0]]])
    assert norm(delta).flatten().tolist() == pytest.approx([0, 1, 4])
    assert project(delta, 2.0).tolist() == [[[0, 0]], [[pytest.approx(0.6), pytest.approx(0.8)]], [[2, 0]]]
    assert project(delta, 0.0).abs().sum() == 0
    directions = unit(delta, torch.ones(3, 1, dtype=torch.bool))
    assert directions.flatten().tolist() == pytest.approx([0, 0, 0.6, 0.8, 1, 0])


def test_the_start_counts_a_samples_own_entries():
    """Regions of 1, 3 and 0 of 4 tokens, width 2: 6 / sqrt(2), 6 / sqrt(6), and nothing, with no division by 0."""
    mask = torch.tensor([[True, False, False, False], [False, True, True, True], [False] * 4])
    start = uniform_start(Linear(None, torch.ones(3, 4, 2)), mask, 6.0)
    assert start[0, 0].tolist() == pytest.approx([6 / math.sqrt(2)] * 2)
    assert start[1, 1:].flatten().tolist() == pytest.approx([math.sqrt(6)] * 6)
    assert start[~mask].abs().sum() == 0


class Watched(MicroBatchLoss):
    """The tiny model's loss, which also keeps every perturbation that it is evaluated at."""

    def __init__(self, model, batch) -> None:
        super().__init__(model, batch)
        self.clean = model.get_input_embeddings()(batch.ids).detach()
        self.deltas: list[Tensor] = []

    def __call__(self, embeds):
        self.deltas.append(embeds.detach() - self.clean)
        return super().__call__(embeds)

    def gradient(self, embeds, dropout=True):
        self.deltas.append(embeds.detach() - self.clean)
        return super().gradient(embeds, dropout)


def watched(count: int = 6, mode: str = "lora", records=None) -> Watched:
    return Watched(model_of(mode), micro_batch(records or tiny_records(count)))


@each
def test_nothing_at_padding_nor_outside_the_instruction(adversary):
    """Over the sample every token that predicts something moves, padding never; over the instruction, only its tokens.
    (The last token of a record predicts nothing, so that it has no gradient to follow.)"""
    for region in ("sample", "instruction"):
        loss_of = watched()
        mask = loss_of.batch.regions[region]
        adversary.loss(loss_of, loss_of.clean, mask)
        moved = [delta for delta in loss_of.deltas if delta.abs().max() > 0]
        assert moved and all(delta[~mask].abs().max() == 0 for delta in moved)
        predicts = mask & torch.roll(loss_of.batch.mask, -1, dims=1)
        predicts[:, -1] = False
        assert predicts.sum() > 10 and all((delta[predicts].abs().amax(-1) > 0).all() for delta in moved)


@pytest.mark.parametrize("name", ["fgm", "pgd", "freelb", "nrm"])
def test_the_last_perturbation_lies_in_the_ball(name):
    """||delta|| <= eps for each sample (but for the rounding of e + delta - e); NRM's start of norm 10 eps (1 - beta) /
    sqrt(3) = 4.6 eps lies outside and must have been pulled in."""
    loss_of = watched()
    ALL[name].loss(loss_of, loss_of.clean, loss_of.batch.mask)
    sizes = norm(loss_of.deltas[-1]).flatten()
    assert (sizes <= 0.3 * (1 + 1e-5)).all() and (sizes > 0.1).all()
    if name == "nrm":
        assert (norm(loss_of.deltas[0]) > 3 * 0.3).all()


def test_a_record_without_an_instruction_stays_clean():
    """No token of the region, no gradient in it, no entry to divide by: the plain loss, twice for two terms."""
    from dataclasses import replace

    loss_of = watched(records=[replace(record, spans={}) for record in tiny_records(3)])
    plain = loss_of(loss_of.clean).item()
    for name, adversary in ALL.items():
        terms = 2 if name in ("fgm", "fgsm", "pgd", "nrm") else 1
        loss = adversary.loss(loss_of, loss_of.clean, loss_of.batch.regions["instruction"])
        assert loss.item() == pytest.approx(terms * plain, abs=1e-5)


def test_the_inner_step_of_nrm_raises_the_loss():
    """Over 20 batches, at the tiny model's fixed weights: the loss at delta1 against the loss at the projected start,
    on average and in most batches. At beta = 1 the start is the clean embeddings."""
    model, records = model_of("lora"), tiny_records(80)
    for beta in (0.5, 1.0):
        adversary = nrm(epsilon=0.5, alpha=0.3, distortion=beta)
        gains = []
        for k in range(20):
            loss_of = Watched(model, micro_batch(records[4 * k : 4 * k + 4]))
            adversary.loss(loss_of, loss_of.clean, loss_of.batch.mask)
            start, end = project(loss_of.deltas[0], 0.5), loss_of.deltas[-1]
            with torch.no_grad():
                gains.append(float(loss_of(loss_of.clean + end) - loss_of(loss_of.clean + start)))
        assert sum(gains) / 20 > 1e-3 and sum(gain > 0 for gain in gains) >= 18


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_pgd_of_one_round_is_fgm(mode):
    """One step of length eps from 0 ends where FGM's does. FGM takes its gradient from the clean term's own backward
    pass, PGD from an ascent of its own: loss and gradients agree."""
    found = []
    for adversary in (
        fgm(epsilon=0.3, weight=0.7),
        pgd(epsilon=0.3, alpha=0.3, rounds=1, random_start=False, weight=0.7),
    ):
        loss_of = watched(mode=mode)
        embeds = loss_of.model.get_input_embeddings()(loss_of.batch.ids)
        loss = adversary.loss(loss_of, embeds, loss_of.batch.mask)
        loss.backward()
        found.append((loss.item(), torch.cat([p.grad.flatten() for p in trained(loss_of.model)])))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-6)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-5) and found[0][1].abs().max() > 0.05


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_freelbs_gradient_is_the_hand_summed_one(mode):
    """At each of the K perturbations an ordinary backward pass of L / K, accumulated in .grad by torch itself."""
    loss_of = watched(mode=mode)
    embeds = loss_of.model.get_input_embeddings()(loss_of.batch.ids)
    loss = ALL["freelb"].loss(loss_of, embeds, loss_of.batch.mask)
    loss.backward()
    ours = [p.grad.clone() for p in trained(loss_of.model)]
    loss_of.model.zero_grad()
    deltas = loss_of.deltas[:3]
    values = []
    for delta in deltas:
        embeds = loss_of.model.get_input_embeddings()(loss_of.batch.ids)
        one = MicroBatchLoss.__call__(loss_of, embeds + delta)
        (one / 3).backward()
        values.append(one.item())
    assert len(loss_of.deltas) == 3 and loss.item() == pytest.approx(sum(values) / 3, abs=1e-6)
    for gradient, parameter in zip(ours, trained(loss_of.model), strict=True):
        assert torch.allclose(gradient, parameter.grad, atol=1e-6)
    assert len({round(value, 5) for value in values}) == 3


def test_freelb_keeps_one_graph_at_a_time(monkeypatch):
    """Each round's backward pass has run, and given its graph back, before the next one begins."""
    running = []
    add = KeptGradients.add

    def watching(self, delta, weight):
        running.append("begin")
        gradient = add(self, delta, weight)
        assert not gradient.requires_grad and self.value.grad_fn is None
        running.append("end")
        return gradient

    monkeypatch.setattr(KeptGradients, "add", watching)
    loss_of = watched()
    ALL["freelb"].loss(loss_of, loss_of.clean, loss_of.batch.mask)
    assert running == ["begin", "end"] * 3


def test_the_distortion_in_force():
    """A number of the configuration wins; null takes the epoch's; before one is given nothing is distorted."""
    given, open_ = nrm(distortion=0.3), nrm()
    assert open_.beta == 0.0
    for adversary in (given, open_):
        adversary.prepare(0.7)
    assert given.beta == 0.3 and open_.beta == 0.7 and open_.distortion is None
    zero = nrm(distortion=0.0)
    zero.prepare(0.7)
    assert zero.beta == 0.0
    with pytest.raises(ValueError, match="outside"):
        open_.prepare(1.5)


def test_nrm_perturbs_instruction_and_context_alone():
    """The shipped region is X_n = {I_n, C} of eq. 5-8. A prompt of template word, instruction (2 tokens), template
    word, input (1 token), template word, then 2 answer tokens: delta at tokens 1, 2 and 4, and nowhere else."""
    spans = {"instruction": (1, 3), "input": (4, 5)}
    record = Encoded("0" * 16, [2, 3, 4, 5, 6, 7, 8, 1], 6, 1, spans, None)
    shipped = nrm(distortion=0.3)
    loss_of = watched(records=[record])
    shipped.loss(loss_of, loss_of.clean, loss_of.batch.regions[shipped.region])
    moved = [delta[0].abs().amax(-1) > 0 for delta in loss_of.deltas if delta.abs().max() > 0]
    assert len(moved) == 2 and all(one.nonzero().flatten().tolist() == [1, 2, 4] for one in moved)


def test_the_shipped_step_counts():
    """Beside a start of norm 5.8 eps (1 - beta) = 0.40 at eps 0.1, beta 0.3 a step of alpha = 0.03 turns delta1 by a
    twentieth, one of the shipped length by more than a third: |start| and alpha are of one order."""
    shipped = nrm()
    start = 10 * shipped.epsilon * (1 - 0.3) / math.sqrt(3)
    assert 0.5 < shipped.alpha / start < 3


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: nrm(distortion=1.5), "adversary.distortion=1.5"),
        (lambda: nrm(epsilon=-0.1), "adversary.epsilon=-0.1"),
        (lambda: nrm(region="answer"), "adversary.region=answer is unknown; choose one of input, sample, instruction"),
        (lambda: pgd(epsilon=0.1, alpha=0.1, rounds=0), "adversary.rounds=0"),
        (lambda: freelb(epsilon=0.1, alpha=float("nan")), "adversary.alpha=nan"),
        (lambda: fgm(epsilon=0.1, weight=float("inf")), "adversary.weight=inf"),
        (lambda: neftune(alpha=-5), "adversary.alpha=-5"),
    ],
)
def test_bad_settings_name_their_key(make, told):
    with pytest.raises(UserError, match=told):
        make()
