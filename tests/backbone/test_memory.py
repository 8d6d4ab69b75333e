"""Memory is estimated before it is met, and a batch that meets its end is run in halves."""

from __future__ import annotations

import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from composed import build, config, template
from tiny import tiny_model
from tiny_passes import TRAINER, Loaded, make_records
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from winnow.backbone import memory
from winnow.backbone.causal_model import CausalModel
from winnow.backbone.memory import GB, Halves, Room, check_scoring, shapes, tuning_bytes
from winnow.errors import UserError, out_of_memory
from winnow.scoring.passes.likelihood import Likelihood
from winnow.scoring.runner import PassRunner
from winnow.stages.parts import build_parts
from winnow.store.artifacts import Store
from winnow.tuning import memory as tuning_memory
from winnow.tuning.memory import check_tuning

NO_CPU_MEMORY = "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to allocate"


@pytest.fixture(scope="module")
def llama_8b():
    """Llama-3-8B's shape on the meta device: 8.03 billion weights."""
    with torch.device("meta"):
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=128256,
                hidden_size=4096,
                intermediate_size=14336,
                num_hidden_layers=32,
                num_attention_heads=32,
                num_key_value_heads=8,
                tie_word_embeddings=False,
            )
        )


def test_the_shapes_of_llama_3_8b(llama_8b):
    """By hand: embeddings and head 2 * 128256 * 4096; a layer 4096 * (2 * 4096 + 2 * 1024 + 3 * 14336) + 2 norms; one
    last norm. Inputs + outputs of a layer: q and o 2 * 8192, k and v 2 * 5120, gate, up and down 3 * 18432. Keys and
    values: 2 * 1024 numbers in each of 32 layers."""
    size = shapes(llama_8b)
    layer = 4096 * (2 * 4096 + 2 * 1024 + 3 * 14336) + 2 * 4096
    assert size.weights == 2 * 128256 * 4096 + 32 * layer + 4096 == 8_030_261_248
    assert size.per_token == 32 * (2 * 8192 + 2 * 5120 + 3 * 18432)
    assert (size.layers, size.width, size.cache) == (32, 4096, 65536)
    assert tuning_bytes(size, "bf16", "fp32", tokens=0) == 16 * size.weights
    assert tuning_bytes(size, "bf16", "bf16", trained=0, tokens=0) == 2 * size.weights
    assert sum(tuning_memory._adapted(size, ["q_proj", "k_proj"])) == 32 * (8192 + 5120)


