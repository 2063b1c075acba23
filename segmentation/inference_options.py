"""How a net is asked about an image, as options of programs that read a run's net."""

from argparse import Namespace
from dataclasses import replace

from knorm.training.mistakes import OneLineParser
from segmentation.inference_config import Inference


def add_inference(parser: OneLineParser) -> None:
    """What is not given stays as in the run."""
    sides = ("HEIGHT", "WIDTH")
    parser.add_argument("--crop", type=int, nargs=2, metavar=sides, help="of sliding windows")
    parser.add_argument("--stride", type=int, nargs=2, metavar=sides, help="between windows")
    parser.add_argument("--windows", type=int, help="windows that the net sees at a time")
    parser.add_argument("--scales", type=float, nargs="+", help="factors of size, averaged")
    parser.add_argument("--flip", action="store_true", default=None, help="mirror images, too")


def inference_of(options: Namespace, run: Inference) -> Inference:
    """The run's settings with what the options give.

    Raises:
        ValueError: they do not go together.
    """
    names = ("crop", "stride", "windows", "scales", "flip")
    given = {name: getattr(options, name) for name in names}
    given = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in given.items()
        if value is not None
    }
    return replace(run, **given)
