"""Suites of NLU tasks, clean or under noised instructions: what `evaluation=nlu` and `nlu_robust` build."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from winnow.data.nlu.datasets import DATASETS
from winnow.evaluation.nlu import NluData
from winnow.evaluation.suite import Suite, TaskSpec
from winnow.perturb.noising import noising_class
from winnow.store.describe import Free


def nlu_suite(
    name: str,
    datasets: Sequence[str],
    path: str | None,
    paths: Mapping[str, str | None],
    sources: Mapping[str, str | None],
    style: str,
    split: str,
    noises: Sequence[str],
    omegas: Sequence[float],
    noise_seed: int,
    draws: int | None,
    limit: int | None,
    sample_seed: int,
    batch_size: Free[int],
) -> Suite:
    """A suite whose tasks are the conditions of `NluData`: see there for the arguments; sample_seed is its `seed`.

    Metrics: `<data set>/micro_f1` without noises, and of several data sets the plain mean `average/tasks`; with them
    `<data set>/clean/micro_f1`, `<data set>/<noise>@<omega>/micro_f1`, and the plain means `average/<data set>/<noise>`
    over the omegas and `average/<data set>/noisy` over all noised conditions. `unreadable` stands beside each
    `micro_f1`; SciERC has `entity_f1` and `relation_f1` too.
    """
    data = NluData(
        datasets=tuple(dict.fromkeys(datasets)),
        path=path,
        paths={key: value for key, value in paths.items() if value is not None},
        sources={key: value for key, value in sources.items() if value is not None},
        style=style,
        split=split,
        limit=limit,
        seed=sample_seed,
        noises=tuple(noises),
        omegas=tuple(omegas),
        noise_seed=noise_seed,
        draws=draws,
    )
    tasks, headline = [], []
    averages: dict[str, list[str]] = {}
    for task, condition in data.conditions().items():
        key, dataset = f"{task}/micro_f1", DATASETS[condition.dataset]
        parts = ("entity_f1", "relation_f1") if dataset.entities and dataset.pairs else ()
        tasks.append(TaskSpec(task, ("micro_f1", *parts, "unreadable"), 0))
        if condition.noise is None:
            headline += [key, f"average/{condition.dataset}/noisy"] if data.noises else [key]
        else:
            for kind in ("noisy", noising_class(condition.noise).name):
                averages.setdefault(f"{condition.dataset}/{kind}", []).append(key)
    if len(data.datasets) > 1 and not data.noises:
        averages["tasks"] = headline
    return Suite(
        name,
        tasks,
        headline=headline,
        averages=averages,
        limit=None,
        batch_size=batch_size,
        mirror=None,
        allow_code_execution=False,
        chat_template=False,
        seed=1234,
        bootstrap_iters=1000,
        nlu=data,
    )
