"""Ask the net of a run about images: maps of classes, and the images under the classes' colors.

    python -m segmentation.predict runs/scenes-fcn/0000 photo.jpg
    python -m segmentation.predict RUN_DIR FOLDER --out predictions --scales 0.75 1 1.25 --flip

OUT/masks gets a PNG for each image, of its size and with its name: pixels are train numbers 0, 1,
..., and a palette shows them in the colors of the classes. OUT/overlays gets the images themselves,
covered by these colors in part.
"""

import sys
from argparse import Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

from knorm.training.mistakes import OneLineParser, check_range, mistakes_of_the_user, run_program
from knorm.training.options import add_loading
from segmentation.inference_options import add_inference


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options, then predict; what predicts is imported between, for it takes seconds."""
    options = parse_options(argv)
    from segmentation.prediction import carry_out

    carry_out(options)


def parse_options(argv: Sequence[str] | None) -> Namespace:
    """Which net is asked about what."""
    parser = OneLineParser(
        prog="python -m segmentation.predict",
        description=__doc__,
        formatter_class=RawDescriptionHelpFormatter,
    )
    add_loading(parser)
    parser.add_argument("images", type=Path, nargs="+", help="image files, or folders of them")
    parser.add_argument("--out", type=Path, default=Path("predictions"), help="folder to write to")
    parser.add_argument("--alpha", type=float, default=0.5, help="how much colors cover, 0 to 1")
    add_inference(parser)
    options = parser.parse_args(argv)
    with mistakes_of_the_user():
        check_range("--alpha", options.alpha, 0, 1)
    return options


if __name__ == "__main__":
    sys.exit(run_program(main))
