"""How a net is asked about an image, as options of programs that read a run's net."""

from argparse import Namespace
from dataclasses import replace
from typing import Any

from knorm.training.mistakes import OneLineParser
from segmentation.inference_config import Inference


def add_inference(parser: OneLineParser) -> None:
    """What is not given stays as in the run."""
    sides = ("HEIGHT", "WIDTH")
    parser.add_argument("--whole", action="store_true", help="no sliding windows")
    parser.add_argument("--crop", type=int, nargs=2, metavar=sides, help="of sliding windows")
    parser.add_argument("--stride", type=int, nargs=2, metavar=sides, help="between windows")
    parser.add_argument("--windows", type=int, help="windows that the net sees at a time")
    parser.add_argument("--scales", type=float, nargs="+", help="factors of size, averaged")
    parser.add_argument("--flip", action="store_true", default=None, help="mirror images, too")


def inference_of(options: Namespace, run: Inference) -> Inference:
    """The run's settings with what the options give; windows of a new size have the usual stride.

    Raises:
        ValueError: they do not go together.
    """
    if options.whole and (options.crop or options.stride):
        raise ValueError("--whole is without windows, so without --crop and --stride; give either")
    names = ("crop", "stride", "windows", "scales", "flip")
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name in names
        if (value := getattr(options, name)) is not None
    }
    if options.whole or "crop" in given:
        given = {"crop": None, "stride": None} | given
    return replace(run, **given)
