"""Pictures of runs, drawn without a display. Matplotlib is imported where it is used: a typing
mistake need not wait for it."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from knorm.training.tables import mean_and_sd

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]

DPI = 110
PANEL = (4.5, 3.5)  # inches
ABSENT = "0.8"  # grey
MOST_BESIDE = 4  # panels in one row
SMALL = 9  # points
LETTERS = 15  # of that size in an inch
NUM_COLORS = 10
MARKERS = ("o", "s", "^", "D")  # for the second ten points, and so on
DASHES = ("-", "--", ":", "-.")  # for the second ten lines, and so on
NOT_DRAWN = ("count", "correct", "dropped")
MOST_NAMES, MOST_NUMBERS = 40, 20  # classes up to which a confusion matrix names and counts them


def draw_curves(rows: Sequence[Row], path: Path) -> None:
    """One panel per metric with a line per split, and one for the learning rate."""
    panels = panels_of(rows)
    figure, grid = new_figure(len(panels), columns_of(len(panels)))
    epochs = [row["epoch"] for row in rows]
    for axes, (title, lines) in zip(grid, panels.items(), strict=True):
        for label, column in lines.items():
            axes.plot(epochs, [_number(row[column]) for row in rows], marker=".", label=label)
        finish(axes, title)
        axes.legend()
    figure.savefig(path, dpi=DPI)


def columns_of(num_panels: int) -> int:
    """Panels beside each other: one row of them, or two that are as even as can be."""
    return num_panels if num_panels <= MOST_BESIDE else math.ceil(num_panels / 2)


def draw_compared(
    groups: Sequence[tuple[str, Sequence[Sequence[Row]]]], path: Path, title: str = ""
) -> None:
    """The curves of several runs: a panel per split and metric, a color per group and its name.

    Thin lines are the runs, a thick one is their mean where all of them have that epoch.
    """
    columns = {
        column
        for _, runs in groups
        for rows in runs
        for column in (rows[0] if rows else ())
        if "." in column and not column.endswith(NOT_DRAWN)
    }
    figure, grid = new_figure(len(columns), 3)
    for axes, column in zip(grid, sorted(columns), strict=True):
        for number, (name, runs) in enumerate(groups):
            lines = [{row["epoch"]: _number(row.get(column)) for row in rows} for rows in runs]
            color, dashes = color_of(number), DASHES[number // NUM_COLORS % len(DASHES)]
            for line in lines if len(lines) > 1 else ():
                axes.plot(
                    list(line), list(line.values()), color=color, ls=dashes, lw=0.8, alpha=0.5
                )
            shared = sorted(set.intersection(*(set(line) for line in lines)))
            mean = [sum(line[epoch] for line in lines) / len(lines) for epoch in shared]
            axes.plot(shared, mean, color=color, ls=dashes, lw=2, marker=".", label=name)
        finish(axes, column.replace(".", " "))
    if columns:
        handles, labels = grid[0].get_legend_handles_labels()
        room = LETTERS * figure.get_figwidth() / (max(map(len, labels)) + 8)
        beside = min(len(labels), max(1, int(room)))
        figure.set_figheight(figure.get_figheight() + 0.2 * math.ceil(len(labels) / beside))
        figure.legend(handles, labels, loc="outside lower center", ncols=beside, fontsize=SMALL)
    entitle(figure, title)
    figure.savefig(path, dpi=DPI)


def draw_confusion(matrix: Tensor, classes: Sequence[str], path: Path, title: str = "") -> None:
    """True classes by row, predicted ones by column, shaded by the root of their part of the row.

    Rows without a count are grey: there was none of the class to be found.
    Up to 20 classes every cell says its count, up to 40 every row and column its name; of more,
    every tenth or so, so that they can be read.
    """
    from matplotlib import colormaps
    from matplotlib.colors import PowerNorm

    count = len(classes)
    side = min(max(3 + 0.42 * count, 4.5), 11)
    figure, (axes,) = new_figure(1, 1, panel=(side + 1, side))
    parts = (matrix.double() / matrix.sum(1, keepdim=True)).numpy()  # nan where there is none
    norm = PowerNorm(0.5, vmin=0, vmax=1)  # the root: rare mistakes are to be seen too
    cmap = colormaps["Blues"].with_extremes(bad=ABSENT)
    shades = axes.imshow(parts, cmap=cmap, norm=norm, interpolation="nearest")
    every = 1 if count <= MOST_NAMES else math.ceil(count / MOST_NAMES)
    ticks = range(0, count, every)
    names = [_shortened(classes[tick]) for tick in ticks]
    rotation = 90 if max(map(len, names)) > 2 else 0
    size = 9 if count <= MOST_NUMBERS else 7
    axes.set_xticks(ticks, names, fontsize=size, rotation=rotation)
    axes.set_yticks(ticks, names, fontsize=size)
    axes.set(xlabel="predicted class", ylabel="true class", title=title)
    if count <= MOST_NUMBERS:
        for row, column in matrix.nonzero().tolist():
            color = "white" if parts[row, column] > 0.3 else "black"
            number = str(int(matrix[row, column]))
            axes.text(column, row, number, ha="center", va="center", color=color, fontsize=8)
    figure.colorbar(shades, ax=axes, label="part of the true class (grey: absent)", shrink=0.8)
    figure.savefig(path, dpi=DPI, bbox_inches="tight")


def panels_of(rows: Sequence[Row]) -> dict[str, dict[str, str]]:
    """Metric -> split -> column, from columns named `split.metric`; counts are left out."""
    panels: dict[str, dict[str, str]] = {}
    for column in rows[0]:
        split, dot, metric = column.partition(".")
        if dot and metric not in NOT_DRAWN:
            panels.setdefault(metric, {})[split] = column
    return panels | {"learning rate": {"lr": "lr"}}


def new_figure(
    num_panels: int, num_columns: int, panel: tuple[float, float] = PANEL
) -> tuple["Figure", list["Axes"]]:
    """A figure that needs no display, and its panels row by row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    num_columns = max(1, min(num_columns, num_panels))
    num_rows = max(1, math.ceil(num_panels / num_columns))
    size = (panel[0] * num_columns, panel[1] * num_rows)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(num_rows, num_columns, squeeze=False).flatten().tolist()
    for axes in grid[num_panels:]:
        axes.remove()
    return figure, grid[:num_panels]


