"""A tiny Llama with fixed weights, a tiny tokenizer and records: what the tuning tests train on."""

from __future__ import annotations

from pathlib import Path

import torch
from composed import build
from pytorch_lightning.loggers.logger import DummyLogger
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from winnow.backbone.loading import Backbone
from winnow.data.templates import Encoded
from winnow.tuning.data import MicroBatch, MicroBatches, Step
from winnow.tuning.tuner import Tuner

VOCABULARY = 48


def tuner(**settings) -> Tuner:
    """The tuner of `tuning=lora` with some keys replaced, and with round numbers where that has ANIT's."""
    rest = {"batch_size": 16, "weight_decay": 0.0, "gradient_clip": 1.0, "checkpoint_every_steps": 50}
    return build("tuning/lora", **rest | settings)


def tiny_model(tied: bool = True) -> LlamaForCausalLM:
    """Two layers of width 16; the weights are a sine ramp, so that no random generator decides the
    numbers."""
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=64,
            tie_word_embeddings=tied,
        )
    )
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            if parameter.ndim == 2:
                ramp = torch.arange(parameter.numel(), dtype=torch.float32).view_as(parameter)
                parameter.copy_(0.3 * torch.sin(1.7 * ramp + number))
    return model.eval()


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    words = {"<pad>": 0, "<eos>": 1} | {f"w{i}": i for i in range(2, VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")


def tiny_backbone(tied: bool = True) -> Backbone:
    return Backbone(model=tiny_model(tied), tokenizer=tiny_tokenizer(), identity={"name": "tiny"}, name="tiny")


def tiny_records(count: int = 22) -> list[Encoded]:
    """Prompts of 2 to 6 tokens and answers of 1 to 7 tokens that end in EOS; every record another length
    mix. All but the first token of a prompt are its instruction."""
    records = []
    for number in range(count):
        prompt = [2 + (number * 7 + k) % (VOCABULARY - 2) for k in range(2 + number % 5)]
        answer = [2 + (number * 5 + 3 * k) % (VOCABULARY - 2) for k in range(number % 7)] + [1]
        spans = {"instruction": (1, len(prompt))}
        records.append(Encoded(f"{number:016x}", prompt + answer, len(prompt), len(answer) - 1, spans, None))
    return records


def micro_batch(records: list[Encoded], step: int = 0) -> MicroBatch:
    """All the records as the one micro-batch of an optimizer step, in the order given."""
    steps = [Step(0, [[0]])] * step + [Step(0, [list(range(len(records)))])]
    return MicroBatches(records, steps)[step]


CPU = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False}


class Recorder(DummyLogger):
    """Keeps the losses of steps that are logged, as (step, row)."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int, dict]] = []

    def log_metrics(self, metrics, step=None):
        if "train/loss" in metrics:
            self.rows.append((step, metrics))


def weights(folder) -> dict[str, torch.Tensor]:
    """All tensors of a saved adapter or model."""
    from safetensors.torch import load_file

    (file,) = folder.glob("*.safetensors")
    return load_file(file)


def difference(one: Path | dict[str, torch.Tensor], other: Path | dict[str, torch.Tensor]) -> float:
    """The largest one between two sets of weights; a folder stands for those that its run saved."""
    one, other = (weights(side / "model") if isinstance(side, Path) else side for side in (one, other))
    assert one.keys() == other.keys() and one
    return max((one[name] - other[name]).detach().abs().max().item() for name in one)
