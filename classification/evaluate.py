"""Evaluate what a run saved; with the defaults this repeats the run's numbers to the last digit.

    python -m classification.evaluate runs/digits-knresnet13/0000
    python -m classification.evaluate runs/digits-knresnet13/0000 --split val --weights last
    python -m classification.evaluate runs/digits-knresnet13/0000 --swap group

Prints one line of JSON on standard output, and the same in words on standard error.
"""

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from knorm.choices import NORM_KINDS, STATS
from knorm.training.folder import BEST, LAST
from knorm.training.mistakes import OneLineParser, run_program


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options, then evaluate; what evaluates is imported between, for it takes seconds."""
    options = parse_options(argv)
    from classification.evaluation import carry_out

    carry_out(options)


def parse_options(argv: Sequence[str] | None) -> Namespace:
    """What is to be evaluated."""
    parser = OneLineParser(prog="python -m classification.evaluate", description=__doc__)
    parser.add_argument("run_dir", type=Path, help="folder of a run")
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--weights", choices=(BEST, LAST), help="best where there are such")
    parser.add_argument("--eval_stats", choices=STATS, help="instead of the recipe's")
    parser.add_argument("--swap", choices=NORM_KINDS, help="norms to evaluate it with instead")
    parser.add_argument("--swap_options", type=mapping, help="for example '{\"fold\": true}'")
    parser.add_argument("--seed", type=int, help="of nets that draw in evaluation (sampled)")
    parser.add_argument("--test_flip", action="store_true", help="tell top1_flip, too")
    parser.add_argument("--cpu", action="store_true", help="stay on the CPU")
    return parser.parse_args(argv)


def mapping(text: str) -> dict[str, Any]:
    """Names and values, given as JSON."""
    return dict(json.loads(text))


if __name__ == "__main__":
    sys.exit(run_program(main))
