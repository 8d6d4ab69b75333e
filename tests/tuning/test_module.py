"""The numbers of training: loss, schedule, optimizer, and what must not change them."""

from __future__ import annotations

import logging
import math
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning.callbacks import Callback, DeviceStatsMonitor, LearningRateMonitor, ModelSummary
from pytorch_lightning.plugins.precision import MixedPrecision
from tiny import tiny_model
from tiny_tuning import CPU, VOCABULARY, Recorder, difference, tiny_backbone, tiny_records, tuner, weights
from torch._subclasses import FakeTensorMode
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AttentionInterface,
    AttentionMaskInterface,
    AutoModelForCausalLM,
    BambaConfig,
    DbrxConfig,
    Gemma3Config,
    GraniteMoeHybridConfig,
    JetMoeConfig,
    MambaConfig,
    MixtralConfig,
    MixtralForCausalLM,
    PhimoeConfig,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from winnow.backbone.causal_model import CausalModel
from winnow.errors import UserError
from winnow.tuning.adversary.none import NoAdversary
from winnow.tuning.data import MicroBatches, Step, plan_steps
from winnow.tuning.examples import EpochRecords
from winnow.tuning.module import InstructionTuner
from winnow.tuning.trainable import check_targets, check_trainable, with_adapters

FULL = {"mode": "full", "epochs": 2, "batch_size": 8, "micro_batch_size": 4, "learning_rate": 1e-3}


def tune(folder, records=None, adversary=None, backbone=None, loggers=(), **settings):
    records = tiny_records() if records is None else records
    return tuner(**{**FULL, **settings}).fit(
        backbone or tiny_backbone(), records, folder, adversary, loggers, trainer_args=CPU
    )


def test_a_head_of_zeros_gives_the_log_of_the_vocabulary(tmp_path):
    """Logits 0 for every token: p = 1/48, so the first step's loss is ln 48 whatever the records."""
    backbone = tiny_backbone(tied=False)
    backbone.model.lm_head.weight.data.zero_()
    result = tune(tmp_path, backbone=backbone)
    assert result["train_loss"][0]["loss"] == pytest.approx(math.log(VOCABULARY), abs=1e-6)


def test_training_equals_a_plain_loop(tmp_path):
    """The same 6 steps written out in plain torch, with transformers' own label loss as token mean.

    22 records in batches of 8 over 2 epochs: 3 steps each. Warm-up 0.2 of 6 steps = 2 steps (rounded up):
    lr(t) = peak * t / 2 for t < 2, then peak * (1 + cos(pi * (t - 2) / 4)) / 2. Weight decay 0.1 on matrices
    only.
    """
    records = EpochRecords(tiny_records()).first
    steps = plan_steps([len(r.ids) for r in records], 8, 4, seed=5, epochs=2)
    model = tiny_backbone().model.train()
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0}])
    expected = []
    for t, step in enumerate(steps):
        rate = 1e-3 * (t / 2 if t < 2 else (1 + math.cos(math.pi * (t - 2) / 4)) / 2)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = [records[i] for micro in step.micro_batches for i in micro]
        tokens = sum(len(r.ids) - r.answer_start for r in batch)
        loss = torch.zeros(())
        for r in batch:
            labels = [-100] * r.answer_start + r.ids[r.answer_start :]
            output = model(input_ids=torch.tensor([r.ids]), labels=torch.tensor([labels]))
            loss = loss + output.loss * (len(r.ids) - r.answer_start) / tokens
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.3)
        optimizer.step()
        expected.append((t + 1, loss.item(), rate))

    backbone = tiny_backbone(tied=True)
    settings = {"warmup_ratio": 0.2, "weight_decay": 0.1, "gradient_clip": 0.3, "seed": 5}
    result = tune(tmp_path, backbone=backbone, **settings)
    assert result["steps"] == 6 and result["epochs"] == 2
    for ours, (number, loss, rate) in zip(result["train_loss"], expected, strict=True):
        assert ours["step"] == number
        assert ours["loss"] == pytest.approx(loss, abs=1e-5)
        assert ours["lr"] == pytest.approx(rate, abs=1e-12)
    plain = dict(model.named_parameters())
    tuned = weights(tmp_path / "model")
    assert difference(tuned, {name: plain[name] for name in tuned}) < 1e-5
    moved = dict(tiny_backbone().model.named_parameters())
    assert difference(tuned, {name: moved[name] for name in tuned}) > 1e-3