@pytest.mark.parametrize(
    "model",
    [
        LlamaForCausalLM(LlamaConfig(vocab_size=64, hidden_size=64, intermediate_size=160, num_hidden_layers=3)),
        GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=48, n_layer=3, n_head=4, attn_pdrop=0, resid_pdrop=0)),
    ],
    ids=["llama", "gpt2"],
)
def test_activations_are_what_the_backward_pass_keeps(model):
    """The tensors that autograd saves in the body for 2 x 32 tokens, each storage once, weights left out: E is below
    their sum, by a fifth at most in a Llama; GPT-2's activation is made of several steps that keep a tensor each."""
    kept: dict[int, torch.UntypedStorage] = {}
    own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}

    def save(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        model.base_model(torch.zeros(2, 32, dtype=torch.long), use_cache=False)
    counted = sum(storage.nbytes() for place, storage in kept.items() if place not in own)
    reckoned = 64 * 4 * shapes(model).per_token
    assert (0.8 if isinstance(model, LlamaForCausalLM) else 0.5) < reckoned / counted <= 1


def test_full_tuning_of_8b_on_80_gb_names_what_fits(llama_8b, monkeypatch):
    """18 bytes a weight in bf16 are 145 GB. Adapters of rank 16 on all linear layers: 16 * 32 * 81920 = 42 million
    weights, 0.7 GB beside 16.1 GB of frozen ones. Sharded, 16 bytes a weight are 128.5 GB, 32.1 GB on each of four,
    below half of a card; 512 tokens of 32 * 4096 + 81,920 numbers (checkpointing) of 2 bytes are 0.2 GB. With a copy
    in each of two processes, 4 bytes more for the exchange: 177 GB."""
    monkeypatch.setattr(tuning_memory, "room", lambda trainer: Room(80 * GB, 80 * GB, "cuda"))
    with pytest.raises(UserError) as caught:
        check_tuning("llama", shapes(llama_8b), build("tuning/ifd"), "bf16", {}, tokens=512)
    assert str(caught.value) == (
        "tuning.mode=full of backbone.name=llama needs at least 145 GB, 145 GB of it for 8.03 billion weights and what "
        "trains them, but the GPU has 80 GB: give tuning=lora (16.9 GB), or trainer=fsdp on 4 GPUs "
        "(32.3 GB)."
    )
    check_tuning("llama", shapes(llama_8b), build("tuning/lora"), "bf16", {}, tokens=512)
    with pytest.raises(UserError, match=r"needs at least 177 GB"):
        check_tuning("llama", shapes(llama_8b), build("tuning/ifd"), "bf16", {"strategy": "ddp", "devices": 2})
    four = {"strategy": "fsdp", "devices": 4}
    check_tuning("llama", shapes(llama_8b), build("tuning/ifd"), "bf16", four, tokens=512)
    with pytest.raises(UserError, match=r"needs at least 128 GB, .* or trainer=fsdp on 4 GPUs"):
        check_tuning("llama", shapes(llama_8b), build("tuning/ifd"), "bf16", four | {"devices": 1})


def test_a_large_micro_batch_names_checkpointing(llama_8b, monkeypatch):
    """LoRA with 16 texts of 2048 tokens: E = 2,621,440 numbers of 2 bytes a token are 172 GB. With checkpointing 32
    layers keep 4096 numbers each and one its 81,920: 14 GB. One text of them takes 10.7 GB."""
    monkeypatch.setattr(tuning_memory, "room", lambda trainer: Room(80 * GB, 80 * GB, "cuda"))
    lora = build("tuning/lora", batch_size=16, micro_batch_size=16)
    ways = r"tuning.gradient_checkpointing=true \(30.7 GB\), or tuning.micro_batch_size=1 \(27.5"
    with pytest.raises(UserError, match=f"needs at least 189 GB, .*: give {ways}"):
        check_tuning("llama", shapes(llama_8b), lora, "bf16", {}, tokens=16 * 2048)


def test_scoring_that_cannot_fit_names_the_dtype_or_the_cache(llama_8b):
    """fp32 weights are 32.1 GB and bf16 ones 16.1 GB; 200,000 cached tokens of 65,536 numbers are 26.2 GB more."""
    gpu = Room(24 * GB, 24 * GB, "cuda")
    with pytest.raises(
        UserError, match=r"needs at least 32\.\d GB .* has 24 GB: give backbone.dtype=bf16, or give trainer=fsdp on 2"
    ):
        check_scoring("llama", shapes(llama_8b), "fp32", gpu, 512)
    check_scoring("llama", shapes(llama_8b), "bf16", gpu, 512)
    with pytest.raises(
        UserError, match=r"has 24 GB: lower method.tokens_per_batch to 59\d\d\d, or take a smaller backbone"
    ):
        check_scoring("llama", shapes(llama_8b), "bf16", gpu, 512, cached=200_000)
    with pytest.raises(UserError, match="one process here has 4 GB: take a smaller backbone, or a machine with more"):
        check_scoring("llama", shapes(llama_8b), "bf16", Room(4 * GB, 4 * GB, "cpu"), 512, cached=200_000)


def test_processes_that_share_a_model_need_less_each(llama_8b):
    """Of 16.1 GB in bf16 13.96 are in the linear layers of 32 blocks; the rest, embeddings and head, is 2.1 GB. Shared
    by 4: 2.1 + 13.96 / 4 + 13.96 / 32 for the block at work = 6.03 GB, and 512 * 81,920 * 2 = 0.08 GB for 512 tokens.
    On GPUs of 4 GB 16 are needed: 2.1 + 0.87 + 0.44 + 0.08 = 3.49; 8 would need 4.36."""
    size = shapes(llama_8b)
    assert memory.scoring_bytes(size, "bf16", 512, processes=4) == pytest.approx(6.11e9, rel=2e-3)
    check_scoring("llama", size, "bf16", Room(7 * GB, 7 * GB, "cuda"), 512, processes=4)
    with pytest.raises(UserError, match=r"has 4 GB: give trainer=fsdp on 16 GPUs, or take a smaller"):
        check_scoring("llama", size, "bf16", Room(4 * GB, 4 * GB, "cuda"), 512, processes=4)


def test_quantised_weights_of_8b(llama_8b, monkeypatch):
    """Linear layers hold 32 * 4096 * (2 * 4096 + 2 * 1024 + 3 * 14336) = 6.98 billion weights, half a byte each in nf4,
    one in int8; the other 1.05 billion have two: 5.59 and 9.08 GB. Adapters of rank 16 as above: 0.67 GB."""
    size = shapes(llama_8b)
    assert size.matrices == 32 * 4096 * (2 * 4096 + 2 * 1024 + 3 * 14336) == 6_979_321_856
    rest = 2 * (size.weights - size.matrices)
    assert tuning_bytes(size, "nf4", "bf16", trained=0, tokens=0) == size.matrices // 2 + rest == 5_591_539_712
    assert tuning_bytes(size, "int8", "bf16", trained=0, tokens=0) == size.matrices + rest == 9_081_200_640
    for space, cure in ((12, "int8"), (8, "nf4")):
        with pytest.raises(UserError, match=f"has {space} GB: give backbone.dtype={cure}, or take a smaller backbone"):
            check_scoring("llama", size, "bf16", Room(space * GB, space * GB, "cpu"), 512)
    monkeypatch.setattr(tuning_memory, "room", lambda trainer: Room(12 * GB, 12 * GB, "cuda"))
    with pytest.raises(UserError, match=r"has 12 GB: give backbone.dtype=nf4 \(6.27 GB\), or trainer=fsdp on"):
        check_tuning("llama", size, build("tuning/lora"), "bf16", {})
    with pytest.raises(
        UserError, match=r"has 12 GB: give tuning=lora backbone.dtype=nf4 \(6.26 GB\), or trainer=fsdp on"
    ):
        check_tuning("llama", size, build("tuning/ifd"), "bf16", {})


def test_a_run_that_cannot_fit_is_refused_before_its_model_is_loaded(tiny_folder, tmp_path, monkeypatch):
    """The tiny model has 35,168 weights: 0.14 MB in fp32, and 0.56 MB in full tuning. A text of 64 tokens takes
    64 * 512 numbers in one of its two layers, 0.13 MB. So half a megabyte is enough for scoring and not for tuning."""
    over = [f"backbone.name={tiny_folder}", "backbone.dtype=fp32", f"paths.store={tmp_path}", f"paths.run={tmp_path}"]
    cfg = config("tuning=full", "tracking=none", "template.max_length=64", *over)
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: SimpleNamespace(total=1_000_000, available=1))
    build_parts(cfg)
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: SimpleNamespace(total=500_000, available=1))
    with pytest.raises(UserError, match=r"tuning.mode=full of backbone.name=.* needs at least 0.000567 GB"):
        build_parts(cfg)


