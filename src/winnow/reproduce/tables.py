"""A table of ours beside the paper's: rows, cells, differences, spreads and footnotes. Pure: no files, no
formatting."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from winnow.errors import UserError
from winnow.evaluation.comparison import Measurement, compare_items, measurements
from winnow.reproduce.collect import Job, Measured
from winnow.reproduce.settings import differences, is_named, shown
from winnow.tracking.names import text

COLUMNS = ("backbone", "pool", "method", "ratio")
ROUNDING = 0.01  # cells have two decimals: a printed mean may be so far from the mean of its cells
ALWAYS_OURS = ("selection_hours", "examples_per_second", "tuning_seconds", "selected")  # shown only where asked for


@dataclass
class Cell:
    """One number of a table. paper: as printed; more than one where the paper gives a range. instead: the mean of the
    cells where the printed average does not follow from them. doubtful: printed, but known to be wrong: nothing is
    compared with it. ours: {seed: value}. n: numbers of items, one if it is the same for all seeds. commits: of the
    jobs that the cell is made of."""

    paper: list[float] = field(default_factory=list)
    instead: float | None = None
    doubtful: bool = False
    ours: dict[int, float] = field(default_factory=dict)
    n: set[int] = field(default_factory=set)
    commits: set[str] = field(default_factory=set)
    derived: float | None = None  # of ours, where it is made of other cells and has no spread
    runs: list[tuple[Job, Measured]] = field(default_factory=list)  # what ours was measured in
    tested: tuple[float, float, str] | None = None  # of a derived one: paired 95% interval; better, worse or tie

    @property
    def mean(self) -> float | None:
        """Mean over seeds, or None where nothing was measured."""
        return statistics.fmean(self.ours.values()) if self.ours else self.derived

    @property
    def std(self) -> float | None:
        """Standard deviation over seeds (n - 1); None for fewer than two."""
        return statistics.stdev(self.ours.values()) if len(self.ours) > 1 else None

    @property
    def expected(self) -> float | None:
        """What ours is compared with: the printed number, or the mean of the cells where that is another; None where
        the printed number is wrong."""
        if self.doubtful:
            return None
        if self.instead is not None:
            return self.instead
        return self.paper[0] if len(self.paper) == 1 else None

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's."""
        return None if self.mean is None or self.expected is None else self.mean - self.expected


@dataclass
class Row:
    """identity: column or setting -> text. printed: whether the paper has the row. cells: metric -> Cell. apart:
    settings of the identity that only tell jobs of one row apart. own: its settings are the experiment's own, so that
    it may be compared with the paper."""

    identity: dict[str, str]
    printed: bool
    cells: dict[str, Cell] = field(default_factory=dict)
    apart: tuple[str, ...] = ()
    own: bool = True


@dataclass
class Table:
    """rows and metrics in the paper's order, ours behind. footnotes: sentences about single cells. jobs: all that
    were found."""

    paper: str
    name: str
    rows: list[Row]
    metrics: list[str]
    footnotes: list[str]
    jobs: list[Job]

    @property
    def failed(self) -> list[Job]:
        return [job for job in self.jobs if job.status != "finished"]


def read_paper(path: Path) -> list[Row]:
    """The rows of a paper.csv, one for each (backbone, pool, method, setting, ratio), in file order."""
    if not path.is_file():
        raise UserError(f"{path}: not there; an experiment needs the paper's numbers, if only the header of the file.")
    rows: dict[tuple, Row] = {}
    with path.open(encoding="utf-8", newline="") as stream:
        for line in csv.DictReader(stream):
            settings = dict(part.split("=", 1) for part in line["setting"].split(";") if part)
            found = {key: line[key] for key in COLUMNS} | settings
            found = {key: text(value) for key, value in found.items() if value}
            row = rows.setdefault(tuple(sorted(found.items())), Row(found, printed=True))
            row.cells[line["metric"]] = Cell(paper=[float(line["value"])])
    return list(rows.values())


def matches(job: Mapping[str, str], paper: Mapping[str, str]) -> bool:
    """Whether a job is a row of the paper: all that both of them state is equal."""
    return all(job[key] == paper[key] for key in job.keys() & paper.keys())