def test_accumulation_changes_nothing(tmp_path):
    """8 records at once, 2 times 4, 8 times 1: the loss of a step is one mean over its answer tokens. Adapters are in
    test_dropout.

    The records' answers have 1 to 7 tokens, so a mean of micro-batch means would differ in the first digit.
    """
    results = {}
    for micro in (8, 4, 1):
        folder = tmp_path / str(micro)
        results[micro] = tune(folder, mode="full", micro_batch_size=micro)
    for micro in (4, 1):
        pairs = zip(results[8]["train_loss"], results[micro]["train_loss"], strict=True)
        assert max(abs(a["loss"] - b["loss"]) for a, b in pairs) < 1e-5
        assert difference(tmp_path / "8", tmp_path / f"{micro}") < 1e-5


def test_gradient_checkpointing_changes_nothing(tmp_path):
    for name, on in (("plain", False), ("again", True)):
        tune(tmp_path / name, mode="lora", lora_dropout=0.1, gradient_checkpointing=on)
    assert difference(tmp_path / "plain", tmp_path / "again") < 1e-6


def test_the_order_of_the_records_changes_nothing(tmp_path):
    tune(tmp_path / "forwards")
    tune(tmp_path / "backwards", records=tiny_records()[::-1])
    assert difference(tmp_path / "forwards", tmp_path / "backwards") == 0


def test_the_seed_decides_the_run_and_the_callers_random_state_is_kept(tmp_path):
    backbones = [tiny_backbone() for _ in range(3)]
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    for name, seed, backbone in zip(("one", "same", "other"), (0, 0, 1), backbones, strict=True):
        tune(tmp_path / name, mode="lora", lora_dropout=0.1, seed=seed, backbone=backbone)
    assert torch.equal(torch.rand(3), expected)
    assert difference(tmp_path / "one", tmp_path / "same") == 0
    assert difference(tmp_path / "one", tmp_path / "other") > 1e-3


class Scaled(NoAdversary):
    """Returns `factor` times the loss, after looking for a perturbation as an adversary does."""

    def __init__(self, factor: float) -> None:
        self.factor, self.seen = factor, []

    def loss(self, loss_of, embeds, mask):
        delta = torch.zeros_like(embeds, requires_grad=True)
        (gradient,) = torch.autograd.grad(loss_of(embeds + delta), delta)
        self.seen.append((tuple(embeds.shape), int(mask.sum()), float(gradient[~mask].abs().sum())))
        return self.factor * loss_of(embeds)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_adversary_decides_the_loss_and_leaves_no_other_trace(checkpointing, tmp_path):
    """factor 1: the plain run, although a gradient was taken on the way. factor 2: the first loss doubles.

    Padding gets no gradient: a causal model cannot see it from a real token.
    """
    settings = {"mode": "lora", "lora_dropout": 0.0, "gradient_checkpointing": checkpointing}
    plain = tune(tmp_path / "plain", **settings)
    once, twice = Scaled(1.0), Scaled(2.0)
    tune(tmp_path / "once", adversary=once, **settings)
    doubled = tune(tmp_path / "twice", adversary=twice, **settings)
    assert difference(tmp_path / "plain", tmp_path / "once") == 0
    assert doubled["train_loss"][0]["loss"] == pytest.approx(2 * plain["train_loss"][0]["loss"], rel=1e-6)
    assert all(shape[2] == 16 and real <= shape[0] * shape[1] for shape, real, _ in once.seen)
    assert any(real < shape[0] * shape[1] for shape, real, _ in once.seen)  # there is padding to look at
    assert max(at_padding for _, _, at_padding in once.seen) == 0


