"""Train a net to segment images.

    python -m segmentation.train
    python -m segmentation.train --config camvid --data.root data/CamVid --model.norm group
    accelerate launch --quiet --config_file launch/cpu2.yaml -m segmentation.train

Without arguments: a kernel-normalized net on made-up street scenes, nothing to download.
"""

import sys
from collections.abc import Sequence

from knorm.training.mistakes import run_program
from segmentation.config import parse_recipe


def main(argv: Sequence[str] | None = None) -> None:
    """Read the recipe, then train; what trains is imported between, for it takes seconds."""
    argv = sys.argv[1:] if argv is None else argv
    recipe = parse_recipe(argv, about=__doc__)
    from segmentation.runs import carry_out

    carry_out(recipe, argv)


if __name__ == "__main__":
    sys.exit(run_program(main))