def entitle(figure: "Figure", title: str) -> None:
    """A title above the whole figure, its lines broken where they would leave it."""
    width = int(LETTERS * figure.get_figwidth())
    lines = [part for line in title.splitlines() for part in textwrap.wrap(line, width)]
    if lines:
        figure.suptitle("\n".join(lines), fontsize=SMALL)


def finish(axes: "Axes", title: str) -> None:
    """What the panels of all curves share: whole epochs, a grid."""
    from matplotlib.ticker import MaxNLocator

    axes.set(title=title, xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)


def _number(value: Any) -> float:
    """A metric of the log, in which what is not finite stands as null."""
    return math.nan if value is None else float(value)


def _shortened(name: str) -> str:
    return name if len(name) <= 16 else f"{name[:15]}…"


class Bar(NamedTuple):
    """A bar of a picture."""

    label: str
    values: Sequence[float]
    mark: float | None = None
    """a published value"""


class Point(NamedTuple):
    """A point of a picture."""

    label: str
    x: float
    values: Sequence[float]


def draw_bars(
    bars: Sequence[Bar], path: Path, title: str, across: str, baseline: int | None = None
) -> None:
    """The mean of each bar's values and, of several, their standard deviation.

    Published values are drawn as diamonds; the mean of the bar `baseline` is a dashed line.
    """
    figure, (axes,) = new_figure(1, 1, panel=(8, 1.8 + 0.32 * len(bars)))
    spreads, ends = [mean_and_sd(bar.values) for bar in bars], []
    for place, (bar, (mean, sd)) in enumerate(zip(bars, spreads, strict=True)):
        color = "C7" if place == baseline else "C0"
        axes.barh(place, mean, xerr=sd, color=color, alpha=0.8, capsize=3)
        ends += [mean - (sd or 0), mean + (sd or 0)]
        if bar.mark is not None:
            axes.plot(bar.mark, place, "D", color="C3", label="published")
            ends.append(bar.mark)
    if baseline is not None:
        axes.axvline(spreads[baseline][0], color="black", ls="--", lw=1, label="baseline")
    low, high = _around(ends)
    axes.set_xlim(low, high)
    axes.set_yticks(range(len(bars)), [bar.label for bar in bars])
    axes.invert_yaxis()
    axes.set(xlabel=across if low <= 0 else f"{across}; the axis does not begin at 0")
    entitle(figure, title)
    axes.grid(axis="x", alpha=0.3)
    _legend(axes)
    figure.savefig(path, dpi=DPI)


def draw_against(points: Sequence[Point], path: Path, title: str, across: str, up: str) -> None:
    """A point for each label on a logarithmic axis `across`; a legend beside tells their names."""
    figure, (axes,) = new_figure(1, 1, panel=(11, 1.5 + max(4.5, 0.22 * len(points))))
    for number, (label, x, values) in enumerate(points):
        mean, sd = mean_and_sd(values)
        marker = MARKERS[number // NUM_COLORS % len(MARKERS)]
        axes.errorbar(
            x, mean, yerr=sd, fmt=marker, color=color_of(number), capsize=3, alpha=0.8, label=label
        )
    axes.set(xscale="log", xlabel=across, ylabel=up)
    entitle(figure, title)
    axes.margins(x=0.1)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=SMALL)
    figure.savefig(path, dpi=DPI)


def color_of(number: int) -> str:
    """The color of a group, a point or a line."""
    return f"C{number % NUM_COLORS}"


def _around(values: Sequence[float]) -> tuple[float, float]:
    """Limits of an axis that shows differences: a fifth of the range, or a point, on both sides."""
    low, high = min(values), max(values)
    room = max(1.0, 0.2 * (high - low))
    return low - room, high + room


def _legend(axes: "Axes") -> None:
    """One entry for each kind of line or mark."""
    handles, labels = axes.get_legend_handles_labels()
    kinds = dict(zip(labels, handles, strict=True))
    if kinds:
        axes.legend(kinds.values(), kinds.keys())
