"""Check a submission to the Cityscapes test server, a zip or a folder, before it is sent.

    python -m segmentation.check_submission submission.zip --images data/leftImg8bit/test

What is wrong is printed, a line for each file; the exit code is then 2.
"""

import sys
from argparse import Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

from knorm.training.mistakes import OneLineParser, run_program


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options, then check."""
    options = parse_options(argv)
    from segmentation.submission import check

    check(options.submission, options.images)


def parse_options(argv: Sequence[str] | None) -> Namespace:
    """What is to be checked."""
    parser = OneLineParser(
        prog="python -m segmentation.check_submission",
        description=__doc__,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("submission", type=Path, help="zip, or a folder of what is to be zipped")
    parser.add_argument("--images", type=Path, required=True, help="such as leftImg8bit/test")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(run_program(main))
