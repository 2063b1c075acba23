"""Train a net to classify images.

    python -m classification.train
    python -m classification.train --config mnist-knresnet13 --optim.lr 0.1
    accelerate launch --quiet --config_file launch/cpu2.yaml -m classification.train

Without arguments: a kernel-normalized net on scikit-learn's digits, nothing to download.
"""

import sys
from collections.abc import Sequence

from knorm.training.mistakes import run_program


def main(argv: Sequence[str] | None = None) -> None:
    """Read the recipe, then train; what trains is imported between, for it takes seconds."""
    from classification.config import parse_recipe

    argv = sys.argv[1:] if argv is None else argv
    recipe = parse_recipe(argv, about=__doc__)
    from classification.runs import carry_out

    carry_out(recipe, argv)


if __name__ == "__main__":
    sys.exit(run_program(main))
