"""What a run is made of, built and checked before a model is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from winnow.backbone.loading import BackboneSource
from winnow.backbone.memory import check_scoring, check_sharing, room, shapes
from winnow.data.records import Pool
from winnow.data.templates import Template
from winnow.errors import UserError
from winnow.evaluation.suite import Suite
from winnow.perturb.distortion import OpenAIDistortion
from winnow.perturb.noising import Noising
from winnow.scoring.methods.column import Column
from winnow.scoring.protocols import Method, Pass, Preparation, check_kind, check_method, check_pass
from winnow.scoring.runner import PassRunner
from winnow.selection.budget import Budget
from winnow.stages.tune import Recipe, check_lora, recipe_of
from winnow.store.artifacts import Store
from winnow.store.describe import describe
from winnow.store.run_folder import STAGES, run_folder
from winnow.trainer import check_trainer, processes_of
from winnow.tuning.adversary.base import Adversary
from winnow.tuning.memory import check_tuning
from winnow.tuning.tuner import Tuner

SHORTEST = 16  # tokens of a text that any evaluation asks (ours): what is planned for, as its prompts are not made yet


@dataclass(frozen=True)
class Parts:
    """The parts that a configuration names.

    stages: those asked for, in their order. runner: computes passes over the backbone that is tuned and evaluated.
    scorer: over the one that scores and selects, by default the same. scoring_template: of the method's passes;
    template: of all else. target: the second pool, where the method has target passes. recipe: None where nothing is
    tuned.
    """

    stages: list[str]
    folder: Path
    pool: Pool
    target: Pool | None
    template: Template
    scoring_template: Template
    method: Method
    pre_experience: Preparation | None
    selection: Budget
    suite: Suite
    runner: PassRunner
    scorer: PassRunner
    recipe: Recipe | None


def build_parts(cfg: DictConfig) -> Parts:
    """The parts of a configuration. Raises UserError for parts that could not be run to their end."""
    stages, folder, store = _stages(cfg), run_folder(cfg), Store(cfg.paths.store)
    source = instantiate(cfg.backbone)
    template = instantiate(cfg.template)
    own = cfg.method.get("template")  # a method may score under a template of its own
    scoring_template = template if own is None else instantiate(own)
    # Resolved first: taken out of the whole, its references to other parts would lead nowhere.
    settings = OmegaConf.to_container(cfg.method, resolve=True)
    method = instantiate({key: settings[key] for key in settings if key != "template"})
    check_method(method)
    pre_experience = _part(cfg, "pre_experience", Preparation, "prepare")
    if pre_experience is not None and method.preparation is not None:
        raise UserError(f"method={method.name} prepares its own model; set pre_experience=none.")
    selection = _part(cfg, "selection", Budget)
    for name, pass_ in selection.passes.items():
        check_pass(f"selection.{name}", pass_)
    suite = instantiate(cfg.evaluation)
    trainer: dict[str, Any] = OmegaConf.to_container(cfg.trainer, resolve=True)
    check_trainer(trainer)
    own_passes = {"score": {**method.passes, **method.target_passes}, "select": selection.passes}
    passes = [pass_ for stage, own in own_passes.items() if stage in stages for pass_ in own.values()]
    if trainer.get("strategy") == "fsdp":
        _check_shared(passes)
    trainer["callbacks"] = list(instantiate(cfg.callbacks).values())
    runner = PassRunner(source, store, trainer, attack_processes=cfg.attack.processes, **cfg.scoring)
    scorer = runner if cfg.get("scorer") is None else runner.over(instantiate(cfg.scorer))
    if trainer.get("strategy") == "fsdp":
        check_sharing(source.dtype)
        check_sharing(scorer.source.dtype)
    adversary = _part(cfg, "adversary", Adversary, "loss")
    noising = _part(cfg, "noising", Noising, "change")
    tuner, start = _part(cfg, "tuning", Tuner), instantiate(cfg.start)
    recipe = recipe_of(tuner, start, runner, template, adversary, noising, lambda: instantiate(cfg.distortion))
    for encoder in (pass_.encoder for pass_ in passes if pass_.encoder is not None):
        encoder.tokenizer  # noqa: B018  (raises where there is none)
    tuners: list[tuple[Tuner, PassRunner]] = []
    if "score" in stages:
        _check_texts(own_passes["score"], scorer, scoring_template)
        preparation = method.preparation or pre_experience
        prepared = getattr(preparation, "tuner", None)
        if method.passes and prepared is not None:
            prepared.setting = f"{'pre_experience' if method.preparation is None else 'method.preparation'}.tuner"
            check_lora(prepared, scorer.source, prepared.setting)
            if not store.made_from("models", describe(preparation), describe(scorer.source)):
                tuners.append((prepared, scorer))
    if "select" in stages:
        _check_texts(own_passes["select"], scorer, template)
    if "tune" in stages and recipe is not None:
        tuners.append((recipe.tuner, runner))
        source.check_window(template.max_length, f"template.max_length={template.max_length}")
        source.tokenizer  # noqa: B018  (raises where there is none)
        if template.is_chat:
            source.check_markers()
        if noising is not None and adversary.needs_distortion:
            distortion = _part(cfg, "distortion", object)
            if isinstance(distortion, OpenAIDistortion):
                distortion.key()
    if "evaluate" in stages:
        _check_evaluation(suite, template, source)
    if method.target_passes and cfg.get("target") is None:
        raise UserError(
            f"method={method.name} needs a target, records of what the model should get better at; give "
            f"data@target=NAME, any choice of data, for instance data@target=file target.path=FILE."
        )
    evaluated = runner if "evaluate" in stages and suite.tasks else None
    _check_memory(passes, scorer, tuners, evaluated, scoring_template.max_length)
    pool = instantiate(cfg.data)  # last: it may take long
    if isinstance(method, Column) and cfg.data.get("turns") == "every":
        method.check_every_answer(pool.records)
    target = instantiate(cfg.target) if method.target_passes else None
    parts = (stages, folder, pool, target, template, scoring_template, method, pre_experience, selection, suite)
    return Parts(*parts, runner, scorer, recipe)


def _part(cfg: DictConfig, group: str, base: type, *methods: str) -> Any:
    """The part of a group, checked; None for `none`."""
    part = instantiate(cfg[group])
    if part is not None:
        check_kind(group, part, base, *methods)
    return part


def _stages(cfg: DictConfig) -> list[str]:
    names = [cfg.stages] if isinstance(cfg.stages, str) else list(cfg.stages)
    if not names or not set(names) <= set(STAGES):
        raise UserError(f"stages={names} must name some of {', '.join(STAGES)}.")
    return [stage for stage in STAGES if stage in names]


def _check_shared(passes: Sequence[Pass]) -> None:
    """Raises UserError for a pass that the processes cannot run with one model together."""
    for pass_ in passes:
        greedy = pass_.attack is not None and pass_.attack.search == "greedy"
        if pass_.needs_gradients or greedy:
            what = "attack.search=greedy asks a model for losses" if greedy else "it reads gradients of a model"
            raise UserError(
                f"trainer.strategy=fsdp: the pass {pass_.label} needs a whole model on each device, because {what}: "
                f"run that stage with trainer=ddp, and what follows with trainer=fsdp and the same paths.run."
            )


def _check_memory(
    passes: Sequence[Pass],
    scorer: PassRunner,
    tuners: Sequence[tuple[Tuner, PassRunner]],
    evaluated: PassRunner | None,
    tokens: int,
) -> None:
    """Raises UserError if no device here holds what the passes, of texts of so many tokens, the tuners and an
    evaluation ask of the backbone."""
    models = [pass_ for pass_ in passes if pass_.runs_model and pass_.encoder is None]

    def check(runner: PassRunner, tokens: int, cached: int = 0, sharable: bool = True) -> None:
        source, trainer = runner.source, runner.trainer
        processes = processes_of(trainer) if trainer.get("strategy") == "fsdp" else 1
        size = shapes(source.skeleton)
        check_scoring(source.name, size, source.dtype, room(trainer), tokens, cached, processes, sharable)

    if models:
        cached = max((pass_.tokens_per_batch or 0) if pass_.max_new_tokens else 0 for pass_ in models)
        check(scorer, tokens, cached, not any(pass_.needs_gradients for pass_ in models))
    if evaluated is not None:
        check(evaluated, SHORTEST)
    for tuner, runner in tuners:
        source = runner.source
        check_tuning(source.name, shapes(source.skeleton), tuner, source.dtype, runner.trainer)


def _check_evaluation(suite: Suite, template: Template, source: BackboneSource) -> None:
    """Raises UserError if the suite could not be run to its end."""
    check_kind("evaluation", suite, Suite)
    if suite.tasks:
        suite.check_data()
        suite.check_prompts(template, source.tokenizer)
        for task, tokens in suite.generates().items():
            source.check_window(tokens + 1, f"The task {task}, whose answers may have {tokens} tokens, with a prompt")
        if suite.chat_template or (suite.uses_template and template.is_chat):
            source.check_markers()


def _check_texts(passes: Mapping[str, Pass], scorer: PassRunner, template: Template) -> None:
    """Raises UserError if a text of the passes may be longer than their backbone reads, or hold markers that it has no
    embedding for."""
    models = [pass_ for pass_ in passes.values() if pass_.runs_model and pass_.encoder is None]
    if models:
        answers = max(pass_.max_new_tokens for pass_ in models)
        settings = f"template.max_length={template.max_length}"
        settings += f" with method.max_new_tokens={answers}" if answers else ""
        scorer.source.check_window(template.max_length + answers, settings)
        if template.is_chat:
            scorer.source.check_markers()
