"""The curves of an experiment: ours with the spread over seeds, and the points of the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from winnow.pages.svg import COLOURS, MARKS, height_for, legend, message, new_figure, to_svg
from winnow.reproduce.tables import Row, Table


def draw(table: Table, figure: Mapping[str, Any]) -> str:
    """One curve y(x) for each value of `by`, as SVG. Our markers are filled, with the standard deviation over seeds;
    the paper's are open. The x axis is numeric if every x is a number; otherwise each value (layers 0-3) has its place.

    figure: name, x (`ratio`, a setting, or a metric such as tuning_seconds), y (a metric), by (columns or settings);
    where, {column: value}, of which rows; baseline, {column: value}, of which rows ours is a level line.
    """
    title = f"{figure['y'].replace('_', ' ')} against {figure['x'].replace('_', ' ')}"
    series: dict[str, list[Row]] = {}
    for row in table.rows:
        if _x(row, figure["x"]) is not None and figure["y"] in row.cells and _is(row, figure.get("where") or {}):
            series.setdefault(_label(row, figure["by"]), []).append(row)
    if not series:
        return message(title, "There is no point to draw yet.")
    places = list(dict.fromkeys(_x(row, figure["x"]) for rows in series.values() for row in rows))
    numeric = all(isinstance(place, float) for place in places)
    curves = [
        (number, label, printed, points)
        for number, (label, rows) in enumerate(series.items())
        for printed in (True, False)
        if (points := _points(rows, figure, None if numeric else places, printed))
    ]
    names = [f"{label}, {'paper' if printed else 'ours'}".strip(", ") for _, label, printed, _ in curves]
    with new_figure(height_for(names, 3.2)) as (plot, axes):
        for name, (number, _, printed, points) in zip(names, curves, strict=True):
            style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKS[number % len(MARKS)], "markersize": 6}
            xs, ys, spreads = zip(*sorted(points), strict=True)
            fill = {"markerfacecolor": "none", "linestyle": "--"} if printed else {"linestyle": "-"}
            axes.errorbar(xs, ys, yerr=None if printed else spreads, label=name, linewidth=1.4, **style, **fill)
        for row in table.rows:
            level = row.cell(figure["y"]).mean
            if figure.get("baseline") and _is(row, figure["baseline"]) and level is not None:
                label = _label(row, figure["by"])
                colour = COLOURS[list(series).index(label) % len(COLOURS)] if label in series else "grey"
                axes.axhline(level, color=colour, linestyle=":", linewidth=1.2, label=f"{label}, baseline".strip(", "))
        if not numeric:
            axes.set_xticks(range(len(places)), [str(place) for place in places])
        axes.set(xlabel=figure["x"].replace("_", " "), ylabel=figure["y"].replace("_", " "))
        axes.margins(x=0.06, y=0.12)
        legend(axes)
        return to_svg(plot, title)


def _is(row: Row, wanted: Mapping[str, Any]) -> bool:
    return all(row.identity.get(key) == str(value) for key, value in wanted.items())


def _label(row: Row, by: Sequence[str]) -> str:
    """The values of `by` in a row. A row with other settings than the experiment's own also names these, and so gets a
    curve of its own."""
    words = [row.identity.get(key, "") for key in by]
    if not row.own:
        words += [f"{key}={row.identity[key]}" for key in row.differing if key not in by]
    return ", ".join(words).strip(", ")


def _points(
    rows: Sequence[Row], figure: Mapping[str, Any], places: Sequence | None, printed: bool
) -> list[tuple[float, float, float]]:
    """(x, y, spread) of the rows that have both; x is the index in `places`, where given."""
    points = []
    for row in rows:
        cell = row.cells[figure["y"]]
        value = cell.expected if printed else cell.mean
        x = _x(row, figure["x"])
        if value is not None:
            points.append((x if places is None else places.index(x), value, (cell.std or 0.0) if not printed else 0.0))
    return points


def _x(row: Row, key: str) -> float | str | None:
    """A row's value on the axis, a number where it can be read as one."""
    value = row.identity.get(key)
    if value is None:
        cell = row.cells.get(key)
        return None if cell is None else cell.mean
    try:
        return float(value)
    except ValueError:
        return value