def test_processes_of_one_machine_share_its_memory_and_a_job_has_its_limit(monkeypatch, tmp_path):
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: SimpleNamespace(total=8 * GB, available=6 * GB))
    monkeypatch.setattr(memory, "_limits", list)
    assert memory.room({"accelerator": "cpu", "devices": 1}) == Room(8 * GB, 6 * GB, "cpu")
    assert memory.room({"accelerator": "cpu", "devices": 2}) == Room(4 * GB, 3 * GB, "cpu")
    monkeypatch.setattr(memory, "_limits", lambda: [2 * GB])
    assert memory.room({"accelerator": "cpu", "devices": 1}) == Room(2 * GB, 2 * GB, "cpu")


def test_the_limits_of_control_groups(monkeypatch, tmp_path):
    """Version 2: none of its own, and 3,000 bytes of the group around it. Version 1: that of memory, not of `cpu`."""
    monkeypatch.setattr(memory, "Path", lambda place: tmp_path / place.lstrip("/"))

    def put(place: str, text: str) -> None:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(f"{text}\n")

    assert list(memory._limits()) == []
    put("sys/fs/cgroup/job/memory.max", "3000")
    put("sys/fs/cgroup/job/step/memory.max", "max")
    put("proc/self/cgroup", "0::/job/step")
    assert list(memory._limits()) == [3000]
    put("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "2000")
    put("sys/fs/cgroup/memory/other/memory.limit_in_bytes", "1000")
    put("proc/self/cgroup", "5:cpu,cpuacct:/other\n4:memory:/job")
    assert list(memory._limits()) == [2000]


def test_each_process_asks_its_own_gpu(monkeypatch):
    """Two GPUs with 10 and 20 GB, of which 8 and 16 are free; the second process of a machine has LOCAL_RANK=1."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number: (8 * (number + 1) * GB, 10 * (number + 1) * GB))
    assert memory.room({"accelerator": "auto"}) == Room(10 * GB, 8 * GB, "cuda")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert memory.room({"accelerator": "gpu", "devices": 2}) == Room(20 * GB, 16 * GB, "cuda")
    assert memory.room({"accelerator": "cpu"}).device == "cpu"


def test_a_model_is_moved_to_the_gpu_of_its_process(monkeypatch):
    """What runs without Lightning: a greedy attack's losses, and `winnow answer`."""
    asked = []
    monkeypatch.setattr(torch.nn.Module, "to", lambda model, device: asked.append(str(device)))
    memory.on_device(torch.nn.Linear(1, 1), TRAINER)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "1")
    memory.on_device(torch.nn.Linear(1, 1), {"accelerator": "gpu", "devices": 2})
    assert asked == ["cpu", "cuda:1"]


