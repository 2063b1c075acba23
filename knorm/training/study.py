"""Several runs of one recipe: mean and standard deviation of their numbers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from knorm.training.files import read_text, write_text
from knorm.training.folder import COMMAND, RESULT
from knorm.training.run import to_json
from knorm.training.tables import mean_and_sd, spread

Result = Mapping[str, Any]
Key = tuple[str, str, str]
SUMMARY = "seeds.md"


def values_of(results: Sequence[Result]) -> dict[Key, list[float]]:
    """(split, weights, metric) -> its value in every run, in their order."""
    found: dict[Key, list[float]] = {}
    for result in results:
        for row in result["results"]:
            found.setdefault((row["split"], row["weights"], row["metric"]), []).append(row["value"])
    return found


def write_seeds(folder: Path, results: Sequence[Result]) -> str:
    """result.json and seeds.md of runs that differ in their seed alone; returns the latter."""
    found = values_of(results)
    rows = []
    for (split, weights, metric), values in found.items():
        mean, sd = mean_and_sd(values)
        rows.append(
            {
                "split": split,
                "weights": weights,
                "metric": metric,
                "mean": mean,
                "sd": sd,
                "values": values,
            }
        )
    seeds = [result["seed"] for result in results]
    lines = ["| split | weights | metric | mean ± SD | values |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| {row['split']} | {row['weights']} | {row['metric']} | {spread(row['values'], 4)} "
        f"| {', '.join(f'{value:.6g}' for value in row['values'])} |"
        for row in rows
    ]
    command = read_text(folder / COMMAND).strip()
    text = (
        f"# {results[0]['name']}, seeds {', '.join(map(str, seeds))}\n\n"
        + "\n".join(lines)
        + f"\n\nFractions; SD is the sample standard deviation of {len(seeds)} runs.\n\n"
        + f"```\n{command}\n```\n"
    )
    write_text(folder / SUMMARY, text)
    summary = {"name": results[0]["name"], "seeds": seeds, "results": rows}
    write_text(folder / RESULT, to_json(summary, indent=2) + "\n")
    return text