def build(table: Mapping[str, Any], printed: Sequence[Row], jobs: Sequence[Job]) -> Table:
    """The table of an experiment from its settings, the paper's rows and the jobs that were run.

    table: `average` (ours), `members` (metrics whose mean the paper's `average` is), `derived` ({metric: {of, over}}:
    the difference from the row in which the columns of `over` have those values), `best` (a setting: the best over it
    is a row of its own), `doubtful` ([{rows, metrics, why}]: printed cells that are known to be wrong), `theirs`
    (settings that say how the paper measured, which a row of ours does not take over).
    """
    doubts = _mark_doubtful(printed, table.get("doubtful") or [])
    footnotes = doubts + _check_averages(printed, table.get("members") or [])
    found, notes = _measured(jobs, printed)
    footnotes += notes
    ours = [*found, *_best(found, table.get("best"))]
    read: dict[Path, dict[str, Measurement]] = {}
    for metric, rule in (table.get("derived") or {}).items():
        footnotes += _derive(ours, metric, rule, read)
    rows: list[Row] = []
    stated: dict[int, list[Row]] = {}  # id of a row of ours -> the rows of the paper that it is
    for row in printed:
        partners = [one for one in ours if one.own and matches(one.identity, row.identity)]
        rows += [one for one in partners if id(one) not in stated] or ([] if partners else [row])
        for one in partners:
            stated.setdefault(id(one), []).append(row)
            for metric, cell in row.cells.items():
                own = one.cells.setdefault(metric, Cell())
                own.paper = [*own.paper, *cell.paper]
                own.instead, own.doubtful = cell.instead, cell.doubtful
    rows += [one for one in ours if id(one) not in stated]
    for one in ours:
        if id(one) in stated:  # it is called as the paper calls it; of several rows, as they all do
            shared = set.intersection(*(set(row.identity.items()) for row in stated[id(one)]))
            one.identity |= {
                key: value for key, value in sorted(shared) if key not in (*one.identity, *(table.get("theirs") or []))
            }
            one.printed = True
    metrics = list(dict.fromkeys(metric for row in printed for metric in row.cells))
    extra = dict.fromkeys(metric for row in rows for metric in row.cells if metric not in (*metrics, *ALWAYS_OURS))
    shown = [*metrics, *extra, *(metric for metric in table.get("also") or [] if metric not in metrics)]
    return Table(table["paper"], table["name"], rows, shown, footnotes, list(jobs))