def test_auto_is_512_on_a_cpu_and_what_fits_on_a_gpu(monkeypatch):
    """The tiny model: a layer's linear layers have 512 inputs and outputs, and two texts 2 * 64 keys and values, 2560
    bytes a token in fp32. Half of a gigabyte less the weights (0.14 MB) holds 195,285 such tokens, so 65,536, the most;
    half of 11 MB 2,120, so 2,048. A backward pass keeps the 4,096 bytes of both layers: 1,325, so half as many. Where
    less is free than the weights take: 512."""
    model = tiny_model()
    assert shapes(model).per_token == 2 * (2 * 64 + 2 * 48 + 3 * 96) == 2 * 512
    assert memory.fitting_tokens(model, TRAINER) == 512
    for free, tokens in ((GB, 65536), (11 * 10**6, 2048), (1, 512)):
        monkeypatch.setattr(memory, "room", lambda trainer, free=free: Room(GB, free, "cuda"))
        assert memory.fitting_tokens(model, {}) == tokens
        if tokens == 2048:
            assert memory.fitting_tokens(model, {}, backward=True) == tokens // 2


def test_keys_and_values_are_counted_in_auto(llama_8b, monkeypatch):
    """In fp32, 32.12 GB of 48 GB are the weights, and half of the rest is 7.94 GB. A layer computes 81,920 numbers a
    token and the cache holds 65,536, twice with a prefix as long as the text: 0.852 MB for 9,319 tokens, so 8,192.
    16,384 tokens, which fit without the cache, would keep 14.0 GB."""
    monkeypatch.setattr(memory, "room", lambda trainer: Room(80 * GB, 48 * GB, "cuda"))
    size, tokens = shapes(llama_8b), memory.fitting_tokens(llama_8b, {})
    assert tokens == 8192
    assert tokens * (size.per_token // size.layers + 2 * size.cache) * 4 <= (48 * GB - 4 * size.weights) / 2


def test_what_torch_keeps_of_freed_tensors_is_free(monkeypatch):
    """5 GB are free and torch keeps 3 more, which `empty_cache` gives back: 8."""
    free = [5 * GB]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: free.append(8 * GB))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number: (free[-1], 10 * GB))
    assert memory.room({"accelerator": "gpu"}).free == 8 * GB


@pytest.mark.parametrize("text", [NO_CPU_MEMORY, "CUDA error: out of memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED"])
def test_words_that_say_that_memory_ended(text):
    """Of torch on a CPU, of CUDA and of cuBLAS. A trial that meets them says nothing about the architecture."""

    def trial():
        raise torch.AcceleratorError(text)

    with pytest.raises(torch.AcceleratorError):
        CausalModel(tiny_model())._try(trial)
    assert not out_of_memory(torch.AcceleratorError("CUDA error: an illegal memory access was encountered"))


