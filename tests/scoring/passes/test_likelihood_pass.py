"""Passes: a record's columns are a property of the record, not of the batch, the order, or an interruption."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from composed import build, template
from tiny_passes import TRAINER, Loaded, compute, make_records, record

from winnow.backbone.causal_model import CausalModel
from winnow.backbone.shared import _Work
from winnow.scoring.pass_loop import InHalves
from winnow.scoring.passes.embedding import BackboneEmbedding
from winnow.scoring.passes.likelihood import Likelihood
from winnow.scoring.passes.prompt_embedding import PromptEmbedding
from winnow.scoring.passes.token_count import TokenCount
from winnow.scoring.runner import PassRunner
from winnow.scoring.scores import record_means
from winnow.store.artifacts import Store

CLEAN = Likelihood("clean")


@pytest.fixture
def records():
    """40 records of very different lengths, one of them without an answer, one copy, one too long for the window."""
    made = make_records(40)
    made[9] = replace(made[8], row=9)
    return made


def means(table):
    return record_means(table.ragged("nll"))


def test_equals_the_models_own_loss(backbone, records, tmp_path):
    """The reference is transformers' loss with the prompt masked, one record at a time."""
    alpaca = template("alpaca")
    got = means(compute(backbone, records, tmp_path, CLEAN))
    for i, encoded in enumerate(alpaca.encode(records, backbone.tokenizer)):
        if encoded.flag:
            assert np.isnan(got[i])
            continue
        ids = torch.tensor([encoded.ids])
        labels = ids.clone()
        labels[:, : encoded.answer_start] = -100
        assert got[i] == pytest.approx(backbone.model(input_ids=ids, labels=labels).loss.item(), abs=1e-5)


def test_batch_size_and_order_do_not_matter(backbone, records, tmp_path):
    """Batches of one, of many, and the records shuffled: the same numbers to 1e-5."""
    reference = means(compute(backbone, records, tmp_path / "a", CLEAN, budget=1))
    assert np.allclose(
        reference, means(compute(backbone, records, tmp_path / "b", CLEAN, budget=4096)), atol=1e-5, equal_nan=True
    )
    order = random.Random(1).sample(range(len(records)), len(records))
    shuffled = means(compute(backbone, [records[i] for i in order], tmp_path / "c", CLEAN))
    assert np.allclose(reference[order], shuffled, atol=1e-5, equal_nan=True)


def test_context_free_model_gives_ifd_one(backbone, records, tmp_path):
    """A model whose blocks add nothing sees the last token only; with zero embeddings not even that. Every token
    then has probability 1/259 whatever the prompt, so s(A|Q) = s(A) = ln 259 and their ratio is 1."""
    with torch.no_grad():
        backbone.model.get_input_embeddings().weight.zero_()
    conditioned = means(compute(backbone, records, tmp_path / "a", CLEAN))
    direct = means(compute(backbone, records, tmp_path / "b", Likelihood("direct")))
    valid = ~np.isnan(conditioned)
    assert np.allclose(conditioned[valid], np.log(259), atol=1e-5)
    assert np.allclose(conditioned[valid] / direct[valid], 1.0, atol=1e-6)


def test_flags_and_copies(backbone, records, tmp_path):
    """Row 5 has no answer, row 7 fills the window, row 9 is a copy of row 8."""
    table = compute(backbone, records, tmp_path, CLEAN)
    flags = table.flags()
    assert flags[5] == "empty_answer" and flags[7] == "prompt_fills_window"
    assert sum(flag is not None for flag in flags) == 2
    values = means(table)
    assert values[8] == values[9]


def test_the_weights_stay_where_they_were_run(backbone):
    """Lightning's end of a pass would take them to the CPU. Weights on the meta device cannot be taken anywhere."""
    there = torch.nn.Linear(1, 1, device="meta")
    assert InHalves(Likelihood().module(backbone), None, there).cpu().model.weight.is_meta
    assert _Work(there, print).cpu().model.weight.is_meta


@pytest.mark.parametrize("pass_", [CLEAN, PromptEmbedding()])
def test_a_batch_waits_for_the_device_twice(pass_, backbone, records, tmp_path, monkeypatch):
    """For the losses and for the vectors of its 24 records together, which begin alike: no record has an input."""
    fetched, original = [], torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda own: fetched.append(own.shape) or original(own))
    compute(backbone, [one for one in records if not one.input], tmp_path, pass_, budget=10**6)
    assert len(fetched) == 2


def test_finished_pass_is_not_computed_again(backbone, records, tmp_path):
    """The second run, also with the records in another order, does not even load the backbone."""
    source = Loaded(backbone)
    for given in (records, records[::-1]):
        PassRunner(source, Store(tmp_path), TRAINER).compute(CLEAN, given, template("alpaca"))
    assert source.loads == 1


@pytest.mark.parametrize("change", [{"max_length": 300}, {"bos": True}])
def test_other_settings_are_another_artifact(backbone, records, tmp_path, change):
    """Nothing computed under other settings is ever mixed in."""
    source = Loaded(backbone)
    runner = PassRunner(source, Store(tmp_path), TRAINER)
    runner.compute(CLEAN, records, template("alpaca"))
    runner.compute(CLEAN, records, template("alpaca", **change))
    assert len(set(runner.computed)) == 2


