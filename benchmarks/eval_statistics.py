"""Which statistics evaluate a kernel-normalized net best: expected, plain or sampled?

    python -m benchmarks.eval_statistics RUN_DIR ... --out docs/results/eval-statistics

Takes finished runs of `classification.train` and evaluates their last weights on the test split
three ways; "sampled" several times, since it draws. Writes OUT.csv, a row for each evaluation, and
OUT.md, made from OUT.csv and OUT.head.md if there is one.
"""

import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from classification.data import load_data
from classification.evaluation import load_net
from classification.work import ClassificationWork
from knorm.choices import STATS
from knorm.training.compare import write_table
from knorm.training.launch import start
from knorm.training.mistakes import OneLineParser, run_program
from knorm.training.tables import spread

Row = Mapping[str, str]


def evaluate_run(run_dir: Path, sampled_seeds: int) -> list[dict[str, object]]:
    """Rows of one run: each statistics, "sampled" with several seeds."""
    rows, data = [], None
    for stats in STATS:
        for seed in range(sampled_seeds if stats == "sampled" else 1):
            loaded = load_net(run_dir, weights="last", eval_stats=stats, seed=seed, cpu=True)
            recipe, state = loaded.recipe, loaded.state
            if data is None:
                data = load_data(recipe, start(recipe.launch), statistics=loaded.statistics)
            numbers = ClassificationWork(recipe, data).evaluate(loaded.net, "test").numbers
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
            of_draws = f"{statistics.fmean(draws):.2f}" if draws else "0, deterministic"
            lines.append(
                f"| {data} | {len(seeds)} | `{stats}` | {spread(accuracy, 2)} "
                f"| {spread(loss, 4)} | {of_draws} |"
            )
    foot = (
        "Mean ± standard deviation over nets trained with different seeds, last weights, "
        f"torch {rows[0]['torch']}."
    )
    return "\n\n".join(part for part in (head.strip(), "\n".join(lines), foot) if part) + "\n"


def main() -> None:
    """Evaluate the runs, write the rows and the table, print the table."""
    parser = OneLineParser(prog="python -m benchmarks.eval_statistics", description=__doc__)
    parser.add_argument("run_dirs", type=Path, nargs="+", help="folders of finished runs")
    parser.add_argument("--sampled_seeds", type=int, default=3, help="draws of each net")
    parser.add_argument("--out", type=Path, required=True, help="OUT.csv and OUT.md are written")
    options = parser.parse_args()
    rows = [
        row for folder in options.run_dirs for row in evaluate_run(folder, options.sampled_seeds)
    ]
    print(write_table(rows, options.out, render), end="")


if __name__ == "__main__":
    sys.exit(run_program(main))
