"""diversity.json and the report's section on it: the numbers by hand, and plots that hold with degenerate data."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from winnow.pages import diversity as plots
from winnow.pages.report import report_content, write_report
from winnow.selection import diversity_report
from winnow.selection.diversity_report import diversity
from winnow.selection.rule import Selection

CLASSES = [
    {"class": 0, "pool": 6, "valid": 4, "selected": 2, "quota": 2},
    {"class": 1, "pool": 2, "valid": 2, "selected": 0, "quota": None},
    {"class": 2, "pool": 1, "valid": 0, "selected": 0, "quota": 0},
]
SPREAD = {
    "edges": [0.0, 0.5, 1.0],
    "subset": [0.75, 0.25],
    "random": [0.5, 0.5],
    "subset_median": 0.4,
    "random_median": 0.5,
}


def points_map(n: int) -> dict:
    return {
        "x": [i / n for i in range(n)],
        "y": [-i / n for i in range(n)],
        "selected": [i == 0 for i in range(n)],
        "explained": [0.5, 0.25],
        "n_pool": n,
    }


DRAWN = {
    "classes": (lambda: plots.class_shares(CLASSES), "nothing selected (1)"),
    "classes, overall": (lambda: plots.class_shares(CLASSES), "of the pool: 33.3%"),
    "classes, none eligible": (lambda: plots.class_shares(CLASSES[2:]), "No record of any class"),
    "classes, one": (lambda: plots.class_shares(CLASSES[:1]), "of the pool: 50%"),
    "classes, nothing selected": (lambda: plots.class_shares(CLASSES[1:2]), "of the pool: 0%"),
    "neighbours": (lambda: plots.neighbour_histogram(SPREAD), "subset (median 0.400)"),
    "neighbours, none": (lambda: plots.neighbour_histogram(None), "fewer than two"),
    "map": (lambda: plots.pool_map(points_map(9)), "selected (1)"),
    "map, many": (lambda: plots.pool_map(points_map(3500)), "not selected (3,499)"),
    "map, all on one point": (
        lambda: plots.pool_map(points_map(3) | {"x": [0.0] * 3, "y": [0.0] * 3}),
        "not selected (2)",
    ),
    "map, none": (lambda: plots.pool_map(None), "too few vectors"),
}


@pytest.mark.parametrize("case", DRAWN)
def test_plots(case: str) -> None:
    """Well-formed SVG, labelled, with the legend or the reason as text and no id that could clash."""
    draw, expected = DRAWN[case]
    svg = draw()
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg") and root.get("role") == "img" and root.get("aria-label")
    assert expected in " ".join(root.itertext())
    assert not re.search(r'id="(figure|axes|patch|text)_', svg) and not re.search(r"\bnan\b", svg)


def selection(classes_of: list[int | None], chosen: list[int]) -> Selection:
    """All records with a class are eligible."""
    decisions = [
        {"id": f"r{i}", "class": label, "rank": None if label is None else i + 1} for i, label in enumerate(classes_of)
    ]
    known = sorted({label for label in classes_of if label is not None})
    counts = [
        {
            "class": c,
            "pool": classes_of.count(c),
            "valid": classes_of.count(c),
            "selected": sum(classes_of[i] == c for i in chosen),
            "quota": None,
        }
        for c in known
    ]
    return Selection(chosen, decisions, None, len(chosen), len(decisions), {}, counts)


def test_content_by_hand() -> None:
    """Angles 0, 60, 90, 180, and a record without a vector; 0, 60 and 180 are selected. Their nearest others lie at 60,
    60 and 120 degrees: cosines 0.5, 0.5, -0.5, so the histogram's lower third holds one of three, median 0.5. Classes
    0 and 2 of three are covered. Eligible are four, so a random subset of three always covers two classes or three."""
    angles = np.deg2rad([0, 60, 90, 180, np.nan])
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    content = diversity(points, selection([0, 0, 1, 2, None], [0, 1, 3]), [f"r{i}" for i in range(5)])
    found = content["neighbours"]
    counts, edges = np.array(found["subset"]), np.array(found["edges"])
    assert counts[edges[:-1] < 0].sum() == pytest.approx(1 / 3, abs=1e-5) and counts.sum() == pytest.approx(1, abs=1e-5)
    assert found["subset_median"] == pytest.approx(0.5, abs=1e-6) and sum(found["random"]) == pytest.approx(1, abs=1e-5)
    assert (content["classes"]["pool"], content["classes"]["selected"]) == (3, 2)
    assert 2 <= content["classes"]["random"] <= 3
    shown = content["map"]
    assert shown["selected"] == [True, True, False, True] and sum(shown["explained"]) == pytest.approx(1, abs=1e-3)
    json.dumps(content, allow_nan=False)


def test_five_random_subsets_of_eligible_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """Angles 0, 60, 90 and 180, the last alone in class 1; 0 and 60 are selected, cosine 0.5. The first draw is 0 and
    180: two classes, cosine -1. The other four are 0 and 90: one class, cosine 0. A record that is not eligible, at
    270, would come first in all of them."""
    first = {"r4": 0, "r0": 1}
    monkeypatch.setattr(
        diversity_report,
        "draw",
        lambda seed, name: first.get(name.removeprefix("compare:"), 2 if name.endswith("r2" if seed else "r3") else 3),
    )
    angles = np.deg2rad([0, 60, 90, 180, 270])
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    decided = selection([0, 0, 0, 1, 2], [0, 1])
    decided.decisions[4]["rank"] = None
    content = diversity(points, decided, [f"r{i}" for i in range(5)])
    found = content["neighbours"]
    assert content["classes"]["random"] == pytest.approx((2 + 4 * 1) / 5)
    assert (found["subset_median"], found["random_median"]) == pytest.approx((0.5, 0), abs=1e-6)
    assert found["random"][0] == pytest.approx(1 / 5, abs=1e-5)


def test_map_keeps_distances_of_a_plane() -> None:
    """Vectors in a plane of a wider space: the map shows their true distances (chords of the circle)."""
    angles = np.linspace(0, 2, 20)
    points = np.zeros((20, 7), np.float32)
    points[:, 2], points[:, 5] = np.cos(angles), np.sin(angles)
    shown = diversity(points, selection([0] * 20, [1, 2]), [f"r{i}" for i in range(20)])["map"]
    gaps = np.hypot(np.diff(shown["x"]), np.diff(shown["y"]))
    assert gaps == pytest.approx(2 * np.sin(angles[1] / 2), abs=3e-4)


def test_large_pools_are_drawn_by_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """300 records, a map of 100: 100 points, the same ids in any file order; the pool's number stays 300."""
    monkeypatch.setattr(diversity_report, "SHOWN", 100)
    points = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    ids = [f"r{i}" for i in range(300)]
    shown = diversity(points, selection([0] * 300, list(range(30))), ids)["map"]
    assert len(shown["x"]) == 100 and shown["n_pool"] == 300 and 0 < sum(shown["selected"]) < 30
    flipped = diversity(points[::-1], selection([0] * 300, list(range(270, 300))), ids[::-1])["map"]
    assert np.abs(flipped["x"][::-1]) == pytest.approx(np.abs(shown["x"]), abs=1e-3)


