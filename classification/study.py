"""Search the learning rate as the kernel normalization paper does, on the validation split.

    python -m classification.study --config cifar10-knresnet13-small --optim.lr 0.2 --seeds 3

Trains with the recipe's rate, then with half of it, and so on until a rate that beats guessing is
followed by one that scores no higher. A score is the validation top-1 of the last weights, the mean
over the seeds; a rate whose loss leaves all bounds scores nothing. Every rate's folder is a whole
run with its own test numbers, at which the search does not look; study.md tells that of the chosen
rate alone.

Source: Nasirigerdeh et al., TMLR 2024, section 4, where the search starts at 0.2.
"""

import sys
from collections.abc import Sequence

from knorm.training.mistakes import run_program


def main(argv: Sequence[str] | None = None) -> None:
    """Read the recipe, then search; what searches is imported between, for it takes seconds."""
    from classification.config import Search, parse_recipe

    argv = sys.argv[1:] if argv is None else argv
    search = parse_recipe(argv, Search, prog="python -m classification.study", about=__doc__)
    from classification.search import carry_out

    carry_out(search, argv)


if __name__ == "__main__":
    sys.exit(run_program(main))
