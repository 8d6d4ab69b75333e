"""What each of two processes runs for test_evaluation_shares.py; one process runs the same and is the reference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from composed import build, template
from lm_eval.api.instance import Instance
from test_greedy import PROMPTS, ids_of
from tiny import tiny_model, tiny_tokenizer
from tiny_passes import TRAINER, Loaded
from torch import nn
from transformers import MistralConfig, MistralForCausalLM

from winnow.backbone.loading import Backbone
from winnow.backbone.shared import on_all_devices
from winnow.distributed import is_leader, join, rank
from winnow.errors import UserError
from winnow.evaluation.model import HarnessModel
from winnow.scoring.runner import PassRunner
from winnow.stages.evaluate import evaluate
from winnow.store.artifacts import Store
from winnow.tracking.run_card import StageRecord

SUITE = build("evaluation/embedded", limit=5, batch_size=3)


def windowed() -> nn.Module:
    """A model whose prompts cannot be shared, with the weights of the tiny one."""
    model = tiny_model()
    config = MistralConfig(**(model.config.to_dict() | {"model_type": "mistral", "sliding_window": 64}))
    other = MistralForCausalLM(config).eval()
    other.load_state_dict(model.state_dict())
    return other.requires_grad_(False)


def answers(model: nn.Module, batch_size: int) -> tuple[dict[str, Any], int]:
    """(what the leader's harness gets for requests of each kind, and how many were cut to 60 tokens; forward passes of
    this process)."""
    model.config.max_position_embeddings = 64
    tokenizer, passes = tiny_tokenizer(), []
    watch = model.get_decoder().register_forward_hook(lambda *_: passes.append(1))
    known = {prompt: list(ids_of(tokenizer, prompt)) for prompt in PROMPTS}
    own = HarnessModel(model, tokenizer, batch_size, prompts=known)
    found: dict[str, Any] = {}
    if is_leader():
        settings = {"until": ["\u2603"], "max_gen_toks": 4, "do_sample": False}
        pairs = [(prompt, answer) for prompt in PROMPTS for answer in (" yes", " n", " y")]
        asked = {
            "loglikelihood": (own.loglikelihood, pairs),
            "loglikelihood_rolling": (own.loglikelihood_rolling, [(prompt,) for prompt in PROMPTS]),
            "ours": (own.generate_until, [(prompt, settings) for prompt in PROMPTS]),
            "the harness's": (own.generate_until, [(f"{prompt}: ", settings) for prompt in PROMPTS]),
            "cut": (own.generate_until, [("long " * 20, settings), ("longer " * 10, settings), ("x", settings)]),
        }
        for kind, (ask, given) in asked.items():
            found[kind] = ask([Instance("", {}, one, i) for i, one in enumerate(given)], disable_tqdm=True)
        found["truncated"] = own.finish()
    else:
        own.follow()
    watch.remove()
    return found, len(passes)


def broken_on(number: int) -> str:
    """What a process says whose group has a model of which the weights are broken on one of them."""
    model = tiny_model()
    own = HarnessModel(model, tiny_tokenizer(), 2)  # which looks at the weights
    if rank() == number:
        model.lm_head.weight.fill_(float("nan"))
    settings = {"until": ["a"], "max_gen_toks": 2, "do_sample": False}
    requests = [Instance("generate_until", {}, (prompt, settings), i) for i, prompt in enumerate(PROMPTS)]
    try:
        own.generate_until(requests, disable_tqdm=True) if is_leader() else own.follow()
    except UserError as error:
        return str(error)
    return ""


def shared_answers(model: nn.Module) -> tuple[dict[str, Any], int]:
    """`answers` of a model that the processes share."""
    found: list[tuple[dict[str, Any], int]] = []
    settings = TRAINER | {"strategy": "fsdp", "devices": 2}
    on_all_devices(settings, model, lambda: found.append(answers(model, 2)))
    return found[0]


def stage(folder: Path, devices: int) -> None:
    """The evaluate stage for the tiny backbone."""
    tiny = Backbone(tiny_model(), tiny_tokenizer(), {"name": "tiny", "tokenizer": "bytes"}, "tiny")
    settings = TRAINER | ({"strategy": "ddp", "devices": devices} if devices > 1 else {})
    runner = PassRunner(Loaded(tiny), Store(folder / "store"), settings)
    evaluate(StageRecord(), folder, runner, SUITE, template("alpaca"), None, None)


def one_of_two(folder: Path) -> None:
    join()
    found = {name: answers(model, 2) for name, model in (("tiny", tiny_model()), ("windowed", windowed()))}
    found["shared tiny"] = shared_answers(tiny_model())
    found["shared windowed"] = shared_answers(windowed())
    stage(folder, 2)
    result = {"found": found, "broken": broken_on(1)}
    (folder / f"rank_{rank()}.json").write_text(json.dumps(result))
