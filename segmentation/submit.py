"""Write a submission to the Cityscapes test server: a zip with a PNG of label ids for each image.

    python -m segmentation.submit RUN_DIR --images data/leftImg8bit/test --out submission.zip

It is checked too, as python -m segmentation.check_submission does it.
"""

import sys
from argparse import Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

from knorm.training.mistakes import OneLineParser, run_program
from knorm.training.options import add_loading
from segmentation.inference_options import add_inference


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options, then write; what does it is imported between, for it takes seconds."""
    options = parse_options(argv)
    from segmentation.submission import carry_out

    carry_out(options)


def parse_options(argv: Sequence[str] | None) -> Namespace:
    """Which net is asked about which images."""
    parser = OneLineParser(
        prog="python -m segmentation.submit",
        description=__doc__,
        formatter_class=RawDescriptionHelpFormatter,
    )
    add_loading(parser)
    parser.add_argument("--images", type=Path, required=True, help="such as leftImg8bit/test")
    parser.add_argument("--out", type=Path, default=Path("submission.zip"), help="zip to write")
    add_inference(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(run_program(main))