def _measured(jobs: Sequence[Job], printed: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """(rows of the finished jobs, footnotes). Jobs of one identity are one row where their settings are alike, with a
    value for each seed; of two for one seed the later one counts. Otherwise they are a row for each of the settings,
    and the experiment's own is that of which the command line set none; it is none where that is not exactly one."""
    groups: dict[tuple, list[Job]] = {}
    for job in sorted(jobs, key=lambda job: job.started):
        if job.status == "finished":
            groups.setdefault(tuple(sorted(job.identity.items())), []).append(job)
    rows, notes = [], []
    for group in groups.values():
        alike: dict[tuple, list[Job]] = {}
        for job, settings in zip(group, differences(group), strict=True):
            alike.setdefault(tuple(settings.items()), []).append(job)
        made = []
        for settings, members in alike.items():
            last: dict[int, Job] = {}
            for job in members:
                if job.seed in last:
                    before = last[job.seed].folder.name
                    notes.append(f"Job {before} is not shown: {job.folder.name} is the same row, later.")
                last[job.seed] = job
            row = Row(members[0].identity | {key: shown(value) for key, value in settings}, printed=False)
            row.apart = tuple(key for key, _ in settings)
            row.own = any(not any(is_named(key, job.given) for key in row.apart) for job in members)
            for job in last.values():
                _add(row, job)
            made.append(row)
        rows += made
        if sum(row.own for row in made) != 1:
            for row in made:
                row.own = False
            if any(matches(group[0].identity, row.identity) for row in printed):
                notes.append(
                    f"{', '.join(group[0].identity.values())}: the jobs differ in {', '.join(made[0].apart)}, and "
                    f"which of the {len(made)} rows is the experiment's own cannot be told: none is compared with the "
                    f"paper."
                )
    return rows, notes


def _add(row: Row, job: Job) -> None:
    for metric, one in job.metrics.items():
        cell = row.cells.setdefault(metric, Cell())
        cell.ours[job.seed] = one.value
        cell.commits.add(job.commit)
        cell.runs.append((job, one))
        if one.n is not None:
            cell.n.add(one.n)


def _mark_doubtful(rows: Sequence[Row], doubtful: Sequence[Mapping[str, Any]]) -> list[str]:
    """Mark printed cells that are known to be wrong; footnotes that say why."""
    for one in doubtful:
        wanted = {key: text(value) for key, value in one["rows"].items()}
        for row in rows:
            if all(row.identity.get(key) == value for key, value in wanted.items()):
                for metric in one["metrics"]:
                    row.cells[metric].doubtful = True
    return [
        f"{', '.join(one['metrics'])} of {', '.join(map(str, one['rows'].values()))}: {one['why']}" for one in doubtful
    ]


def _check_averages(rows: Sequence[Row], members: Sequence[str]) -> list[str]:
    """Footnotes for printed averages that do not follow from their cells, which get the mean of these beside them."""
    notes = []
    for row in rows:
        cells = [row.cells[name].paper[0] for name in members if name in row.cells]
        average = row.cells.get("average")
        if average is None or len(cells) < len(members) or not cells:
            continue
        if any(row.cells[name].doubtful for name in members):
            continue
        mean = statistics.fmean(cells)
        if abs(mean - average.paper[0]) > ROUNDING + 1e-9:
            average.instead = mean
            where = ", ".join(row.identity.values())
            notes.append(
                f"{where}: the average is printed as {average.paper[0]:.2f}, its cells give {mean:.2f}; "
                f"ours is compared with {mean:.2f}."
            )
    return notes


def _best(rows: Sequence[Row], setting: str | None) -> list[Row]:
    """For each group of rows that differ in `setting` alone: a row `setting=best` with the highest mean of each
    metric."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        if setting is not None and setting in row.identity:
            free = {setting, *(row.apart if row.own else ())}
            rest = {key: value for key, value in row.identity.items() if key not in free}
            groups.setdefault(tuple(sorted(rest.items())), []).append(row)
    made = []
    for rest, members in groups.items():
        best = Row(dict(rest) | {setting: "best"}, printed=False, own=all(row.own for row in members))
        for metric in dict.fromkeys(metric for row in members for metric in row.cells):
            cells = [row.cells[metric] for row in members if metric in row.cells]
            top = max(cells, key=lambda cell: cell.mean)
            best.cells[metric] = Cell(ours=dict(top.ours), n=set(top.n), commits=set(top.commits), runs=top.runs)
        made.append(best)
    return made


def _derive(
    rows: Sequence[Row], metric: str, rule: Mapping[str, Any], read: dict[Path, dict[str, Measurement]]
) -> list[str]:
    """Add the difference from the reference to every row that has one, with its paired interval; a footnote where the
    runs do not keep what that takes."""
    over = {key: text(value) for key, value in rule["over"].items()}
    lacking: dict[str, int] = {}
    for row in rows:
        if matches(row.identity, over) or rule["of"] not in row.cells:
            continue
        partners = [one for one in rows if one is not row and _is_reference(one, row, over) and rule["of"] in one.cells]
        if len(partners) == 1:
            own, other = row.cells[rule["of"]], partners[0].cells[rule["of"]]
            cell = Cell(derived=own.mean - other.mean, n=own.n | other.n, commits=own.commits | other.commits)
            row.cells[metric] = cell
            try:
                cell.tested = _test(own, other, read)
            except UserError as error:
                lacking[str(error)] = lacking.get(str(error), 0) + 1
    return [f"{metric}: {count} without an interval. {why}" for why, count in lacking.items()]


def _test(own: Cell, other: Cell, read: dict[Path, dict[str, Measurement]]) -> tuple[float, float, str]:
    """(low, high, better, worse or tie) of the difference of two cells. Raises UserError where the samples of their
    runs do not allow a test."""
    sides = []
    for cell in (own, other):
        side = []
        for job, one in cell.runs:
            if job.folder not in read:
                read[job.folder] = measurements(job.model, job.averages)[0]
            if one.key not in read[job.folder]:
                raise UserError(f"The samples do not hold {one.key or 'it'} item by item.")
            side.append(read[job.folder][one.key])
        sides.append(side)
    found, scale = compare_items(*sides), own.runs[0][1].scale
    words = {"win": "better", "loss": "worse", "tie": "tie"}
    return scale * found.low, scale * found.high, words[found.verdict]


def _is_reference(one: Row, row: Row, over: Mapping[str, str]) -> bool:
    """Whether `one` is what `row` is measured against: it has the values of `over`, and shares all else that both
    state; all data has another ratio by nature, and the experiment's own rows may have settings of their own."""
    if any(one.identity.get(key) != value for key, value in over.items()):
        return False
    free = {*over, "ratio"} if over.get("method") == "full" else set(over)
    if one.own and row.own:
        free |= {*one.apart, *row.apart}
    shared = (one.identity.keys() & row.identity.keys()) - free
    return all(one.identity[key] == row.identity[key] for key in shared)
