"""The options by which programs change how a net is asked about an image."""

from argparse import ArgumentParser, Namespace
from dataclasses import replace
from typing import Any

from segmentation.inference_config import Inference


def add_inference_options(parser: ArgumentParser) -> None:
    """Options that are None unless they are given."""
    two = {"type": int, "nargs": 2, "metavar": ("HEIGHT", "WIDTH")}
    group = parser.add_argument_group("inference", "instead of what the recipe says")
    group.add_argument("--whole", action="store_true", default=None, help="no sliding windows")
    group.add_argument("--crop", **two, help="sliding windows of this size")
    group.add_argument("--stride", **two, help="from one window to the next; 2/3 of their size")
    group.add_argument("--windows", type=int, help="windows that the net sees at a time")
    group.add_argument("--scales", type=float, nargs="+", help="factors of size to average over")
    group.add_argument("--flip", action="store_true", default=None, help="also mirror images")


def with_options(settings: Inference, options: Namespace) -> Inference:
    """The settings, changed by what was given; a new window size has the usual stride.

    Raises ValueError where they do not go together.
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
    return replace(settings, **given)
