"""Train a net to classify or to segment images with differential privacy.

    python -m privacy.train
    python -m privacy.train --config mnist-knresnet13 --privacy.epsilon 3 --privacy.delta 1e-5
    python -m privacy.train --config camvid --data.root data/CamVid
    accelerate launch --quiet --config_file launch/cpu2.yaml -m privacy.train

Without arguments: a kernel-normalized net on scikit-learn's digits, nothing to download.
"""

import sys
from collections.abc import Sequence

from knorm.training.mistakes import run_program
from privacy.config import kind_of, parse_recipe


def main(argv: Sequence[str] | None = None) -> None:
    """Read the recipe, then train; what trains is imported between, for it takes seconds."""
    argv = sys.argv[1:] if argv is None else argv
    recipe = parse_recipe(argv, kind_of(argv), about=__doc__)
    from privacy.runs import carry_out

    carry_out(recipe, argv)


if __name__ == "__main__":
    sys.exit(run_program(main))
