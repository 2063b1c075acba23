"""Which statistics evaluate a kernel-normalized net best: expected, plain or sampled?

    python -m benchmarks.eval_statistics RUN_DIR ... --out docs/results/eval-statistics

Takes finished runs of `classification.train` and evaluates their last weights on the test split
three ways; "sampled" several times, since it draws. Writes OUT.csv, a row for each evaluation, and
OUT.md, made from OUT.csv and OUT.head.md if there is one.
"""

import csv
import statistics
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jsonargparse import auto_cli

from classification.data import load_data
from classification.evaluate import evaluate_split, load_net
from classification.task import Classification
from knorm.kernel.ops import STATS
from knorm.training.launch import start

Row = Mapping[str, str]


def evaluate_run(run_dir: Path, sampled_seeds: int) -> list[dict[str, object]]:
    """Rows of one run: each statistics, "sampled" with several seeds."""
    rows, data = [], None
    for stats in STATS:
        for seed in range(sampled_seeds if stats == "sampled" else 1):
            options = Namespace(
                run_dir=run_dir, weights="last", eval_stats=stats, seed=seed, cpu=True
            )
            recipe, net, state = load_net(options)
            if data is None:
                moments = (torch.tensor(state[name])[:, None, None] for name in ("mean", "std"))
                data = load_data(recipe, start(recipe.launch), statistics=tuple(moments))
            task = Classification(recipe.loss, len(data.classes))
            values = evaluate_split(net, data, task, "test", recipe)
            numbers = task.summary(values, data.labels("test"))
            rows.append(
                {
                    "data": Path(recipe.data.root).name
                    if recipe.data.name == "imagefolder"
                    else recipe.data.name,
                    "net": recipe.model.name,
                    "dropout_p": recipe.model.dropout_p,
                    "train_seed": state["seed"],
                    "stats": stats,
                    "eval_seed": seed if stats == "sampled" else "",
                    "test.top1": numbers["top1"],
                    "test.loss": numbers["loss"],
                    "count": numbers["count"],
                    "torch": torch.__version__,
                }
            )
    return rows


def render(rows: Sequence[Row], head: str = "") -> str:
    """Markdown: for each data set and statistics, mean and deviation over the trained nets."""
    lines = ["| data | nets | statistics | test top-1 % | test loss | spread of one net's draws |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for data in dict.fromkeys(row["data"] for row in rows):
        of_data = [row for row in rows if row["data"] == data]
        seeds = list(dict.fromkeys(row["train_seed"] for row in of_data))
        for stats in dict.fromkeys(row["stats"] for row in of_data):
            nets = [
                [r for r in of_data if r["stats"] == stats and r["train_seed"] == seed]
                for seed in seeds
            ]
            top1 = [[100 * float(r["test.top1"]) for r in net] for net in nets]
            loss = [statistics.fmean(float(r["test.loss"]) for r in net) for net in nets]
            accuracy = [statistics.fmean(net) for net in top1]
            draws = [statistics.stdev(net) for net in top1 if len(net) > 1]
            spread = f"{statistics.fmean(draws):.2f}" if draws else "0, deterministic"
            lines.append(
                f"| {data} | {len(seeds)} | `{stats}` | {_mean_sd(accuracy, 2)} "
                f"| {_mean_sd(loss, 4)} | {spread} |"
            )
    foot = (
        "Mean ± standard deviation over nets trained with different seeds, last weights, "
        f"torch {rows[0]['torch']}."
    )
    return "\n\n".join(part for part in (head.strip(), "\n".join(lines), foot) if part) + "\n"


def _mean_sd(values: Sequence[float], digits: int) -> str:
    text = f"{statistics.fmean(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {statistics.stdev(values):.{digits}f}"


def main(run_dirs: list[Path], out: Path, sampled_seeds: int = 3) -> None:
    """Evaluate the runs, write the rows and the table, print the table."""
    rows = [row for run_dir in run_dirs for row in evaluate_run(run_dir, sampled_seeds)]
    path, head = Path(f"{out}.csv"), Path(f"{out}.head.md")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    with path.open(encoding="utf-8", newline="") as file:
        text = render(list(csv.DictReader(file)), head.read_text("utf-8") if head.is_file() else "")
    Path(f"{out}.md").write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
