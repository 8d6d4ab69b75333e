"""ADG's geometry against numbers made with the method's own published functions."""

from __future__ import annotations

import json

import numpy as np
import pytest
from shared_data import shared

from winnow.scoring.methods.adg import gram_geometry


def geometry(vectors):
    return gram_geometry(vectors @ vectors.transpose(0, 2, 1))


@pytest.fixture(scope="module")
def reference():
    return json.loads(shared("reference/adg_golden.json").read_text())


def test_geometry_agrees(reference):
    """D, I and 0.6 D + 0.4 I of every set of answer vectors, within 1e-6."""
    assert reference
    for entry in reference:
        found = geometry(np.array([entry["vectors"]]))
        dispersion, anisotropy = (float(values[0]) for values in found)
        assert dispersion == pytest.approx(entry["dispersion"], abs=1e-6)
        assert anisotropy == pytest.approx(entry["anisotropy"], abs=1e-6)
        assert 0.6 * dispersion + 0.4 * anisotropy == pytest.approx(entry["score"], abs=1e-6)


def test_batched_equals_one_by_one(reference):
    """Sets of equal shape in one call give what each gives alone."""
    shapes = {}
    for entry in reference:
        vectors = np.array(entry["vectors"])
        shapes.setdefault(vectors.shape, []).append((vectors, entry["dispersion"], entry["anisotropy"]))
    for group in shapes.values():
        dispersion, anisotropy = geometry(np.stack([vectors for vectors, _, _ in group]))
        assert np.allclose(dispersion, [d for _, d, _ in group], atol=1e-6)
        assert np.allclose(anisotropy, [i for _, _, i in group], atol=1e-6)
