"""Ship the net of a run: as an ONNX file, or as a folder or repository of the Hugging Face hub.

    python -m classification.export runs/digits-knresnet13/0000               # model.onnx in it
    python -m classification.export RUN_DIR --out net.onnx --weights last
    python -m classification.export RUN_DIR --hub_folder DIR                  # or --push user/name

What is written is the net as it is evaluated, in float32, for any number of images. It is loaded
again and given a few test images: ONNX logits may differ by 1e-4, those of the hub not at all. The
scaling of images is not in the net but in the file's metadata, in config.json and on the card.
"""

import sys
from argparse import Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

from knorm.choices import STATS
from knorm.training.folder import BEST, LAST
from knorm.training.mistakes import OneLineParser, run_program


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options, then export; what exports is imported between, for it takes seconds."""
    options = parse_options(argv)
    from classification.exporting import carry_out

    carry_out(options)


def parse_options(argv: Sequence[str] | None) -> Namespace:
    """What is to be exported, and where to."""
    parser = OneLineParser(
        prog="python -m classification.export",
        description=__doc__,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_dir", type=Path, help="folder of a run")
    parser.add_argument("--out", type=Path, help="ONNX file; default: model.onnx in the run folder")
    parser.add_argument("--weights", choices=(BEST, LAST), help="best where there are such")
    parser.add_argument("--eval_stats", choices=STATS, help="instead of the recipe's")
    parser.add_argument("--hub_folder", type=Path, help="new folder as of a hub repository")
    parser.add_argument("--push", metavar="USER/NAME", help="hub repository to push to")
    options = parser.parse_args(argv)
    if not (options.out or options.hub_folder or options.push):
        options.out = options.run_dir / "model.onnx"
    return options


if __name__ == "__main__":
    sys.exit(run_program(main))
