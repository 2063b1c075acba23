"""Write a submission to the Cityscapes test server, and check one before it is sent.

    python -m segmentation.submit RUN_DIR --images data/leftImg8bit/test --out submission.zip
    python -m segmentation.submit --images data/leftImg8bit/test --check submission.zip

The first writes a zip with a PNG of label ids for each image, and checks it too. What is wrong with
a zip or a folder is printed, a line for each file.
"""

import sys
from argparse import Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

from knorm.training.folder import BEST, LAST
from knorm.training.mistakes import OneLineParser, UserMistakeError, run_program
from segmentation.inference_options import add_inference_options


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options, then write or check; what does it is imported between: it takes seconds."""
    options = parse_options(argv)
    from segmentation.evaluation import load_predictor  # pyright: ignore[reportMissingImports]
    from segmentation.submission import carry_out

    carry_out(options, load_predictor)


def parse_options(argv: Sequence[str] | None) -> Namespace:
    """What is to be written or checked."""
    parser = OneLineParser(
        prog="python -m segmentation.submit",
        description=__doc__,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_dir", type=Path, nargs="?", help="folder of a run")
    parser.add_argument("--images", type=Path, required=True, help="leftImg8bit folder of a split")
    parser.add_argument("--out", type=Path, default=Path("submission.zip"), help="zip to write")
    parser.add_argument("--check", type=Path, help="zip or folder to check instead of writing one")
    parser.add_argument("--weights", choices=(BEST, LAST), help="best where there are such")
    parser.add_argument("--cpu", action="store_true", help="stay on the CPU")
    add_inference_options(parser)
    options = parser.parse_args(argv)
    if (options.run_dir is None) == (options.check is None):
        raise UserMistakeError("give either the folder of a run, to write, or --check FILE")
    return options


if __name__ == "__main__":
    sys.exit(run_program(main))
