"""The tables of a comparison: each figure by policy and load, ours against the best baseline, shares of a bound.

A `Grid` renders to a terminal, Markdown or HTML.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from statistics import fmean
from typing import Generic, TypeVar

from rich.table import Table
from rich.text import Text

from gateway.model.tier import Tier
from loadtests.reports.comparison import (
    Cell,
    Figure,
    Place,
    Roles,
    Scale,
    Spread,
    best_baselines,
    cells,
    differences,
    place_of,
    ratios,
    scale_of,
    signed,
)
from loadtests.reports.runs import RunResult


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a grid."""

    text: str
    bold: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A named row; `ours` marks our policy's row, which is coloured."""

    label: Entry
    entries: tuple[Entry, ...]
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Grid:
    """A table: `header[0]` is the heading of the row names, and every row is as wide as the header."""

    title: str
    header: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""

    def rich(self) -> Table:
        """The table for a terminal."""
        first, *others = self.header
        table = Table(first, title=self.title, caption=self.note or None)
        for name in others:
            table.add_column(name, justify="right")
        for row in self.rows:
            shown = [_rich(entry) for entry in (row.label, *row.entries)]
            table.add_row(*shown, style="cyan" if row.ours else None)
        return table

    def markdown(self) -> str:
        """The table in Markdown: the title in bold, the table, the note."""
        lines = [f"**{_piped(self.title)}**", "", _line([_piped(name) for name in self.header])]
        lines.append("|---|" + "---:|" * (len(self.header) - 1))
        for row in self.rows:
            lines.append(_line([_marked(entry) for entry in (row.label, *row.entries)]))
        if self.note:
            lines += ["", self.note]
        return "\n".join(lines) + "\n"

    def html(self) -> str:
        """The table in HTML, with a caption and row headings, in a frame that scrolls if it is too wide."""
        wordy = [any(row.entries[at].text[:1].isalpha() for row in self.rows) for at in range(len(self.header) - 1)]
        kinds = ["", *(' class="words"' if words else "" for words in wordy)]
        head = "".join(
            f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in zip(self.header, kinds, strict=True)
        )
        body = "".join(_html(row, kinds[1:]) for row in self.rows)
        note = f'<p class="note">{escape(self.note)}</p>' if self.note else ""
        return (
            f'<div class="wide" tabindex="0" role="region" aria-label="{escape(self.title)}"><table>'
            f"<caption>{escape(self.title)}</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{note}"
        )


def _rich(entry: Entry) -> Text:
    return Text(entry.text, style="bold" if entry.bold else "")


def _line(parts: list[str]) -> str:
    return "| " + " | ".join(parts) + " |"


def _piped(text: str) -> str:
    return text.replace("|", "\\|")


def _marked(entry: Entry) -> str:
    return f"**{_piped(entry.text)}**" if entry.bold and entry.text else _piped(entry.text)


def _html(row: Row, kinds: Sequence[str]) -> str:
    """A row in HTML; `kinds` are the attributes that align each column, words left and figures right."""
    entries = "".join(f"<td{kind}>{_strong(entry)}</td>" for entry, kind in zip(row.entries, kinds, strict=True))
    ours = ' class="ours"' if row.ours else ""
    return f'<tr{ours}><th scope="row">{_strong(row.label)}</th>{entries}</tr>'


def _strong(entry: Entry) -> str:
    return f"<strong>{escape(entry.text)}</strong>" if entry.bold else escape(entry.text)


FIGURES: tuple[Figure, ...] = ("effective_quality", "attainment", "goodput_per_s")
NOTHING = Entry("-")
DAGGER = " †"

Key = TypeVar("Key", bound=Hashable)


def overall_grid(runs: Sequence[RunResult], roles: Roles) -> Grid:
    """Each figure by policy, averaged over places within a seed and then over seeds.

    Uses only the places and seeds at which every policy has a valid run, so that all are compared on equal terms.
    """
    of: dict[str, dict[tuple[int, Place], RunResult]] = {}
    for run in runs:
        by = of.setdefault(run.policy, {})
        if run.valid:
            by[run.seed, place_of(run)] = run
    shared = sorted(set.intersection(*(set(by) for by in of.values())))
    seeds = sorted({seed for seed, _ in shared})

    def spread(by: Mapping[tuple[int, Place], RunResult], figure: Figure) -> Spread:
        return Spread.of([fmean(getattr(by[at], figure) for at in shared if at[0] == seed) for seed in seeds])

    found = {name: {figure: spread(by, figure) for figure in FIGURES} for name, by in of.items()} if shared else {}
    scales = {figure: scale_of(runs, figure) for figure in FIGURES}
    places = len({place for _, place in shared})
    return _ranked_grid(
        f"Means over {places} {'place' if places == 1 else 'places'} (load and coefficient of variation)",
        [Column(figure, f"{scale.title}, {scale.unit}", scale) for figure, scale in scales.items()],
        found,
        roles,
        FIGURES[:1],
        "Only where every policy has a valid run; ± half the 95 % interval over seeds."
        + (" The oracle knows the future: it bounds the others." if roles.bounds else ""),
    )