class Infinite(NoAdversary):
    def __init__(self) -> None:
        self.calls = 0

    def loss(self, loss_of, embeds, mask):
        self.calls += 1
        return loss_of(embeds) * (float("inf") if self.calls == 5 else 1.0)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    """2 micro-batches per step: the 5th call belongs to step 3. Nothing is saved."""
    with pytest.raises(UserError, match=r"became inf at step 3 of 6: lower .*, or use backbone.dtype=fp32 tuning"):
        tune(tmp_path, adversary=Infinite())
    assert not (tmp_path / "model").exists() and not (tmp_path / "tuning.json").exists()


def test_callbacks_need_no_logger_and_may_print(tmp_path, caplog):
    """Those of the group `callbacks` and one more that logs."""
    talks = logging.getLogger("pytorch_lightning.callbacks.model_summary")
    talks.addHandler(caplog.handler)
    settings = {**CPU, "callbacks": [DeviceStatsMonitor(), LearningRateMonitor(), ModelSummary()]}
    tuner(**FULL | {"epochs": 1}).fit(tiny_backbone(), tiny_records(), tmp_path, trainer_args=settings)
    talks.removeHandler(caplog.handler)
    assert "Trainable params" in caplog.text


def test_a_loss_below_zero_is_a_defect(tmp_path):
    with pytest.raises(UserError, match=r"became -[0-9.]+ at step 1 of 6: a mean of -log p is never below 0.*Scaled"):
        tune(tmp_path, adversary=Scaled(-1.0))


def test_damaged_weights_are_named(tmp_path):
    """A frozen weight is what it was in the backbone; so is a trained one before the first step."""
    backbone = tiny_backbone()
    backbone.model.model.layers[1].mlp.up_proj.weight.data[0, 0] = float("nan")
    for mode in ("lora", "full"):
        with pytest.raises(UserError, match=r"holds weights that are not finite \(first: .*layers.1.mlp.up_proj"):
            tune(tmp_path / mode, backbone=backbone, mode=mode)


def test_a_record_without_a_finite_loss_is_named(tmp_path):
    """Weights are finite, but the embedding layer gives no number for token 47, which one of the 8 records holds."""

    def spoil(_module, inputs, output):
        return output.masked_fill((inputs[0] == 47)[..., None], float("nan"))

    backbone, records = tiny_backbone(), tiny_records(8)
    backbone.model.get_input_embeddings().register_forward_hook(spoil)
    for record in records:
        record.ids[:] = [2 if token == 47 else token for token in record.ids]
    records[5].ids[0] = 47
    with pytest.raises(UserError, match=rf"step 1 of 2: 1 of its 8 records have no finite loss \({records[5].id}\)"):
        tune(tmp_path / "with", backbone=backbone, records=records, mode="lora")
    tune(tmp_path / "without", backbone=backbone, records=records[:5] + records[6:], mode="lora")


