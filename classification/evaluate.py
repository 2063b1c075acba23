"""Evaluate what a run saved; with the defaults this repeats the run's numbers to the last digit.

    python -m classification.evaluate runs/digits-knresnet13/0000
    python -m classification.evaluate runs/digits-knresnet13/0000 --split val --weights last
    python -m classification.evaluate runs/digits-knresnet13/0000 --swap group

Prints one line of JSON on standard output, and the same in words on standard error.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence

from knorm.training.mistakes import OneLineParser, run_program
from knorm.training.options import add_loading, add_split


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options, then evaluate; what evaluates is imported between, for it takes seconds."""
    options = parse_options(argv)
    from classification.evaluation import carry_out

    carry_out(options)


def parse_options(argv: Sequence[str] | None) -> Namespace:
    """What is to be evaluated."""
    parser = OneLineParser(prog="python -m classification.evaluate", description=__doc__)
    add_loading(parser)
    add_split(parser)
    parser.add_argument("--test_flip", action="store_true", help="tell top1_flip, too")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(run_program(main))
