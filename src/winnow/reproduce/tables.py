"""A table of ours beside the paper's: rows, cells, differences, spreads and footnotes. Pure: no files, no
formatting."""

from __future__ import annotations

import csv
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from winnow.errors import UserError
from winnow.evaluation.comparison import Comparison, compare_items, holm, verdict
from winnow.pages.card import JUDGED
from winnow.reproduce.collect import Early, Job, Measured
from winnow.reproduce.settings import differences, is_set_by, shorten
from winnow.tracking.names import text

COLUMNS = ("backbone", "pool", "method", "ratio")
ROUNDING = 0.01  # a printed mean may differ by this from the mean of its cells, which have two decimals
PARTIAL = "mean of the measured"  # of the tasks of the paper's average
ON_REQUEST = ("selection_hours", "examples_per_second", "tuning_seconds", "selected")  # only where `also` names them


@dataclass
class Cell:
    """One number of a table. paper: the printed number, or several for a range. corrected: the mean of the cells where
    the printed average differs from it. doubtful: the printed number is known to be wrong, and nothing is compared with
    it. ours: {seed: value}. n: numbers of items over the seeds. commits: of the jobs behind the cell. derived: ours,
    for a cell computed from other cells, without a spread. runs: the jobs and measurements behind ours. tested: for a
    derived cell, the paired 95% interval and `better`, `worse` or `tie`."""

    paper: list[float] = field(default_factory=list)
    corrected: float | None = None
    doubtful: bool = False
    ours: dict[int, float] = field(default_factory=dict)
    n: set[int] = field(default_factory=set)
    commits: set[str] = field(default_factory=set)
    derived: float | None = None
    runs: list[tuple[Job, Measured]] = field(default_factory=list)
    tested: tuple[float, float, str] | None = None

    @property
    def mean(self) -> float | None:
        """Mean over seeds; None without a measurement."""
        return statistics.fmean(self.ours.values()) if self.ours else self.derived

    @property
    def std(self) -> float | None:
        """Standard deviation over seeds (n - 1); None for fewer than two."""
        return statistics.stdev(self.ours.values()) if len(self.ours) > 1 else None

    @property
    def expected(self) -> float | None:
        """The number to compare ours with: the corrected average, else the printed number; None for a doubtful number
        or a range."""
        if self.doubtful:
            return None
        if self.corrected is not None:
            return self.corrected
        return self.paper[0] if len(self.paper) == 1 else None

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's."""
        return None if self.mean is None or self.expected is None else self.mean - self.expected


@dataclass
class Row:
    """identity: column or setting -> text. printed: whether the paper has the row. cells: metric -> Cell. differing:
    settings of the identity in which jobs of one row of the paper differ. own: the row has the experiment's own
    settings and may be compared with the paper."""

    identity: dict[str, str]
    printed: bool
    cells: dict[str, Cell] = field(default_factory=dict)
    differing: tuple[str, ...] = ()
    own: bool = True

    def cell(self, metric: str) -> Cell:
        """An empty one where the row has none."""
        return self.cells.get(metric, Cell())


@dataclass
class Table:
    """rows and metrics: first the paper's in its order, then ours. footnotes: sentences about single cells. jobs: all
    jobs of the table, finished or not."""

    paper: str
    name: str
    rows: list[Row]
    metrics: list[str]
    footnotes: list[str]
    jobs: list[Job | Early]

    @property
    def failed(self) -> list[Job | Early]:
        return [job for job in self.jobs if job.status != "finished"]


def read_paper(path: Path) -> list[Row]:
    """The rows of a paper.csv, one for each (backbone, pool, method, setting, ratio), in file order."""
    if not path.is_file():
        raise UserError(f"{path} is missing; an experiment needs the paper's numbers, or at least the file's header.")
    rows: dict[tuple, Row] = {}
    with path.open(encoding="utf-8", newline="") as stream:
        for line in csv.DictReader(stream):
            settings = dict(part.split("=", 1) for part in line["setting"].split(";") if part)
            words = {key: line[key] for key in COLUMNS} | settings
            words = {key: text(value) for key, value in words.items() if value}
            row = rows.setdefault(tuple(sorted(words.items())), Row(words, printed=True))
            row.cells[line["metric"]] = Cell(paper=[float(line["value"])])
    return list(rows.values())


