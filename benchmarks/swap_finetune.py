"""What does a trained net still know when its norms are swapped, and after some fine-tuning?

    python -m benchmarks.swap_finetune --root data/cifar10 --out docs/results/swap-finetune

Trains a net with batch norm on an image tree, swaps its norms for those of every kind, evaluates
each net at once, and trains each for one more epoch under one recipe, several seeds each. Runs are
kept in --runs, and the same command goes on where it was stopped. Writes OUT.csv, a row for each
fine-tuning, and OUT.md, made from OUT.csv and OUT.head.md if there is one.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from classification import evaluate, train
from knorm.training.compare import read_run, write_table
from knorm.training.mistakes import OneLineParser, run_program
from knorm.training.tables import markdown, spread

Row = Mapping[str, str]

FIRST = ["--config=cifar10-tree-norms", "--model.norm=batch", "--epochs=10"]
THEN = ["--epochs=1", "--optim.lr=0.01", "--optim.clip_norm=1", "--schedule.warmup_epochs=0"]
CASES: dict[str, tuple[str | None, dict[str, Any]]] = {
    "batch, as it was": (None, {}),
    "none, folded": ("none", {"fold": True}),
    "none": ("none", {}),
    "kernel, folded": ("kernel", {"fold": True}),
    "kernel": ("kernel", {}),
    "group": ("group", {}),
    "layer": ("layer", {}),
    "instance": ("instance", {}),
}


KEPT = ("seed", "test.top1", "val.top1", "test.loss", "parameters", "macs", "epochs")
SURROUNDINGS = ("torch", "device", "threads", "processes")


def main() -> None:
    """Train, swap, evaluate, fine-tune; then the table."""
    parser = OneLineParser(prog="python -m benchmarks.swap_finetune", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="the image tree")
    parser.add_argument("--runs", type=Path, default=Path("runs/swap"), help="where runs are kept")
    parser.add_argument("--seeds", type=int, default=3, help="of each fine-tuning")
    parser.add_argument("--limit", type=int, default=15000, help="images of each split at most")
    parser.add_argument("--out", type=Path, required=True, help="OUT.csv and OUT.md are written")
    options = parser.parse_args()
    first = options.runs / "first"
    data = [f"--data.root={options.root}", f"--data.limit={options.limit}"]
    train.main([*FIRST, *data, *in_folder(first)])
    at_once = {case: test_top1(first, case) for case in CASES}
    rows = []
    for seed in range(options.seeds):
        for case in CASES:
            folder = options.runs / f"{case.replace(',', '').replace(' ', '-')}-{seed}"
            fine_tune(first, case, seed, folder)
            rows.append({"norms": case, "at_once.test.top1": at_once[case], **row_of(folder)})
    print(write_table(rows, options.out, render), end="")


def test_top1(first: Path, case: str) -> float:
    """Of the first run's weights, the norms swapped, before any training."""
    kind, swap_options = CASES[case]
    swap = ["--swap", kind, "--swap_options", json.dumps(swap_options)] if kind else []
    text = StringIO()
    with redirect_stdout(text):
        evaluate.main([str(first), *swap])
    return json.loads(text.getvalue())["top1"]


def fine_tune(first: Path, case: str, seed: int, folder: Path) -> None:
    """The run that goes on from the first one's weights."""
    kind, swap_options = CASES[case]
    swap = [f"--model.swap={kind}", f"--model.swap_options={swap_options}"] if kind else []
    config = [f"--config={first}/config.yaml", f"--model.weights={first}"]
    train.main([*config, *swap, *THEN, f"--seed={seed}", *in_folder(folder)])


def in_folder(folder: Path) -> list[str]:
    """Arguments of a run in that folder, begun or not."""
    return [f"--run_dir={folder}", "--resume=auto"]


def row_of(folder: Path) -> dict[str, Any]:
    """What the run tells, without the time: other jobs may have run beside it."""
    row = read_run(folder).row
    return {name: row[name] for name in (*KEPT, *SURROUNDINGS)}


def render(rows: Sequence[Row], head: str = "") -> str:
    """Markdown: a line for each case, mean and deviation over the seeds; all from the rows."""
    lines = []
    for case in dict.fromkeys(row["norms"] for row in rows):
        members = [row for row in rows if row["norms"] == case]
        at_once, *tuned = (
            spread([100 * float(row[column]) for row in chosen], 2)
            for column, chosen in (
                ("at_once.test.top1", members[:1]),
                ("test.top1", members),
                ("val.top1", members),
            )
        )
        loss = spread([float(row["test.loss"]) for row in members], 4)
        lines.append([case, at_once, *tuned, loss, f"{int(members[0]['parameters']):,}"])
    one, seeds = rows[0], sorted({row["seed"] for row in rows})
    after = f"after {one['epochs']} epoch{'s' * (one['epochs'] != '1')}"
    columns = [
        "norms",
        "swapped: test top-1 %",
        f"{after}: test top-1 %",
        "val top-1 %",
        "test loss",
        "parameters",
    ]
    spoken = "Mean ± standard deviation over the fine-tunings' seeds" if seeds[1:] else "One seed,"
    foot = (
        f"{spoken} {', '.join(seeds)}; last weights. "
        f"{one['device']}, {one['processes']} process(es) of {one['threads']} thread(s), "
        f"torch {one['torch']}."
    )
    parts = (head.strip(), markdown(columns, lines), foot)
    return "\n\n".join(part for part in parts if part) + "\n"


if __name__ == "__main__":
    sys.exit(run_program(main))