def test_a_lost_loss_is_a_sentence_where_attention_has_no_fp32(tmp_path):
    """As flash attention, which reads 16 bits alone: full tuning holds fp32 weights, so each record's loss is looked at
    under autocast too. The adversary's factor is NaN, the records' own losses are finite."""

    def no_fp32(module, query, *rest, **options):
        assert torch.is_autocast_enabled("cpu") or query.dtype == torch.bfloat16
        return sdpa_attention_forward(module, query, *rest, **options)

    AttentionInterface.register("no_fp32", no_fp32)
    AttentionMaskInterface.register("no_fp32", ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    backbone = tiny_backbone()
    backbone.model.to(torch.bfloat16).set_attn_implementation("no_fp32")
    CausalModel(backbone.model)  # as when it is loaded, before the weights are fp32
    with pytest.raises(UserError, match="became nan at step 1 of 6: lower tuning.learning_rate"):
        tune(tmp_path, backbone=backbone, adversary=Scaled(float("nan")))


def test_adapters_leave_the_frozen_weights_where_they_are(monkeypatch):
    """Lightning ends a training with `cpu()`: fully tuned weights leave the device by it, the backbone of adapters
    stays there."""
    moved = []
    monkeypatch.setattr(torch.nn.Module, "cpu", lambda module: moved.append(module) or module)
    adapted = with_adapters(tiny_model(), 2, 4, 0.0, "all-linear", seed=0).get_base_model()
    lora, full = (InstructionTuner(one, NoAdversary(), 1e-3, 10) for one in (adapted, torch.nn.Linear(2, 2)))
    assert lora.cpu() is lora and full.cpu() is full and moved == [full]


def test_no_memory_is_said_in_a_sentence(tmp_path):
    """torch's own error at an allocation that no machine grants: 2^60 bytes."""

    class Large(NoAdversary):
        def loss(self, loss_of, embeds, mask):
            return loss_of(embeds) + torch.empty(2**60, dtype=torch.uint8).sum()

    with pytest.raises(UserError, match=r"ran out of memory: lower tuning.micro_batch_size \(now 4"):
        tune(tmp_path, adversary=Large())


def test_names_of_modules_as_a_text(tmp_path):
    """A text of names is a list of them; a regular expression stays one. q_proj and v_proj of 2 layers, with A and B
    each: 8 tensors."""
    named = [{"lora_target_modules": given} for given in ("q_proj", "v_proj, q_proj", ".*[qv]_proj")]
    assert [tuner(**given).lora["target_modules"] for given in named] == [
        ["q_proj"],
        ["q_proj", "v_proj"],
        ".*[qv]_proj",
    ]
    tune(tmp_path, mode="lora", max_steps=1, **named[2])
    assert len(weights(tmp_path / "model")) == 8


def test_weights_lost_in_the_very_last_step_are_not_saved(tmp_path):
    """The loss is finite, the gradient is not: 0 * sqrt(x) at x = 0 has the slope 0 * inf = nan."""

    class Vertical(NoAdversary):
        def loss(self, loss_of, embeds, mask):
            loss = loss_of(embeds)
            return loss + 0.0 * (loss - loss.detach()).sqrt()

    with pytest.raises(UserError, match="not finite after the last step: .*, or use backbone.dtype=fp32 tuning"):
        tune(tmp_path, adversary=Vertical(), max_steps=1, warmup_ratio=0.0)
    assert not (tmp_path / "model").exists()


def test_bf16_follows_fp32(tmp_path):
    """Autocast keeps 8 bits of mantissa (2^-8 = 0.4% per rounding): over 20 steps that take off a fifth of
    the loss, every step's loss stays within 1% of fp32. They are not the same numbers."""
    settings = {"records": tiny_records(4), "epochs": 20, "learning_rate": 3e-3}
    fp32, bf16 = (tune(tmp_path / dtype, dtype=dtype, **settings)["train_loss"] for dtype in ("fp32", "bf16"))
    assert bf16[-1]["loss"] < 0.8 * bf16[0]["loss"]
    ratios = [half["loss"] / whole["loss"] for half, whole in zip(bf16, fp32, strict=True)]
    assert all(abs(ratio - 1) < 0.01 for ratio in ratios)
    assert any(ratio != 1 for ratio in ratios)


def test_nothing_to_tune_on(tmp_path):
    flagged = [type(r)(r.id, r.ids, len(r.ids), 0, {}, "empty_answer") for r in tiny_records(3)]
    with pytest.raises(UserError, match=r"none of the 3 selected .*empty_answer \(3\)"):
        tune(tmp_path, records=flagged)
    with pytest.raises(UserError, match="selection is empty"):
        tune(tmp_path, records=[])


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"mode": "half"}, "tuning.mode=half"),
        ({"dtype": "fp8"}, "tuning.dtype=fp8"),
        ({"schedule": "steps"}, "tuning.schedule=steps"),
        ({"epochs": 0}, "tuning.epochs=0"),
        ({"max_steps": 0}, "tuning.max_steps=0"),
        ({"learning_rate": 0}, "tuning.learning_rate=0"),
        ({"learning_rate": 1e38}, "tuning.learning_rate=1e[+]38 must be above 0 and at most 1"),
        ({"lora_target_modules": None}, "lora_target_modules=null is not a text or a list"),
        ({"lora_target_modules": []}, "names no module"),
        ({"lora_target_modules": ".*[q"}, r"is no regular expression \(unterminated character set"),
        ({"warmup_ratio": 1.5}, "tuning.warmup_ratio=1.5"),
        ({"weight_decay": -1}, "tuning.weight_decay=-1 must be 0 or more"),
        ({"lora_dropout": 2}, "tuning.lora_dropout=2 must be 0 or more and below 1"),
        ({"gradient_clip": -1}, "tuning.gradient_clip=-1 must be above 0, or null for none"),
        ({"batch_size": 6, "micro_batch_size": 4}, "tuning.batch_size=6 is not divisible by tuning.micro_batch_size=4"),
    ],
)
def test_bad_settings_name_their_key(setting, named):
    with pytest.raises(UserError, match=named):
        tuner(**setting)


