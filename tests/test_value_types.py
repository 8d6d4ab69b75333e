"""Values of the wrong type are told before anything is computed, with their key."""

from __future__ import annotations

import pytest
from composed import config

from winnow.errors import UserError
from winnow.value_types import check_types


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["seed=abc"], "seed=abc is not a whole number; give a whole number."),
        (["seed=-1"], "seed=-1 is out of range; give a whole number from 0 to 4294967295."),
        (["seed=null"], "seed=null is not a whole number; give a whole number."),
        (["selection.count=ten"], "selection.count=ten is not a whole number; give a whole number, or null."),
        (["selection.ratio=much"], "selection.ratio=much is not a number; give a number, or null."),
        (["selection=consistency", "selection.count=1.5"], "selection.count=1.5 is not a whole number; give a whole"),
        (["selection=consistency", "selection.top_up=1"], "selection.top_up=1 is not true or false; give true or false."),
        (["tuning.max_steps=ten"], "tuning.max_steps=ten is not a whole number; give a whole number, or null."),
        (["tuning.epochs=two"], "tuning.epochs=two is not a whole number; give a whole number."),
        (["tuning.epochs=true"], "tuning.epochs=True is not a whole number; give a whole number."),
        (["tuning.epochs=inf"], "tuning.epochs=inf is not a whole number"),
        (["evaluation.limit=ten"], "evaluation.limit=ten is not a whole number; give a whole number, or null."),
        (["pre_experience=ifd", "pre_experience.tuner.epochs=[1]"], "pre_experience.tuner.epochs=[1] is not a"),
        (["scoring.flush_seconds=soon"], "scoring.flush_seconds=soon is not a number; give a number."),
        (["method=aifd", "attack.max_words=few"], "attack.max_words=few is not a whole number"),
        (["tracking.csv=maybe"], "tracking.csv=maybe is not true or false"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_a_wrong_type_is_one_sentence_with_its_key(overrides, told):
    with pytest.raises(UserError) as caught:
        check_types(config(*overrides))
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["selection.count=10", "selection.ratio=null", "tuning.max_steps=3", "tuning.learning_rate=1", "seed=7"],
        ["method=aifd", "selection=consistency", "pre_experience=ifd", "noising=padding", "adversary=nrm"],
        ["method=consistency", "method.betas=[1,10]", "method.beta=10", "evaluation=nlu_robust"],
        ["template.bos=auto", "data=file", "data.path=a.jsonl", "backbone=hub", "start=model"],
    ],
)
def test_what_is_documented_passes(overrides):
    """Numbers where numbers stand, null where it may; what is missing is told elsewhere."""
    check_types(config(*overrides))
