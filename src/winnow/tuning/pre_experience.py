"""IFD's pre-experience stage: let the base model learn a little from a small, varied sample before it judges.

    1. embed every prompt (mean of the final hidden states over its tokens)
    2. k-means with 100 clusters
    3. in each cluster, among the records whose prompt perplexity lies in the 25th to 75th percentile, take 10,
       evenly spaced in file order: about 1,000 records in all
    4. tune the base model on them for one epoch; score with the tuned model

Source: "From Quantity to Quality" (arXiv 2308.12032) and its code, data_by_cluster.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from winnow.backbone.loading import Backbone
from winnow.data.records import Record
from winnow.data.templates import Template
from winnow.distributed import compute_once, from_leader, is_leader
from winnow.errors import UserError
from winnow.scoring.passes.prompt_embedding import PromptEmbedding
from winnow.scoring.protocols import Preparation
from winnow.scoring.runner import PassRunner
from winnow.store.describe import Identified, describe
from winnow.tuning.saving import is_adapter, load_tuned, tuned_identity
from winnow.tuning.tuner import TUNED_VERSION, Tuner


class TunedSource(Identified):
    """A tuned backbone as a source for passes: the runner of the base backbone, and the folder of the result."""

    def __init__(self, base: PassRunner, folder: Path) -> None:
        self.base, self.source, self.tokenizer, self.folder = base, base.source, base.source.tokenizer, folder

    @cached_property
    def identity(self) -> dict:
        return tuned_identity(describe(self.source), self.folder)

    def load(self) -> Backbone:
        # Adapters share the weights of the base; a full model wants no second one beside it.
        return load_tuned(self.base.backbone if is_adapter(self.folder) else self.base.release(), self.folder)


def tune_once(
    runner: PassRunner, key: str, preparation: Any, records: Sequence[Record], template: Template, *callbacks: Any
) -> Path:
    """Tunes the runner's backbone by the preparation's `tuner` on the records, unless the store has the result, whose
    folder it returns. key: the preparation's name in the identity. callbacks: beside those of the trainer."""
    artifact = runner.store.artifact(
        "models",
        {
            "version": TUNED_VERSION,
            key: describe(preparation),
            "records": sorted(record.id for record in records),
            "backbone": describe(runner.source),
            "template": describe(template),
        },
    )
    runner.used.append(artifact.fingerprint)
    trainer = {**runner.trainer, "callbacks": [*runner.trainer.get("callbacks", ()), *callbacks]}

    def tune(_: bool) -> None:
        if is_leader():
            print(f"{key.replace('_', '-').capitalize()}: one short tuning on {len(records)} records.", flush=True)
        examples = template.encode(records, runner.source.tokenizer, eos=True)
        backbone = runner.release() if preparation.tuner.mode == "full" else runner.backbone
        report = preparation.tuner.fit(backbone, examples, artifact.path, trainer_args=trainer, template=template)
        runner.origin[artifact.fingerprint] = "computed" if report["resumed_from"] is None else "resumed"

    if compute_once(artifact, tune):
        runner.computed.append(artifact.fingerprint)
    runner.origin.setdefault(artifact.fingerprint, "reused")
    return artifact.path


class PreExperience(Preparation):
    """Chooses the sample and tunes on it.

    clusters: k of k-means. per_cluster: records taken from each. low, high: percentiles of the prompt perplexity
    inside a cluster between which records are taken. seed: of k-means. tuner: how the sample is trained on.
    """

    def __init__(self, tuner: Tuner, clusters: int, per_cluster: int, low: float, high: float, seed: int) -> None:
        if clusters < 1 or per_cluster < 1:
            raise UserError(
                f"pre_experience.clusters={clusters} and pre_experience.per_cluster={per_cluster} must be at least 1."
            )
        if not 0 <= low <= high <= 100:
            raise UserError(
                f"pre_experience.low={low} and pre_experience.high={high} must be percentiles, 0 <= low <= high <= 100."
            )
        self.tuner = tuner
        self.clusters, self.per_cluster, self.low, self.high, self.seed = clusters, per_cluster, low, high, seed

    def sample(self, vectors: np.ndarray, perplexity: np.ndarray) -> list[int]:
        """Positions of the chosen records, in file order.

        vectors: (records, width). perplexity: (records,) of the prompts. With fewer records than clusters there
        are as many clusters as records.
        """
        from sklearn.cluster import KMeans

        clusters = min(self.clusters, len(vectors))
        with threadpool_limits(1, user_api="openmp"):  # several threads add up in an order of their own
            labels = KMeans(n_clusters=clusters, random_state=self.seed).fit(vectors).labels_
        chosen: list[int] = []
        for cluster in range(clusters):
            members = np.flatnonzero(labels == cluster)
            if len(members) >= self.per_cluster:  # a smaller cluster is taken whole
                low, high = np.percentile(perplexity[members], [self.low, self.high])
                members = members[(perplexity[members] >= low) & (perplexity[members] <= high)]
            step = max(len(members) // self.per_cluster, 1)
            chosen += members[::step][: self.per_cluster].tolist()
        return sorted(chosen)

    def prepare(self, runner: PassRunner, records: Sequence[Record], template: Template) -> list[TunedSource]:
        """The pre-experienced backbone, from the store if it is there."""
        table = runner.compute(PromptEmbedding(), records, template)
        usable = [i for i, flag in enumerate(table.flags()) if flag is None]
        if not usable:
            raise UserError("The pre-experience stage found no record whose prompt and answer fit the window.")
        vectors = table.vectors("vector")[usable]
        perplexity = np.exp(table.numbers("prompt_nll")[usable])
        for i in (usable[k] for k in np.flatnonzero(~np.isfinite(perplexity) | ~np.isfinite(vectors).all(1))):
            cause = "the backbone's weights or arithmetic give it no finite number; try backbone.dtype=fp32"
            if template.encode([records[i]], runner.source.tokenizer)[0].answer_start == 1:
                cause = "its prompt is a single token; use a template with text or BOS before it"
            raise UserError(f"The prompt of record {records[i].id} has no perplexity: {cause}.")
        picked = [records[usable[i]] for i in from_leader(self.sample(vectors, perplexity))]
        return [TunedSource(runner, tune_once(runner, "pre_experience", self, picked, template) / "model")]