def test_settings_that_do_not_fit_model_or_machine(tmp_path):
    own = r"its linear layers are \[down_proj,gate_proj,k_proj,o_proj,q_proj,up_proj,v_proj\]"
    with pytest.raises(UserError, match=f"the backbone has no module elsewhere, nowhere that LoRA adapts; {own}"):
        tune(tmp_path, mode="lora", lora_target_modules=["nowhere", "q_proj", "elsewhere"])
    absent = {"accelerator": "gpu", "devices": 999}
    with pytest.raises(UserError, match="'devices': 999.* cannot be used on this machine"):
        tuner(**FULL).fit(tiny_backbone(), tiny_records(), tmp_path, trainer_args=absent)


@pytest.mark.parametrize("targets", [["mlp"], ["input_layernorm", "q_proj"], ".*mlp.*", ["0"]])
def test_modules_that_lora_cannot_adapt(targets):
    """Blocks and norms are modules of the model, but no layers that an adapter is put on."""
    with pytest.raises(UserError, match=r"that LoRA adapts; its linear layers are \[down_proj,"):
        check_targets(tiny_model(), targets)
    check_targets(tiny_model(), ["embed_tokens", "lm_head", "q_proj"])
    check_targets(tiny_model(), r".*mlp\..*_proj")


SSM = {"mamba_n_heads": 2, "mamba_d_head": 16, "mamba_d_state": 4, "mamba_n_groups": 1, "num_attention_heads": 2}
WIDTHS = {"vocab_size": 16, "hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 8}


def adapted_names(model, targets: str | list[str] = "all-linear") -> list[str]:
    adapted = with_adapters(model, 2, 4, 0.0, targets, seed=0).get_base_model()
    return [name.partition(".lora_A")[0] for name, _ in adapted.named_parameters() if ".lora_A" in name]


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (MambaConfig(**WIDTHS | {"state_size": 4}), {"in_proj"}),
        (
            GraniteMoeHybridConfig(**WIDTHS | SSM, layer_types=["mamba"], shared_intermediate_size=8),
            {"in_proj", "layer", "input_linear", "output_linear"},
        ),
        (BambaConfig(**WIDTHS | SSM), {"in_proj", "gate_proj", "up_proj", "down_proj"}),
    ],
)
def test_layers_whose_adapter_a_kernel_would_pass_by_have_none(config, names):
    """All have out_proj, and Mamba x_proj and dt_proj, whose weights go into the fused kernel of a GPU."""
    model = AutoModelForCausalLM.from_config(config)
    assert {name.rpartition(".")[2] for name in adapted_names(model)} == names
    for targets in (["out_proj"], r".*\.(in|out)_proj"):
        with pytest.raises(UserError, match=r"no module .*out.*_proj that LoRA adapts; its linear layers are \["):
            check_targets(model, targets)