def test_halves_lose_nothing_and_try_no_size_twice():
    """Memory for 3 items. Of 8, 8 and 4 fail, then parts of 2 run; a second batch of 5 fails no more: it is above 4,
    so it is cut at once."""
    tried, told = [], []

    def work(part):
        tried.append(len(part))
        if len(part) > 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return list(part)

    halves = Halves(lambda items, size: told.append((items, size)))
    assert [one for part in halves(range(8), len, work) for one in part] == list(range(8))
    assert tried == [8, 4, 2, 2, 2, 2] and told == [(8, 8), (4, 4)]
    assert [one for part in halves(range(5), len, work) for one in part] == list(range(5))
    assert tried[6:] == [2, 3]
    with pytest.raises(ValueError, match="another"):
        halves([1, 2], len, lambda part: (_ for _ in ()).throw(ValueError("another")))


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError("CUDA out of memory"), RuntimeError(NO_CPU_MEMORY)])
def test_a_pass_goes_on_in_halves(error, backbone, tmp_path, capsys):
    """A model that has no memory for batches above 2 rows: the same columns for every record, and one notice a size."""
    records, alpaca = make_records(), template("alpaca")
    whole = PassRunner(Loaded(backbone), Store(tmp_path / "a"), TRAINER, 4096).compute(
        Likelihood("clean"), records, alpaca
    )
    body, rows = backbone.model.model.forward, []

    def forward(*given, **options):
        batch = options["input_ids"].shape[0]
        if batch > 2:
            raise error
        rows.append(batch)
        return body(*given, **options)

    runner = PassRunner(Loaded(backbone), Store(tmp_path / "b"), TRAINER, 4096)
    assert runner.backbone.model is backbone.model
    backbone.model.model.forward = forward
    halved = runner.compute(Likelihood("clean"), records, alpaca)
    assert max(rows) == 2
    assert halved.flags() == whole.flags()
    assert np.allclose(halved.ragged("nll")[0], whole.ragged("nll")[0], atol=1e-5)
    assert "is more than memory holds. Its halves are run one after the other" in capsys.readouterr().out


def test_a_single_text_that_does_not_fit_ends_the_pass_and_keeps_the_others(backbone, tmp_path):
    """Longest first, a record a batch: the store keeps what ran before the failure, whatever `flush_seconds`."""
    records, alpaca, body, seen = make_records(), template("alpaca"), backbone.model.model.forward, []
    CausalModel(backbone.model)  # whose trials run the model too

    def forward(*given, **options):
        seen.append(1)
        if len(seen) > 5:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return body(*given, **options)

    runner = PassRunner(Loaded(backbone), Store(tmp_path), TRAINER, 1, flush_seconds=1000)
    assert runner.backbone.model is backbone.model
    backbone.model.model.forward = forward
    with pytest.raises(torch.cuda.OutOfMemoryError):
        runner.compute(Likelihood("clean"), records, alpaca)
    columns = runner.columns(Likelihood("clean"), alpaca)
    flagged = sum(one.flag is not None for one in alpaca.encode(records, backbone.tokenizer))
    assert len(records) - len(columns.missing([one.id for one in records])) > flagged


def test_a_backbone_that_was_released_is_loaded_again(backbone, tmp_path):
    source = Loaded(backbone)
    runner = PassRunner(source, Store(tmp_path), TRAINER)
    assert runner.backbone is runner.release() and source.loads == 1
    assert runner.backbone.model is backbone.model and source.loads == 2
    earlier = torch.nn.Identity()
    earlier.own = [earlier]  # as Lightning holds the model of an earlier pass
    lost = weakref.ref(earlier)
    del earlier
    assert runner.backbone.model is backbone.model and source.loads == 2 and lost() is None
    runner.forget()  # nothing that the processes share
    assert runner.loaded is backbone and source.loads == 2
    runner.forget(whole=True)
    assert runner.loaded is backbone and source.loads == 3


def test_a_batch_size_that_is_none_is_one_sentence(backbone, tmp_path):
    for wrong in ("much", 0):
        with pytest.raises(UserError, match=f"scoring.tokens_per_batch={wrong} must be a whole number of at least 1"):
            PassRunner(Loaded(backbone), Store(tmp_path), TRAINER, wrong)
