"""Evaluate what a run saved; with the defaults this repeats the run's numbers to the last digit.

    python -m segmentation.evaluate runs/scenes/0000
    python -m segmentation.evaluate runs/scenes/0000 --split val --weights last
    python -m segmentation.evaluate RUN --scales 0.75 1 1.25 --flip --crop 512 1024

Prints one line of JSON on standard output, and a table of the classes on standard error.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence

from knorm.training.mistakes import OneLineParser, run_program
from knorm.training.options import add_loading, add_split
from segmentation.inference_options import add_inference


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options, then evaluate; what evaluates is imported between, for it takes seconds."""
    options = parse_options(argv)
    from segmentation.evaluation import carry_out

    carry_out(options)


def parse_options(argv: Sequence[str] | None) -> Namespace:
    """What is to be evaluated."""
    parser = OneLineParser(prog="python -m segmentation.evaluate", description=__doc__)
    add_loading(parser)
    add_split(parser)
    add_inference(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(run_program(main))