def test_what_no_text_passes_has_no_adapter():
    """Gemma-3's tower for images has layers named q_proj as its text model does. The head may have one."""
    small = {"hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 16, "num_attention_heads": 2}
    text = WIDTHS | {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
    vision = small | {"image_size": 28, "patch_size": 14}
    model = AutoModelForCausalLM.from_config(Gemma3Config(text_config=text, vision_config=vision))
    assert any("vision_tower" in name and name.endswith("q_proj") for name, _ in model.named_modules())
    own = ["model.language_model.layers.0.self_attn.q_proj", "lm_head"]
    assert adapted_names(model, ["q_proj", "lm_head"]) == own
    assert {name.split(".")[1] for name in adapted_names(model)} == {"language_model"}
    with pytest.raises(UserError, match="the backbone has no module fc1 that LoRA adapts"):
        check_targets(model, ["fc1"])


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (MixtralConfig(router_jitter_noise=0.1), "b has router_jitter_noise=0.1: in training it draws its experts"),
        (PhimoeConfig(), "router_jitter_noise=0.01"),
        (DbrxConfig(ffn_config={"moe_jitter_eps": 0.01}), "moe_jitter_eps=0.01"),
        (JetMoeConfig(), r"the architecture of backbone.name=b \(jetmoe\) has none; set"),
    ],
)
def test_what_no_backbone_can_be_tuned_with(config, told):
    """Experts that are drawn by micro-batch, and gradient checkpointing where there is none."""
    supports = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].supports_gradient_checkpointing
    model = SimpleNamespace(config=config, supports_gradient_checkpointing=supports)
    with pytest.raises(UserError, match=told):
        check_trainable(model, "b", checkpointing=True)
    check_trainable(SimpleNamespace(config=MixtralConfig(), supports_gradient_checkpointing=True), "b", True)


def test_tuning_refuses_it(tmp_path):
    backbone = tiny_backbone()
    backbone.model.config.router_jitter_noise = 0.1
    with pytest.raises(UserError, match="router_jitter_noise=0.1"):
        tune(tmp_path, backbone=backbone)


