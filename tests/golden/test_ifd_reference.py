"""IFD's losses on the packaged backbone against numbers made with the methods' own published code (fp32, CPU)."""

from __future__ import annotations

import copy
import json

import pytest
from composed import config, template
from hydra.utils import instantiate
from shared_data import shared
from tokenizers import pre_tokenizers

from winnow.data.records import Record, record_id
from winnow.scoring.passes.likelihood import Likelihood
from winnow.scoring.runner import PassRunner
from winnow.store.artifacts import Store

pytestmark = pytest.mark.slow
TRAINER = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False}


@pytest.fixture(scope="module")
def reference():
    return json.loads(shared("reference/ifd_smollm2_alpaca.json").read_text())


@pytest.fixture(scope="module")
def records(reference):
    pool = json.loads(shared("data/pools/alpaca_data.json").read_text())
    rows = [(entry["alpaca_index"], pool[entry["alpaca_index"]]) for entry in reference]
    return [
        Record(
            record_id(r["instruction"], r["input"], r["output"]),
            i,
            r["instruction"],
            r["input"],
            r["output"],
            (),
            "alpaca",
            r,
        )
        for i, r in rows
    ]


@pytest.fixture(scope="module")
def packaged():
    return instantiate(config().backbone).load()


class _Source:
    def __init__(self, backbone, tokenizer):
        self.backbone = copy.copy(backbone)
        self.backbone.tokenizer = self.tokenizer = tokenizer
        self.identity = backbone.identity | {"tokenizer": tokenizer.backend_tokenizer.to_str()}

    def load(self):
        return self.backbone


@pytest.mark.parametrize(
    ("key", "name", "options"),
    [
        ("cherry_bos", "alpaca", {"bos": True, "boundary": "joint", "max_length": 512}),
        ("cherry_nobos", "alpaca", {"bos": False, "boundary": "joint", "max_length": 512}),
        ("superfilter_nobos", "plain", {"bos": False, "boundary": "separate", "max_length": 1024}),
    ],
)
def test_losses_agree(key, name, options, reference, records, packaged, tmp_path):
    """Every loss of all 60 records within 1e-4 nats.

    Each loss is averaged over the number of answer tokens that the published code averaged (it gives its two terms
    windows that differ by a few tokens). A null of the published code (a one-token answer without context) is
    an empty list here. The `cherry_bos` numbers were made with a tokenizer that does not split digits off before the
    byte-level step, which moves blanks before numbered list items to other tokens in three of the records; that
    tokenizer is rebuilt here.
    """
    tokenizer = copy.deepcopy(packaged.tokenizer)
    if key == "cherry_bos":
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    runner = PassRunner(_Source(packaged, tokenizer), Store(tmp_path), TRAINER)
    for view, loss, count in (("clean", "loss_conditioned", "n_conditioned"), ("direct", "loss_direct", "n_direct")):
        table = runner.compute(Likelihood(view), records, template(name, **options))
        values, offsets = table.ragged("nll")
        for i, entry in enumerate(reference):
            own = values[offsets[i] : offsets[i + 1]]
            wanted = entry[key][loss]
            if wanted is None:
                assert len(own) == 0
                continue
            tokens = entry[key].get(count, len(own))
            assert len(own) >= tokens
            assert own[:tokens].mean() == pytest.approx(wanted, abs=1e-4), entry["alpaca_index"]
