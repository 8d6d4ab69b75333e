"""Where tuning starts, if not from the backbone: a model that was tuned before, or one tuned on another pool first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file

from winnow.backbone.loading import Backbone
from winnow.data.records import Pool, Record
from winnow.distributed import is_leader
from winnow.errors import UserError
from winnow.store.describe import Identified
from winnow.store.files import read_json
from winnow.tuning.saving import AGAIN, BACKBONE_FILE, is_adapter, load_tuned, weight_files, weights_digest, whole
from winnow.tuning.trainable import with_adapters

TuneOn = Callable[[list[Record]], Path]  # records -> the folder of the backbone tuned on them

# What a saved adapter may say otherwise than the run: where its backbone lay, what plays a part in training alone, and
# the names of the adapted modules, which can be written in several ways and show in the weights.
FREE = {
    *("base_model_name_or_path", "revision", "inference_mode", "lora_dropout", "init_lora_weights", "peft_version"),
    "target_modules",
}
KEYS = {"r": "lora_r", "lora_alpha": "lora_alpha"}
RESIDUAL = ("pissa", "corda", "olora", "loftq", "lora_ga")  # values of init_lora_weights that change the backbone too
SAME_WEIGHTS = ("dtype", "attention")  # of a backbone's identity: ways to run it


class ModelStart(Identified):
    """A model of an earlier run. path: its run folder, or the folder of the adapter or model itself.

    Raises UserError if there is no tuned model.
    """

    def __init__(self, path: str) -> None:
        given = Path(path).expanduser().resolve()
        self.path = given / "model" if (given / "model").is_dir() else given
        if not any(self.path.glob("*.safetensors")):
            raise UserError(
                f"start.path={path} holds no tuned model: give the folder of a run whose tune stage is done, or of a "
                f"model that it saved (*.safetensors)."
            )

    @property
    def identity(self) -> dict[str, Any]:
        return {"weights": weights_digest(self.path)}

    def model(self, tune_on: TuneOn) -> Path:
        """The folder of the model."""
        return self.path


class PoolStart:
    """The backbone, tuned on every record of `pool` that has an answer, in the way the run tunes. Of a repeated record
    the first counts, as in a selection, unless the pool keeps repeats."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    def model(self, tune_on: TuneOn) -> Path:
        """The folder of the model, tuned now unless the store has it."""
        if self.pool.quarantined and is_leader():
            print(f"{len(self.pool.quarantined)} bad rows of start.pool={self.pool.source} are left out.", flush=True)
        records = [record for record in self.pool.records if record.output != ""]
        if not self.pool.keep_duplicates:
            firsts: dict[str, Record] = {}
            for record in records:
                firsts.setdefault(record.id, record)
            records = list(firsts.values())
        return tune_on(records)


def trainable_model(backbone: Backbone, mode: str, lora: dict[str, Any], seed: int, start: Path | None) -> Any:
    """What is trained and saved: adapters on the backbone, or its own weights; with `start`, as that model ended.

    Weights are trained in fp32: bf16 is too coarse for small updates.

    mode, lora, seed: of the tuner. start: a saved adapter (`lora`) or full model (`full`) of the same backbone. An
    adapter goes on being trained as the one adapter that it is, so that the result again sits on the backbone itself;
    optimizer and schedule begin anew. Raises UserError if the start does not fit.
    """
    if start is not None:
        check_start(start, mode, backbone.identity)
    if mode == "full":
        if start is not None:
            began = load_tuned(backbone, start).model.state_dict()
            _check_shapes(start, began, backbone.model.state_dict())
            backbone.model.load_state_dict(began)
        return backbone.model.float().requires_grad_(True)
    fresh = with_adapters(backbone.model, **lora, seed=seed)
    if start is not None:
        _take_adapter(fresh, start)
    return fresh


def check_start(folder: Path, mode: str, identity: dict[str, Any]) -> None:
    """Raises UserError if what is saved in `folder` is not of this mode, or not of the backbone with this identity.

    A folder that does not name its backbone (made by another program) is judged by its shapes later on.
    """
    weight_files(folder)
    saved = "lora" if is_adapter(folder) else "full"
    if saved != mode:
        kinds = {"lora": "an adapter", "full": "a full model"}
        raise UserError(f"start: {folder} holds {kinds[saved]}, but tuning.mode={mode}; set tuning.mode={saved}.")
    file = folder / BACKBONE_FILE
    if not file.is_file():
        return
    then, now = read_json(file, "name", cure=AGAIN), identity
    differing = sorted(key for key in then | now if key not in SAME_WEIGHTS and then.get(key) != now.get(key))
    if differing:
        told = ", ".join(f"{key} {then.get(key)} there, {now.get(key)} here" for key in differing)
        raise UserError(f"start: {folder} was tuned from another backbone ({told}); start from a model of this one.")


def _take_adapter(fresh: PeftModel, folder: Path) -> None:
    """The saved weights in place of the fresh ones. Adapter and settings must describe the same matrices."""
    read_json(folder / "adapter_config.json", "peft_type", "r", "target_modules", cure=AGAIN)
    with whole(folder):
        saved = LoraConfig.from_pretrained(str(folder)).to_dict()
        weights = load_file(folder / "adapter_model.safetensors")
    if str(saved["init_lora_weights"]).lower().startswith(RESIDUAL):
        raise UserError(
            f"start: the adapter in {folder} has init_lora_weights={saved['init_lora_weights']} and belongs to a "
            f"changed backbone; convert it to a plain LoRA adapter first, as PEFT's documentation says."
        )
    own = fresh.peft_config["default"].to_dict()
    for key in (key for key in own if key not in FREE and own[key] != saved.get(key)):
        wish = f"set tuning.{KEYS[key]} to that" if key in KEYS else "it cannot go on being trained here"
        raise UserError(
            f"start: the adapter in {folder} has {key}={saved.get(key)}, but the run's settings give {own[key]}; "
            f"{wish}, or start from another model."
        )
    here = get_peft_model_state_dict(fresh, save_embedding_layers=False)  # "auto" would ask the hub
    if _modules(weights) != _modules(here):
        raise UserError(
            f"start: the adapter in {folder} adapts {', '.join(_modules(weights))}, but the run's settings adapt "
            f"{', '.join(_modules(here))}; change tuning.lora_target_modules, or start from another model."
        )
    _check_shapes(folder, weights, here)
    set_peft_model_state_dict(fresh, weights)


def _modules(weights: dict[str, Any]) -> list[str]:
    """`down_proj`, `q_proj`, ...: the last part of the adapted modules' names."""
    return sorted({name.partition(".lora_")[0].rpartition(".")[2] for name in weights})


def _check_shapes(folder: Path, *weights: dict[str, Any]) -> None:
    there, here = ({name: tuple(tensor.shape) for name, tensor in one.items()} for one in weights)
    differing = sorted(name for name in there | here if there.get(name) != here.get(name))
    if differing:
        first = differing[0]
        told = f"{first}: {there.get(first, 'absent')} there, {here.get(first, 'absent')} here"
        raise UserError(
            f"start: {folder} was tuned from another backbone ({len(differing)} weights differ in shape, such as "
            f"{told}); start from a model of this one."
        )
