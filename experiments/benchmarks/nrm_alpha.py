"""NRM's step length alpha: how much of the step is left behind the projection, against FGM at the same radius.

    python experiments/benchmarks/nrm_alpha.py NLU_FOLDER [BATCHES]

The packaged backbone, untuned and without dropout, under bf16 autocast; SST-2 and 14Lap, concise instructions noised by
random replacement at omega 0.2; micro-batches of 3 records, region=input, the rest as in conf/adversary/nrm.yaml. beta
is the rule-based distortion of the records. Per alpha, means over the micro-batches: `cosine` of delta1 with g, over
samples; `rise`, the loss at delta1 less the loss at 0, in nats per answer token; `of_fgm`, that rise as a share of
FGM's at radius epsilon in the same region.
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
from winnow.tuning.examples import EpochRecords
from winnow.tuning.loss import MicroBatchLoss

MICRO_BATCH, POOL = 3, 60
ALPHAS = (0.03, 0.1, 0.3, 1.0)


class Watched(MicroBatchLoss):
    """A loss that keeps the point that it was last evaluated at, and the last gradient."""

    def __call__(self, embeds):
        self.point = embeds.detach()
        return super().__call__(embeds)

    def gradient(self, embeds, dropout=True):
        self.slope = super().gradient(embeds, dropout)
        return self.slope


def measured(model, batch, adversary, plain: float) -> tuple[float, float]:
    """(rise of the loss, cosine of delta1 with g) of NRM on a micro-batch whose clean loss is `plain`."""
    loss_of, mask = Watched(model, batch), batch.regions["input"]
    clean = model.get_input_embeddings()(batch.ids).detach().float()
    loss = float(adversary.loss(loss_of, clean, mask))  # L(0) + L(delta1)
    delta, slope = loss_of.point - clean, loss_of.slope.masked_fill(~mask[..., None], 0.0)
    return loss - 2 * plain, float(((delta * slope).sum((1, 2)) / (norm(delta) * norm(slope)).flatten()).mean())


def main() -> None:
    folder, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 2
    _, source, template = parts("template.max_length=256", "backbone.dtype=fp32")
    model, found = source.load().model.eval(), {}
    epsilon = build("adversary/nrm").epsilon
    for name in ("sst2", "lap14"):
        noising = build("noising/replacement", phi=1.0, omega=0.2, seed=0)
        records = build(f"data/{name}", path=folder, style="concise", limit=POOL).records
        beta = RuleDistortion()(*noising.pairs(records))
        examples = EpochRecords(template.encode(noising.apply(records), source.tokenizer, eos=True)).first
        steps = plan_steps([len(e.ids) for e in examples], MICRO_BATCH, MICRO_BATCH, seed=0, epochs=1)
        batches = MicroBatches(examples, steps[:count])
        fgm, rows = [], {alpha: [] for alpha in ALPHAS}
        for batch in (batches[k] for k in range(len(batches))):
            clean = model.get_input_embeddings()(batch.ids).detach().float()
            with torch.no_grad():
                plain = float(MicroBatchLoss(model, batch)(clean))
            one_step = build("adversary/fgm", epsilon=epsilon, region="input")
            fgm.append(float(one_step.loss(MicroBatchLoss(model, batch), clean, batch.regions["input"])) - 2 * plain)
            for alpha, own in rows.items():
                adversary = build("adversary/nrm", alpha=alpha, distortion=beta)
                own.append(measured(model, batch, adversary, plain))
            print(f"{name}: {len(fgm)} of {count} micro-batches", file=sys.stderr, flush=True)
        table = {
            str(alpha): {
                "cosine": round(mean(cosine for _, cosine in own), 3),
                "rise": round(mean(rise for rise, _ in own), 4),
                "of_fgm": round(mean(rise for rise, _ in own) / mean(fgm), 3),
            }
            for alpha, own in rows.items()
        }
        found[name] = {"beta": round(beta, 4), "fgm_rise": round(mean(fgm), 4), "alpha": table}
    save("nrm_alpha", found)


if __name__ == "__main__":
    with torch.autocast("cpu", torch.bfloat16):
        main()