def figure_grids(runs: Sequence[RunResult], roles: Roles, figure: Figure = "effective_quality") -> tuple[Grid, ...]:
    """Policies by load, one grid for each coefficient of variation: bounds, ours, then baselines, best first.

    The best of each load is bold; bounds do not compete.
    """
    found = cells(runs)
    scale = scale_of(runs, figure)
    return tuple(
        _figure_grid([cell for cell in found if cell.place.cv == cv], roles, figure, scale, cv) for cv in cvs(runs)
    )


def margin_grid(runs: Sequence[RunResult], roles: Roles) -> Grid:
    """Ours minus the best baseline at each place, paired by seed; bold if the interval excludes zero."""
    scale = scale_of(runs, "effective_quality")
    ours = {cell.place: cell for cell in cells(runs) if cell.policy == roles.ours}
    rows = []
    for place, rival in sorted(best_baselines(cells(runs), roles).items()):
        gap = differences(runs, roles.ours, rival.policy, "effective_quality").get(place)
        if gap is None:
            continue
        mine, theirs = ours[place].effective_quality, rival.effective_quality
        relative = f"{signed((mine.mean / theirs.mean - 1) * 100, 1)} %" if theirs.mean else "-"
        entries = (
            Entry(scale.spread(mine)),
            Entry(rival.policy),
            Entry(scale.spread(theirs)),
            Entry(scale.spread(gap, sign=True), bold=gap.sure),
            Entry(relative),
        )
        rows.append(Row(Entry(f"CV {place.cv:g}, load {place.load:g}"), entries))
    return Grid(
        f"{roles.ours} against the best baseline, effective quality, {scale.unit}",
        ("where", roles.ours, "best baseline", "its", "difference", "relative"),
        tuple(rows),
        "The mean difference, paired by seed, ± half its 95 % interval; bold: the interval excludes zero. "
        "The best baseline is chosen in hindsight at each place.",
    )


def bound_grids(runs: Sequence[RunResult], roles: Roles) -> tuple[Grid, ...]:
    """Each policy's share of each bound's effective quality, in percent, by load and coefficient of variation."""
    return tuple(_bound_grid(runs, roles, bound, cv) for bound in roles.bounds for cv in cvs(runs))


def class_grid(runs: Sequence[RunResult], policy: str, place: Place) -> Grid:
    """Outcomes of each class of requests under one policy at one place, over all seeds."""
    found = next((cell for cell in cells(runs) if cell.policy == policy and cell.place == place), None)
    kinds: dict[int, list[RunResult]] = {}
    for run in found.runs if found else ():
        for one in run.by_class:
            kinds.setdefault(one.kind, []).append(run)
    tiers = [tier for tier in Tier if any(run.by_tier.get(tier) for run in (found.runs if found else ()))]
    return Grid(
        f"{policy} by class of request, CV {place.cv:g}, load {place.load:g}",
        ("class", "offered", "in time", "late", "refused", "failed", *tiers, "coverage", "nominal"),
        tuple(_class_row(of, kind, tiers) for kind, of in sorted(kinds.items())),
        "Shares of the requests of the class; a tier's column: its answers in time.",
    )


def invalid_grid(runs: Sequence[RunResult]) -> Grid | None:
    """The invalid runs and the reasons; None if all are valid."""
    rows = [
        Row(
            Entry(run.policy),
            (Entry(f"{run.load:g}"), Entry(f"{run.cv:g}"), Entry(str(run.seed)), Entry(run.note or "not said")),
        )
        for run in runs
        if not run.valid
    ]
    return Grid("Invalid runs", ("policy", "load", "CV", "seed", "why"), tuple(rows)) if rows else None