def matches(job: Mapping[str, str], paper: Mapping[str, str]) -> bool:
    """Whether a job belongs to a row of the paper: every key that both have has the same value."""
    return all(job[key] == paper[key] for key in job.keys() & paper.keys())


def build(table: Mapping[str, Any], printed: Sequence[Row], jobs: Sequence[Job | Early]) -> Table:
    """The table of an experiment, from its settings, the rows of the paper and the jobs.

    table: `average` (our key of it); `members`, the metrics whose mean is the paper's `average`; `derived`, {metric:
    {of, over}}, the difference from the row in which the columns of `over` have these values; `best`, a setting whose
    best value gets a row of its own; `mean`, one over whose values the mean gets a row; `doubtful`, [{rows, metrics,
    why}], printed cells that are known to be wrong; `theirs`, settings that describe how the paper measured, which our
    rows do not take over; `unequal`, why rows of one comparison may have different budgets; `also`, further metrics.
    """
    footnotes = _equal(jobs, table.get("unequal"))
    footnotes += _mark_doubtful(printed, table.get("doubtful") or [])
    footnotes += _check_averages(printed, table.get("members") or [])
    measured, notes = _measured(jobs, printed)
    footnotes += notes
    ours = [*measured, *_best(measured, table.get("best"))]
    ours += _means(ours, table.get("mean"))
    for metric, rule in (table.get("derived") or {}).items():
        footnotes += _derive(ours, metric, rule, table.get("best"))
    rows: list[Row] = []
    counterparts: dict[int, list[Row]] = {}  # id of our row -> its rows in the paper
    for row in printed:
        partners = [one for one in ours if one.own and matches(one.identity, row.identity)]
        rows += [one for one in partners if id(one) not in counterparts] or ([] if partners else [row])
        for one in partners:
            counterparts.setdefault(id(one), []).append(row)
            for metric, cell in row.cells.items():
                own = one.cells.setdefault(metric, Cell())
                own.paper = [*own.paper, *cell.paper]
                own.corrected, own.doubtful = cell.corrected, cell.doubtful
    rows += [one for one in ours if id(one) not in counterparts]
    for one in ours:
        if id(one) in counterparts:  # our row takes the words that all of its rows in the paper share
            shared = set.intersection(*(set(row.identity.items()) for row in counterparts[id(one)]))
            one.identity |= {
                key: value for key, value in sorted(shared) if key not in (*one.identity, *(table.get("theirs") or []))
            }
            one.printed = True
    members = table.get("members") or []
    for row in rows:
        _average_of_the_measured(row, members)
    metrics = list(dict.fromkeys(metric for row in printed for metric in row.cells))
    extra = dict.fromkeys(metric for row in rows for metric in row.cells if metric not in (*metrics, *ON_REQUEST))
    metrics += [*extra, *(metric for metric in table.get("also") or [] if metric not in metrics)]
    return Table(table["paper"], table["name"], rows, metrics, footnotes, list(jobs))


def _equal(jobs: Sequence[Job | Early], why: str | None) -> list[str]:
    """Jobs of one backbone, pool and share are compared, so all must have the same budget. Where they do not, the
    footnotes say `why`; without a reason all of them become refused, since none of them is the right one."""
    groups: dict[tuple, list[Job]] = {}
    for job in jobs:
        if job.status == "finished" and job.budget is not None:
            share = dict.fromkeys((job.identity.get("ratio"), job.budget[0]))  # both: another count is another share
            groups.setdefault((job.identity.get("backbone"), job.identity.get("pool"), *share), []).append(job)
    notes = []
    for place, group in groups.items():
        sizes = dict.fromkeys(f"{job.identity['method']} {job.budget[1]}" for job in group)
        if len({job.budget[1] for job in group}) > 1:
            where = f"{', '.join(str(one) for one in place if one is not None)}: unequal budgets ({', '.join(sizes)})"
            notes += [f"{where}, because {why}."] if why else []
            for job in () if why else group:
                job.status, job.error = "refused", f"{where}; set selection.budget=records"
    return notes


