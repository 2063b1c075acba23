"""What a person reads after a run: curves.png and report.md."""

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]


def draw_curves(rows: Sequence[Row], path: Path) -> None:
    """One panel per metric with a line per split, and one for the learning rate."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = panels_of(rows)
    figure = Figure(figsize=(4.5 * len(panels), 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    epochs = [row["epoch"] for row in rows]
    for axes, (title, lines) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        for label, column in lines.items():
            axes.plot(epochs, [row[column] for row in rows], marker=".", label=label)
        axes.set(title=title, xlabel="epoch")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=110)


def panels_of(rows: Sequence[Row]) -> dict[str, dict[str, str]]:
    """Metric -> split -> column, from columns named `split.metric`; counts are left out."""
    panels: dict[str, dict[str, str]] = {}
    for column in rows[0]:
        split, dot, metric = column.partition(".")
        if dot and metric not in ("count", "correct"):
            panels.setdefault(metric, {})[split] = column
    return panels | {"learning rate": {"lr": "lr"}}


def write_report(folder: Path, result: Row) -> None:
    """report.md: the run in one page, from its result and the files written at its start."""
    environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    command = (folder / "command.txt").read_text(encoding="utf-8")
    recipe = (folder / "config.yaml").read_text(encoding="utf-8")
    text = f"""# {result["name"]}

{result["epochs"]} epochs, seed {result["seed"]}, {in_time(result["seconds"])} on \
{environment["device"]}, {environment["processes"]} process(es) with \
{environment["threads"]} thread(s) each.

{score_table(result)}

| parameters | MACs per sample | samples/s in training | peak memory |
| --- | --- | --- | --- |
| {result["parameters"]:,} | {result["macs"]:,} | {result["samples_per_second"]:.0f} \
| {result["memory_bytes"] / 2**20:.0f} MiB |

![curves](curves.png)

## Command

```
{command.strip()}
```

## Recipe

```yaml
{recipe.strip()}
```
"""
    (folder / "report.md").write_text(text, encoding="utf-8")


def score_table(result: Row) -> str:
    """Every score with its split, and how the best weights were chosen."""
    rows = [
        "| {split} | {weights} | {metric} | {value:.6g} | {count} |".format_map(row)
        for row in result["results"]
    ]
    best = result["best_epoch"]
    chosen = f"The best weights are those of epoch {best}, chosen on the validation split."
    none = "Without a validation split there are no best weights, only the last."
    head = "| split | weights | metric | value | samples |\n| --- | --- | --- | --- | --- |"
    return "\n".join((head, *rows, "", chosen if best else none))


def in_time(seconds: float) -> str:
    """`0:01:23`."""
    return str(timedelta(seconds=round(seconds)))