def cvs(runs: Sequence[RunResult]) -> tuple[float, ...]:
    """The coefficients of variation of the runs, ascending."""
    return tuple(sorted({run.cv for run in runs}))


@dataclass(frozen=True, slots=True)
class Column(Generic[Key]):
    """A column of spreads: its key, heading and scale."""

    key: Key
    title: str
    scale: Scale


def _ranked_grid(
    title: str,
    columns: Sequence[Column[Key]],
    found: Mapping[str, Mapping[Key, Spread]],
    roles: Roles,
    ranked_by: Sequence[Key],
    note: str,
    marks: Mapping[tuple[str, Key], str] | None = None,
    out: Collection[tuple[str, Key]] = (),
) -> Grid:
    """One row a policy: bounds, ours, then baselines, best first by their mean over `ranked_by`.

    The best of each column is bold, except bounds and entries in `out`. `marks` are appended to entries.
    """
    competing = [(name, key) for name, of in found.items() for key in of if name not in roles.bounds]
    best = {
        column.key: max(
            (found[at][key].mean for at, key in competing if key == column.key and (at, key) not in out), default=None
        )
        for column in columns
    }

    def entry(name: str, column: Column[Key]) -> Entry:
        spread, at = found[name].get(column.key), (name, column.key)
        if spread is None:
            return NOTHING
        bold = at in competing and at not in out and spread.mean == best[column.key]
        return Entry(column.scale.spread(spread) + (marks or {}).get(at, ""), bold)

    def standing(name: str) -> tuple[int, float]:
        return roles.rank(name), -fmean(found[name][key].mean for key in ranked_by if key in found[name])

    rows = (
        Row(Entry(name, name == roles.ours), tuple(entry(name, column) for column in columns), name == roles.ours)
        for name in sorted(found, key=standing)
    )
    return Grid(title, ("policy", *(column.title for column in columns)), tuple(rows), note)


def _figure_grid(found: Sequence[Cell], roles: Roles, figure: Figure, scale: Scale, cv: float) -> Grid:
    loads = sorted({cell.place.load for cell in found})
    by_policy: dict[str, dict[float, Spread]] = {}
    for cell in found:
        by_policy.setdefault(cell.policy, {})[cell.place.load] = cell.spread(figure)
    seeds = max(cell.spread(figure).n for cell in found)
    note = f"Means over {seeds} seeds ± half the 95 % interval." if seeds > 1 else "One seed: no interval."
    if any(cell.invalid for cell in found):
        note += " †: without invalid runs, unless all are."
    return _ranked_grid(
        f"{scale.title}, {scale.unit}; CV {cv:g}",
        [Column(load, f"load {load:g}", scale) for load in loads],
        by_policy,
        roles,
        loads,
        note,
        {(cell.policy, cell.place.load): DAGGER for cell in found if cell.invalid},
        {(cell.policy, cell.place.load) for cell in found if not cell.valid},
    )


def _bound_grid(runs: Sequence[RunResult], roles: Roles, bound: str, cv: float) -> Grid:
    percent = Scale("share", "%", 100.0, 1)
    loads = sorted({run.load for run in runs if run.cv == cv})
    reached: dict[str, dict[float, Spread]] = {}
    for name in (roles.ours, *roles.baselines):
        for place, spread in ratios(runs, name, bound, "effective_quality").items():
            if place.cv == cv:
                reached.setdefault(name, {})[place.load] = spread
    return _ranked_grid(
        f"Share of {bound}'s effective quality, %; CV {cv:g}",
        [Column(load, f"load {load:g}", percent) for load in loads],
        reached,
        roles,
        loads,
        "The mean ratio, paired by seed, ± half its 95 % interval.",
    )


def _class_row(runs: Sequence[RunResult], kind: int, tiers: Sequence[Tier]) -> Row:
    of = [one for run in runs for one in run.by_class if one.kind == kind]
    offered = sum(one.offered for one in of)
    counts = [sum(getattr(one, name) for one in of) for name in ("served", "late", "refused", "failed")]
    counts += [sum(one.by_tier.get(tier, 0) for one in of) for tier in tiers]
    covered = [one.coverage for one in of if one.coverage is not None]
    shares = tuple(Entry(f"{count / offered * 100:.1f} %") for count in counts)
    coverage = Entry(f"{fmean(covered) * 100:.1f} %") if covered else NOTHING
    return Row(Entry(of[0].about), (Entry(str(offered)), *shares, coverage, Entry(f"{of[0].nominal * 100:g} %")))
