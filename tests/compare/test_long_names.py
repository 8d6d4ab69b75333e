"""Plots of runs whose names are long: what tells them apart stays, and the plot keeps its room."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from winnow.compare.plots import WIDEST, matrix, short_names


def test_short_names_stay_as_they_are():
    assert short_names(["a", "b/c"]) == ["a", "b/c"]
    assert short_names([]) == []


def test_what_all_have_in_common_is_left_out():
    """Two jobs named after their overrides differ in `method` and `seed`."""
    names = [f"backbone=hub,data.path=/a/{'b' * 60}.jsonl,method={m},seed={s}" for m, s in (("ifd", 1), ("length", 2))]
    assert short_names(names) == ["method=ifd, seed=1", "method=length, seed=2"]


def test_of_what_is_still_too_long_both_ends_stay():
    """A single name has nothing in common with others: 15 characters, the mark, and the last 16."""
    (name,) = short_names(["a" * 125 + "b" * 125])
    assert name == "a" * 15 + "…" + "b" * 16 and len(name) == WIDEST


@pytest.mark.parametrize("kind", ["apart at the end", "apart in the middle", "one word"])
def test_a_plot_of_names_of_250_characters_is_drawn(kind):
    """Matplotlib warns where the names leave the axes no room."""
    words = {
        "apart at the end": lambda i: "x=1," * 60 + f"seed={i}",
        "apart in the middle": lambda i: "x=1/" * 30 + f"seed={i}/" + "y=2/" * 30,
        "one word": lambda i: f"{i}" * 250,
    }[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot = matrix("Overlap", [words(i) for i in range(3)], np.eye(3))
    assert plot.count("<svg") == 1
