"""Options that programs which read a run's net have in common; torch is not needed for them."""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

from knorm.choices import NORM_KINDS, STATS
from knorm.training.folder import BEST, LAST
from knorm.training.mistakes import OneLineParser

LOADING = ("weights", "eval_stats", "swap", "swap_options", "seed", "cpu")
"""what `knorm.training.loading.load_net` takes besides the folder"""


def add_loading(parser: OneLineParser) -> None:
    """The folder of a run, and what may be other than in the run."""
    parser.add_argument("run_dir", type=Path, help="folder of a run")
    parser.add_argument("--weights", choices=(BEST, LAST), help="best where there are such")
    parser.add_argument("--eval_stats", choices=STATS, help="instead of the recipe's")
    parser.add_argument("--swap", choices=NORM_KINDS, help="norms to evaluate it with instead")
    parser.add_argument("--swap_options", type=mapping, help="for example '{\"fold\": true}'")
    parser.add_argument("--seed", type=int, help="of nets that draw in evaluation (sampled)")
    parser.add_argument("--cpu", action="store_true", help="stay on the CPU")


def add_split(parser: OneLineParser) -> None:
    """Which split is evaluated."""
    parser.add_argument("--split", choices=("val", "test"), default="test")


def loading(options: Namespace) -> dict[str, Any]:
    """What `load_net` takes, of the options."""
    return {name: getattr(options, name) for name in LOADING}


def mapping(text: str) -> dict[str, Any]:
    """Names and values, given as JSON."""
    return dict(json.loads(text))