@pytest.mark.parametrize("chosen", [[], [0], [0, 1]])
def test_small_subsets_and_pools(chosen: list[int]) -> None:
    """Fewer than two selected: no neighbours; fewer than three vectors: no map. The page says so."""
    points = np.eye(2, dtype=np.float32)
    content = diversity(points, selection([0, 1], chosen), ["a", "b"])
    assert (content["neighbours"] is None) == (len(chosen) < 2) and content["map"] is None
    assert set(plots.diversity_section(content)) >= {"class_plot", "neighbour_plot", "map_plot"}


def test_section_in_the_report(tmp_path) -> None:
    """The section and its link are there when diversity.json is, and not otherwise."""
    content = {
        "classes": {"pool": 3, "eligible": 2, "selected": 1, "random": 1.6, "by_class": CLASSES},
        "neighbours": SPREAD,
        "map": points_map(9) | {"n_pool": 40},
    }
    assert report_content(tmp_path)["diversity"] is None
    assert 'href="#diversity"' not in write_report(tmp_path).read_text()
    (tmp_path / "diversity.json").write_text(json.dumps(content))
    page = write_report(tmp_path).read_text()
    assert 'href="#diversity"' in page and page.count('class="plot"') == 3
    text = re.sub(r"\s+", " ", re.sub("<[^>]*>", "", page))
    assert "The pool has 3 classes. The subset covers 1 of them; random subsets of equal size cover 1.6" in text
    assert "9 of 40 records are drawn" in text