def _measured(jobs: Sequence[Job | Early], printed: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """(rows of the finished jobs, footnotes).

    Jobs with the same identity and the same settings are one row, with one value per seed; the later of two jobs of one
    seed counts. Jobs with the same identity and different settings are one row per setting. The experiment's own row is
    the only one whose differing settings the command line did not set; if no row or several rows are like that, none of
    them is compared with the paper."""
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
                    notes.append(f"Job {before} is left out: {job.folder.name} is a later job of the same row.")
                last[job.seed] = job
            row = Row(members[0].identity | {key: shorten(value) for key, value in settings}, printed=False)
            row.differing = tuple(key for key, _ in settings)
            row.own = any(not any(is_set_by(job.command_line, key) for key in row.differing) for job in members)
            for job in last.values():
                _add(row, job)
            made.append(row)
        rows += made
        if sum(row.own for row in made) != 1:
            for row in made:
                row.own = False
            if any(matches(group[0].identity, row.identity) for row in printed):
                notes.append(
                    f"{', '.join(group[0].identity.values())}: the jobs differ in {', '.join(made[0].differing)}, and "
                    f"it is unknown which of the {len(made)} rows is the experiment's own: the paper is compared with "
                    f"none."
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
    """Mark printed cells that are known to be wrong, and return footnotes with the reasons."""
    for one in doubtful:
        words = {key: text(value) for key, value in one["rows"].items()}
        for row in rows:
            if all(row.identity.get(key) == value for key, value in words.items()):
                for metric in one["metrics"]:
                    row.cells[metric].doubtful = True
    return [
        f"{', '.join(one['metrics'])} of {', '.join(map(str, one['rows'].values()))}: {one['why']}" for one in doubtful
    ]


def _check_averages(rows: Sequence[Row], members: Sequence[str]) -> list[str]:
    """Set `corrected` of printed averages that differ from the mean of their cells, and return footnotes."""
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
            average.corrected = mean
            where = ", ".join(row.identity.values())
            notes.append(
                f"{where}: the average is printed as {average.paper[0]:.2f}, its cells give {mean:.2f}; "
                f"ours is compared with {mean:.2f}."
            )
    return notes


def _average_of_the_measured(row: Row, members: Sequence[str]) -> None:
    """Where only some of the tasks behind the paper's average are measured, add the mean of these beside the mean of
    the paper's numbers for the same tasks, if it has one number for each."""
    ran = [name for name in members if row.cell(name).mean is not None]
    if not 1 < len(ran) < len(members):
        return
    cells = [row.cells[name] for name in ran]
    theirs = [cell.expected for cell in cells]
    row.cells[PARTIAL] = Cell(
        paper=[] if None in theirs else [statistics.fmean(theirs)],
        derived=statistics.fmean(cell.mean for cell in cells),
        commits=set.union(*(cell.commits for cell in cells)),
        runs=[run for cell in cells for run in cell.runs],
    )


def _best(rows: Sequence[Row], setting: str | None) -> list[Row]:
    """A row `setting=best` for each group of rows that differ in `setting` alone: the best mean of each metric."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        if setting is not None and setting in row.identity:
            free = {setting, *(row.differing if row.own else ())}
            rest = {key: value for key, value in row.identity.items() if key not in free}
            groups.setdefault(tuple(sorted(rest.items())), []).append(row)
    made = []
    for rest, members in groups.items():
        best = Row(dict(rest) | {setting: "best"}, printed=False, own=all(row.own for row in members))
        for metric in dict.fromkeys(metric for row in members for metric in row.cells):
            cells = [row.cells[metric] for row in members if metric in row.cells]
            job, one = cells[0].runs[0]
            high = one.key is None or job.model["metrics"][one.key]["higher_is_better"]
            top = (max if high else min)(cells, key=lambda cell: cell.mean)
            best.cells[metric] = Cell(ours=dict(top.ours), n=set(top.n), commits=set(top.commits), runs=top.runs)
        made.append(best)
    return made


def _means(rows: Sequence[Row], column: str | None) -> list[Row]:
    """A row `column=mean` for each group of rows that differ in `column` alone and have all of its values: the mean of
    each metric that all of them have, seed by seed."""
    groups: dict[tuple, dict[str, Row]] = {}
    for row in rows:
        if column is not None and column in row.identity:
            free = {column, *(row.differing if row.own else ())}
            rest = {key: value for key, value in row.identity.items() if key not in free}
            groups.setdefault(tuple(sorted(rest.items())), {})[row.identity[column]] = row
    values = {value for group in groups.values() for value in group}
    made = []
    for rest, group in groups.items():
        if len(values) < 2 or set(group) != values:
            continue
        members = list(group.values())
        mean = Row(dict(rest) | {column: "mean"}, printed=False, own=all(row.own for row in members))
        for metric in set.intersection(*(set(row.cells) for row in members)):
            cells = [row.cells[metric] for row in members]
            seeds = set.intersection(*(set(cell.ours) for cell in cells))
            ours = {seed: statistics.fmean(cell.ours[seed] for cell in cells) for seed in sorted(seeds)}
            mean.cells[metric] = Cell(ours=ours, n=set(), commits=set().union(*(cell.commits for cell in cells)))
        made.append(mean)
    return made


def _derive(rows: Sequence[Row], metric: str, rule: Mapping[str, Any], best: str | None) -> list[str]:
    """Add the difference from the reference row, with its paired interval and Holm's verdict over the rows of a
    backbone and pool, to every measured row that has a reference. The footnotes say which rows have no interval."""
    over = {key: text(value) for key, value in rule["over"].items()}
    untested: Counter[str] = Counter()
    families: dict[tuple, list[tuple[Cell, Comparison, float, bool]]] = {}
    rows = [row for row in rows if row.cell(rule["of"]).mean is not None]
    for row in rows:
        partners = [one for one in rows if one is not row and _is_reference(one, row, over)]
        if len(partners) == 1 and not matches(row.identity, over):
            own, other = row.cells[rule["of"]], partners[0].cells[rule["of"]]
            cell = Cell(derived=own.mean - other.mean, n=own.n | other.n, commits=own.commits | other.commits)
            row.cells[metric] = cell
            try:
                if row.identity.get(best or "") == "best":
                    raise UserError("A row chosen as the best is not tested: the same numbers chose it.")
                family = families.setdefault((row.identity.get("backbone"), row.identity.get("pool")), [])
                family.append((cell, *_test(rule["of"], own, other)))
            except UserError as error:
                untested[str(error)] += 1
    for family in families.values():
        for (cell, one, scale, high), p in zip(family, holm([one.p for _, one, *_ in family]), strict=True):
            cell.tested = scale * one.low, scale * one.high, JUDGED[verdict(one.difference, p, high)]
    return [f"{metric}: {count} without an interval. {why}" for why, count in untested.items()]


def _test(metric: str, own: Cell, other: Cell) -> tuple[Comparison, float, bool]:
    """The comparison of two cells, the scale of their values, and whether high is good. Raises UserError where the
    samples of their runs do not allow a test."""
    sides = []
    for cell in (own, other):
        if not cell.runs:
            raise UserError("A mean over rows has no samples of its own.")
        for job, one in cell.runs:
            if one.key not in job.measured[0]:
                raise UserError(f"The samples hold no value per item of {one.key or metric}.")
        sides.append([job.measured[0][one.key] for job, one in cell.runs])
    return compare_items(*sides), own.runs[0][1].scale, sides[0][0].higher_is_better


def _is_reference(one: Row, row: Row, over: Mapping[str, str]) -> bool:
    """Whether `one` is the reference of `row`: it has the values of `over` and equals `row` in every other key that
    both have. The ratio may differ where one of them is all data, and `differing` settings between two own rows."""
    if any(one.identity.get(key) != value for key, value in over.items()):
        return False
    free = {*over, "ratio"} if "full" in (over.get("method"), row.identity.get("method")) else set(over)
    if one.own and row.own:
        free |= {*one.differing, *row.differing}
    shared = (one.identity.keys() & row.identity.keys()) - free
    return all(one.identity[key] == row.identity[key] for key in shared)