def experts_backbone():
    """16 experts in a layer, of which a token meets one."""
    backbone = tiny_backbone()
    own = {"num_local_experts": 16, "num_experts_per_tok": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    torch.manual_seed(0)
    backbone.model = MixtralForCausalLM(MixtralConfig(**WIDTHS | own | {"vocab_size": VOCABULARY})).eval()
    return backbone


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_several_processes_wait_for_the_gradient_of_no_expert(mode):
    """The record of 3 tokens meets 3 of 16 experts at most. With two processes the share has a gradient for each weight
    that is trained, 0 for the others'; what the record has met has the gradient that it has with one."""
    gradients = []
    for processes in (1, 2):
        model = experts_backbone().model.requires_grad_(mode == "full")
        if mode == "lora":
            model = with_adapters(model, 2, 4, 0.0, "all-linear", seed=0).get_base_model()
        module = InstructionTuner(model, NoAdversary(), 1e-3, 10)
        module._trainer = SimpleNamespace(world_size=processes)
        module(MicroBatches(EpochRecords(tiny_records(1)).first, [Step(0, [[0]])])[0]).backward()
        gradients.append([weight.grad for _, weight in module.trained()])
    one, two = gradients
    assert any(gradient is None for gradient in one)
    for alone, shared in zip(one, two, strict=True):
        assert torch.equal(torch.zeros_like(shared) if alone is None else alone, shared)


def test_an_expert_without_tokens_changes_nothing(tmp_path):
    """The last batch of an epoch has 6 of 22 records: 6 micro-batches of one and 2 empty ones, which add zeros to all
    gradients, or one of 6. An expert that meets no token has the gradient 0 in both, so that AdamW counts its steps
    alike; otherwise it would differ by a share of the learning rate of 1e-2."""
    for micro in (8, 1):
        tune(tmp_path / str(micro), backbone=experts_backbone(), micro_batch_size=micro, learning_rate=1e-2)
    assert difference(tmp_path / "8", tmp_path / "1") < 2e-4


def test_the_report_of_a_run(tmp_path):
    """22 records, one of them flagged: 21 used; answers of n % 7 words and EOS.

    LoRA of rank 2 on the 7 projections of 2 layers. Widths (in, out): q 16,16; k and v 16,8; o 16,16; gate
    and up 16,24; down 24,16. r * (in + out) each: 2 * (32 + 24 + 24 + 32 + 40 + 40 + 40) = 464, twice = 928.
    """
    records = tiny_records()
    records[3] = type(records[3])(records[3].id, records[3].ids, len(records[3].ids), 0, {}, "empty_answer")
    result = tune(tmp_path, records=records, mode="lora", lora_r=2, max_steps=4)
    assert (result["steps"], result["records"], result["dropped"]) == (4, 21, {"empty_answer": 1})
    assert result["epochs"] == pytest.approx(29 / 21, abs=1e-4)  # steps of 8, 8, 5 and 8 records
    lengths = [len(one.ids) for one in records if one.flag is None]
    assert result["rows"] == 29 and 29 * min(lengths) < result["tokens"] < 29 * max(lengths)
    assert result["answer_tokens"] == sum(n % 7 + 1 for n in range(22) if n != 3)
    assert result["trainable_parameters"] == 928
    assert result["total_parameters"] == tiny_backbone().model.num_parameters()
    assert result["resumed_from"] is None
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(("device", "fused"), [("cuda:0", True), ("cpu", None)])
def test_a_gpu_takes_fused_steps(device, fused):
    """By weights that seem to lie there. Gradients can be clipped all the same, which Lightning refuses by a mark."""
    with FakeTensorMode():
        model = torch.nn.ParameterList([torch.empty(2, 2, device=device)])
        optimizer = InstructionTuner(model, NoAdversary(), 1e-3, 10).configure_optimizers()["optimizer"]
        assert optimizer.defaults["fused"] is fused
        MixedPrecision("bf16-mixed", "cpu").clip_gradients(optimizer, 1.0)


def test_an_only_step_changes_the_weights():
    """ceil(0.03 * 1) = 1 step of warm-up would be the only one, at the rate 0; of two, the second has the peak."""
    for steps, rates in ((1, [1e-3]), (2, [0.0, 1e-3])):
        model = torch.nn.Linear(2, 2)
        module = InstructionTuner(model, NoAdversary(), 1e-3, steps, 0.03).configure_optimizers()
        found = []
        for _ in range(steps):
            found += module["lr_scheduler"]["scheduler"].get_last_lr()[:1]
            module["optimizer"].step()
            module["lr_scheduler"]["scheduler"].step()
        assert found == pytest.approx(rates)


def test_moments_end_with_the_training(tmp_path):
    """Lightning would move them to the CPU's memory otherwise."""
    found = []

    class Watching(Callback):
        def on_train_batch_end(self, trainer, *_):
            found.append(len(trainer.optimizers[0].state))

        def on_fit_end(self, trainer, _):
            found.append(len(trainer.optimizers[0].state))

    tuner(**FULL | {"max_steps": 1, "micro_batch_size": 8}).fit(
        tiny_backbone(), tiny_records(), tmp_path, trainer_args=CPU | {"callbacks": [Watching()]}
    )
    assert found == [20, 0]


def test_loggers_get_one_row_per_optimizer_step(tmp_path):
    recorder = Recorder()
    result = tune(tmp_path, loggers=[recorder])
    assert [step for step, _ in recorder.rows] == list(range(6))
    assert [row["train/loss"] for _, row in recorder.rows] == pytest.approx([e["loss"] for e in result["train_loss"]])
    assert all("train/lr" in row for _, row in recorder.rows)