class Killed(Exception):
    pass


def test_interrupted_pass_goes_on_where_it_stopped(backbone, records, tmp_path, monkeypatch, capsys):
    """Stopped after 5 batches, started again: only the rest is computed, and the numbers equal an uninterrupted run."""
    calls = []
    original = Likelihood.step

    def dying(self, run, batch):
        if len(calls) == 5:
            raise Killed
        calls.append(len(batch["columns"]))
        return original(self, run, batch)

    monkeypatch.setattr(Likelihood, "step", dying)
    runner = PassRunner(Loaded(backbone), Store(tmp_path / "a"), TRAINER, tokens_per_batch=256, flush_seconds=0)
    with pytest.raises(Killed):
        runner.compute(CLEAN, records, template("alpaca"))
    done = sum(calls)
    again = []
    monkeypatch.setattr(
        Likelihood, "step", lambda self, run, batch: again.append(len(batch["columns"])) or original(self, run, batch)
    )
    table = runner.compute(CLEAN, records, template("alpaca"))
    assert "records are in the store" in capsys.readouterr().out
    assert done + sum(again) == len({r.id for r in records}) - 2  # one without an answer, one too long
    monkeypatch.setattr(Likelihood, "step", original)
    whole = compute(backbone, records, tmp_path / "b", CLEAN)
    assert np.allclose(means(table), means(whole), atol=1e-5, equal_nan=True)


def test_token_count_needs_no_backbone(backbone, records, tmp_path):
    """One token per byte: the count is the length of the text in UTF-8."""
    source = Loaded(backbone)
    table = PassRunner(source, Store(tmp_path), TRAINER).compute(TokenCount(), records, template("alpaca"))
    assert source.loads == 0
    assert table.numbers("answer_tokens").tolist() == [len(r.output.encode()) for r in records]


def test_prompt_embedding(backbone, records, tmp_path):
    """The vector is the mean final hidden state of the prompt's tokens, the perplexity the prompt's own; both from
    the model run on the bare prompt."""
    table = compute(backbone, records, tmp_path, PromptEmbedding())
    encoded = template("alpaca").encode(records, backbone.tokenizer)[0]
    ids = torch.tensor([encoded.ids[: encoded.answer_start]])
    vector = CausalModel(backbone.model).hidden(input_ids=ids)[0].mean(0).numpy()
    loss = backbone.model(input_ids=ids, labels=ids).loss.item()
    values, offsets = table.ragged("vector")
    assert np.allclose(values[offsets[0] : offsets[1]], vector, atol=1e-5)
    assert table.numbers("prompt_nll")[0] == pytest.approx(loss, abs=1e-5)


def test_instruction_vector_is_the_mean_of_the_instructions_final_states(backbone, records, tmp_path):
    """The mean of the model's final states over the instruction's own tokens, to the 16 bits that are kept, and what
    the embedding pass over the instruction gives; none in the direct view."""
    table = compute(backbone, records, tmp_path / "a", CLEAN)
    prompts = BackboneEmbedding("instruction_in_prompt", layer=-1, pooling="mean")
    vectors = compute(backbone, records, tmp_path / "b", prompts).column("vector").to_pylist()
    got = table.column("instruction_vector").to_pylist()
    first = template("alpaca").encode(records, backbone.tokenizer)[0]
    states = CausalModel(backbone.model).hidden(input_ids=torch.tensor([first.ids[: first.answer_start]]))[0]
    text = backbone.tokenizer.decode(first.ids[slice(*first.spans["instruction"])])
    assert text == records[0].instruction
    assert np.allclose(vectors[0], states[slice(*first.spans["instruction"])].mean(0).numpy(), atol=1e-5)
    for i, flag in enumerate(table.flags()):
        assert (got[i] is None) == (flag is not None)
        if flag is None:
            assert np.allclose(np.array(got[i], np.float64), vectors[i], rtol=1e-3, atol=1e-3)
    direct = compute(backbone, records, tmp_path / "c", Likelihood("direct"))
    direct = direct.column("instruction_vector").to_pylist()
    assert all(vector is None for vector in direct)


def test_an_attacked_pass_is_the_clean_pass_of_the_attacked_records(backbone, tmp_path):
    """CheckList appends a string to the instruction: the losses are those of records whose instruction says so, under
    the old ids. An empty instruction has nothing to attack: flagged, with its answer's length."""
    given = [record(text, "", "yes", row) for row, text in enumerate(["Say yes.", "", "Do you agree?"])]
    attack = build("attack/checklist", seed=1)
    runner = PassRunner(Loaded(backbone), Store(tmp_path), TRAINER)
    table = runner.compute(Likelihood("clean", attack), given, template("alpaca"))
    prompts = runner.prompts({"checklist": attack}, given, template("alpaca"))["checklist"].prompts()
    assert prompts[0].startswith("Say yes. ") and len(prompts[0]) == len("Say yes. ") + 10
    assert table.flags() == [None, "empty_instruction", None]
    assert table.numbers("answer_tokens").tolist() == [3, 3, 3]
    rewritten = [replace(one, instruction=prompt) for one, prompt in zip(given, prompts, strict=True) if prompt]
    expected = means(compute(backbone, rewritten, tmp_path / "plain", CLEAN))
    assert np.allclose(means(table)[[0, 2]], expected, atol=1e-6)
