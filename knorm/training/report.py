"""report.md: what a person reads after a run."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from math import isnan
from pathlib import Path
from typing import Any

from knorm.training.files import read_text
from knorm.training.folder import COMMAND, CONFIG, read_environment
from knorm.training.tables import markdown

Row = Mapping[str, Any]

MOST_CLASSES = 100  # in the table; result.json has all
PICTURES = {
    "examples.png": "Examples",
    "curves.png": "Curves",
    "iou.png": "IoU of the classes",
    "confusion.png": "Confusion",
}


def write_report(folder: Path, result: Row) -> None:
    """The run in one page, from its result and the files that are in its folder."""
    environment = read_environment(folder)
    command, recipe = read_text(folder / COMMAND), read_text(folder / CONFIG)
    sections = {
        "Warnings": "\n".join(f"- {line}" for line in result.get("warnings", ())),
        "Numbers": score_table(result),
        "Cost": cost_table(result),
        **{
            title: f"![{title.lower()}]({name})"
            for name, title in PICTURES.items()
            if (folder / name).is_file()
        },
        "Classes": class_table(result),
        "Command": f"```\n{command.strip()}\n```",
        "Surroundings": surroundings(environment),
        "Recipe": f"```yaml\n{recipe.strip()}\n```",
    }
    head = (
        f"# {result['name']}\n\n{result['epochs']} epochs, seed {result['seed']}, "
        f"{in_time(result['seconds'])} on {environment['device']}, "
        f"{environment['processes']} process(es) with {environment['threads']} thread(s) each."
    )
    parts = [head, *(f"## {title}\n\n{text}" for title, text in sections.items() if text)]
    (folder / "report.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def score_table(result: Row) -> str:
    """Every score with its split, and how the best weights were chosen."""
    rows = [
        [row["split"], row["weights"], row["metric"], _digits(row["value"]), str(row["count"])]
        for row in result["results"]
    ]
    best = result["best_epoch"]
    chosen = f"The best weights are those of epoch {best}, chosen on the validation split."
    none = "Without a validation split there are no best weights, only the last."
    table = markdown(["split", "weights", "metric", "value", "samples"], rows)
    return f"{table}\n\n{chosen if best else none}"


def cost_table(result: Row) -> str:
    """Size, work, time and memory."""
    return markdown(
        ["", ""],
        [
            ["parameters", f"{result['parameters']:,}"],
            ["MACs per sample (convolutions and products)", f"{result['macs']:,}"],
            ["mult-adds per sample (as torchinfo counts)", f"{result['mult_adds']:,}"],
            ["training", in_time(result["training_seconds"])],
            ["samples/s in training", f"{result['samples_per_second']:.0f}"],
            ["part of it spent waiting for data", f"{100 * result['data_wait']:.1f} %"],
            ["peak memory", f"{result['memory_bytes'] / 2**20:.0f} MiB"],
        ],
    )


CELLS: dict[str, tuple[str, Callable[[Row], str]]] = {  # of a class: key -> heading, text
    "class": ("class", lambda row: row["class"].replace("|", r"\|")),
    "iou": ("IoU %", lambda row: _percent(row["iou"])),
    "accuracy": ("accuracy %", lambda row: _percent(row["accuracy"])),
    "correct": ("correct", lambda row: str(row["correct"])),
    "count": ("samples", lambda row: str(row["count"])),
    "pixels": ("pixels", lambda row: f"{row['pixels']:,}"),
    "taken_for": (
        "most taken for",
        lambda row: f"{row['taken_for']} ({row['taken_for_count']})" if row["taken_for"] else "-",
    ),
}


def class_table(result: Row) -> str:
    """A line for each class, the worst first; nothing where there is none."""
    per_class = result.get("per_class")
    if not per_class:
        return ""
    cells = {key: cell for key, cell in CELLS.items() if key in per_class["classes"][0]}
    first = "iou" if "iou" in cells else "accuracy"
    rows = sorted(per_class["classes"], key=lambda row: _rank(row[first]))
    lines = [[text(row) for _, text in cells.values()] for row in rows[:MOST_CLASSES]]
    table = markdown([heading for heading, _ in cells.values()], lines)
    about = f"{per_class['split']} split, {per_class['weights']} weights, the worst first."
    more = f" The worst {MOST_CLASSES} of {len(rows)}; all are in result.json."
    return f"{about}{more if len(rows) > MOST_CLASSES else ''}\n\n{table}"


def surroundings(environment: Row) -> str:
    """Versions, and the state of the source tree."""
    git = environment["git"]
    commit = "no git commit"
    if git:
        commit = f"git commit {git['commit']}{', with changes' if git['changed'] else ''}"
    versions = [f"{name} {version}" for name, version in environment["versions"].items()]
    return f"{commit}; python {environment['python']}, {', '.join(versions)}"


def in_time(seconds: float) -> str:
    """`0:01:23`."""
    return str(timedelta(seconds=round(seconds)))


def _digits(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.6g}"


def _percent(part: float | None) -> str:
    return "-" if part is None or isnan(part) else f"{100 * part:.1f}"


def _rank(part: float | None) -> tuple[bool, float]:
    """For sorting: those that are no number last."""
    return (True, 0.0) if part is None or isnan(part) else (False, part)
