"""NRM's step length alpha: how much of the step is left behind the projection, against FGM at the same radius.

    python experiments/benchmarks/nrm_alpha.py NLU_FOLDER [batches]

The packaged backbone, untuned and without dropout; SST-2 and 14Lap, detailed instructions noised by random replacement
at omega 0.2; micro-batches of 4 records, region=input, the rest as in conf/adversary/nrm.yaml. beta is the rule-based
distortion of the records. Per alpha, means over the micro-batches: `cosine` of delta1 with g, over samples; `rise`, the
loss at delta1 less the loss at 0, in nats per answer token; `of_fgm`, that rise as a share of FGM's at radius epsilon
in the same region.
"""

from __future__ import annotations

import sys
from statistics import mean

import torch
from common import parts, save

from winnow.config import build
from winnow.perturb.distortion import RuleDistortion
from winnow.tuning.adversary.ball import norm
from winnow.tuning.data import MicroBatches, plan_steps
from winnow.tuning.examples import usable
from winnow.tuning.loss import MicroBatchLoss

MICRO_BATCH = 4
ALPHAS = (0.03, 0.1, 0.3, 0.6, 1.0)


class Watched(MicroBatchLoss):
    """A loss that keeps the last point at which it was asked for, and the last gradient."""

    def __call__(self, embeds):
        self.point = embeds.detach()
        return super().__call__(embeds)

    def gradient(self, embeds, dropout=True):
        self.slope = super().gradient(embeds, dropout)
        return self.slope


def measured(model, batch, adversary) -> tuple[float, float]:
    """(rise of the loss, cosine of the last perturbation with the gradient) of one micro-batch."""
    loss_of = Watched(model, batch)
    clean = model.get_input_embeddings()(batch.ids).detach().float()
    mask = batch.regions["input"]
    adversary.loss(loss_of, clean, mask)
    delta = loss_of.point - clean
    slope = getattr(loss_of, "slope", delta).masked_fill(~mask[..., None], 0.0)  # FGM's own step is its gradient
    with torch.no_grad():
        rise = float(loss_of(clean + delta) - loss_of(clean))
    return rise, float(((delta * slope).sum((1, 2)) / (norm(delta) * norm(slope)).flatten()).mean())


def main() -> None:
    folder, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 6
    _, source, template = parts("template.max_length=512", "backbone.dtype=fp32")
    model, found = source.load().model.eval(), {}
    for name in ("sst2", "lap14"):
        noising = build("noising/replacement", phi=1.0, omega=0.2, seed=0)
        records = build(f"data/{name}", path=folder, limit=count * MICRO_BATCH).records
        beta = RuleDistortion()(*noising.pairs(records))
        examples, _ = usable(template.encode(noising.apply(records), source.tokenizer, eos=True))
        steps = plan_steps([len(e.ids) for e in examples], MICRO_BATCH, MICRO_BATCH, seed=0, epochs=1)
        batches = MicroBatches(examples, steps[:count], pad_id=source.tokenizer.pad_token_id)
        batches = [batches[k] for k in range(len(batches))]
        epsilon = build("adversary/nrm").epsilon
        fgm = mean(measured(model, b, build("adversary/fgm", epsilon=epsilon, region="input"))[0] for b in batches)
        rows = {}
        for alpha in ALPHAS:
            rises, cosines = zip(
                *(measured(model, b, build("adversary/nrm", alpha=alpha, distortion=beta)) for b in batches),
                strict=True,
            )
            rows[str(alpha)] = {
                "cosine": round(mean(cosines), 3),
                "rise": round(mean(rises), 4),
                "of_fgm": round(mean(rises) / fgm, 3),
            }
        found[name] = {"beta": round(beta, 4), "fgm_rise": round(fgm, 4), "alpha": rows}
    save("nrm_alpha", f"python experiments/benchmarks/nrm_alpha.py NLU_FOLDER {count}", found)


if __name__ == "__main__":
    main()
