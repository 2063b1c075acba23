"""Finished runs side by side.

    knorm report runs/cifar10-*/ --by model.norm --out docs/results/cifar10-norms
    knorm report runs/digits-knresnet13

Prints a table: for each setting mean and standard deviation over its runs, the best on the
validation split first. With --out it writes OUT.csv, which holds what the runs' own records say,
OUT.png, the curves of all runs, and OUT.md, which is made from OUT.csv and a text beside it,
OUT.head.md, if there is one. It warns where the recipes differ in more than the setting that is
compared.
"""

from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

from knorm.training.compare import compare
from knorm.training.mistakes import OneLineParser


def main(argv: Sequence[str]) -> None:
    """Read the runs, write the table, print it."""
    parser = OneLineParser(
        prog="knorm report", description=__doc__, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "run_dirs", type=Path, nargs="+", help="folders of finished runs, or folders of such"
    )
    parser.add_argument("--by", help="setting such as model.norm; default: all that differ")
    parser.add_argument("--out", type=Path, help="write OUT.csv, OUT.md and OUT.png")
    options = parser.parse_args(argv)
    print(compare(options.run_dirs, options.by, options.out), end="")
