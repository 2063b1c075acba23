"""Studies: many recipes side by side; and the search of a learning rate.

    python -m classification.study run tricks --budget small
    python -m classification.study status tricks --budget small
    python -m classification.study report tricks --budget small --out docs/results/tricks
    python -m classification.study --config cifar10-knresnet13-small --optim.lr 0.2 --seeds 3

A study is a file of `classification/studies`: rows of settings, seeds, published numbers beside
them (see `classification.study_file`). `run` trains what is missing, each run an ordinary folder
RUN_DIR/STUDY/ROW/seed-N; finished ones stay, one that was stopped goes on, one that fails does not
stop the rest, and several terminals may work on one study. `status` tells how far it came. `report`
makes tables and pictures of the records of finished runs. Options of recipes (--optim.lr 0.1) win
over the file in all rows.

Without run, status or report the learning rate is searched as the kernel normalization paper does,
on the validation split: with the recipe's rate, then with half of it, and so on until a rate that
beats guessing is followed by one that scores no higher. A score is the validation top-1 of the last
weights, the mean over the seeds; a rate whose loss leaves all bounds scores nothing. Every rate's
folder is a whole run with its own test numbers, at which the search does not look; study.md tells
that of the chosen rate alone.

Source: Nasirigerdeh et al., TMLR 2024, section 4, where the search starts at 0.2.
"""

import sys
from collections.abc import Sequence

from knorm.training.mistakes import run_program


def main(argv: Sequence[str] | None = None) -> None:
    """Read what is asked for, then do it; what trains is imported between, for it takes seconds."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and not argv[0].startswith("-"):
        studies(argv)
        return
    from classification.config import Search, parse_recipe

    search = parse_recipe(argv, Search, prog="python -m classification.study", about=__doc__)
    from classification.search import carry_out

    carry_out(search, argv)


def studies(argv: Sequence[str]) -> None:
    """Run, status and report."""
    from classification.study_options import parse

    asked = parse(argv, __doc__ or "")
    if asked.command == "run":
        from classification.study_run import carry_out

        carry_out(asked, argv)
    elif asked.command == "status":
        from classification.study_status import status

        print(status(asked.study, asked.folder))
    else:
        from classification.study_report import report

        print(report(asked.study, asked.folder, asked.out), end="")


if __name__ == "__main__":
    sys.exit(run_program(main))
