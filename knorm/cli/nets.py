"""What commands about a net share: its arguments, and the net that they ask for."""

import ast
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import nn

from knorm.models import create_model, list_models, model_options
from knorm.training.mistakes import UserMistakeError, check_positive, mistakes_of_the_user


class Usual(NamedTuple):
    """What nets are usually given."""

    image_size: int
    stem: str
    num_classes: int
    name: str


SMALL = Usual(32, "cifar", 10, "CIFAR")
LARGE = Usual(224, "imagenet", 1000, "ImageNet")
STREETS = Usual(512, "imagenet", 19, "Cityscapes")


def usual(image_size: int) -> Usual:
    """The usual stem and classes for images of that size."""
    return SMALL if image_size < 2 * SMALL.image_size else LARGE


def labels_pixels(model: str) -> bool:
    """Whether the net is one for segmentation."""
    return model in list_models(task="segmentation")


def image_size_of(options: Namespace) -> int:
    """The side of the images: as asked for, or usual for the net's task."""
    if options.image_size is not None:
        return options.image_size
    return (STREETS if labels_pixels(options.model) else SMALL).image_size


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments that say which net, and for which images."""
    parser.add_argument("model", help="a name that `knorm models` lists")
    parser.add_argument("--norm", help="kind of all norms; default: the net's own")
    parser.add_argument(
        "--image_size", type=int, help="side of the images; default 32, 512 for segmentation"
    )
    parser.add_argument(
        "--stem", help="default: cifar below 64 pixels, else imagenet; the net's for segmentation"
    )
    parser.add_argument(
        "--num_classes", type=int, help="default: 10 with cifar, else 1000; 19 for segmentation"
    )
    parser.add_argument("--in_chans", type=int, default=3, help="channels of the images; default 3")
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="another of its options"
    )


def net_options(options: Namespace) -> dict[str, Any]:
    """What `create_model` is given."""
    with mistakes_of_the_user():
        check_positive("image_size", image_size_of(options))
        taken = model_options(options.model)
    streets = labels_pixels(options.model)
    size = STREETS if streets else usual(image_size_of(options))
    given: dict[str, Any] = {
        "num_classes": size.num_classes if options.num_classes is None else options.num_classes,
        "in_chans": options.in_chans,
    }
    if options.stem or ("stem" in taken and not streets):
        given["stem"] = options.stem or size.stem
    if options.norm:
        given["norm"] = options.norm
    for text in options.option:
        name, equals, value = text.partition("=")
        if not equals or name in given:
            what = "is given twice" if equals else "takes NAME=VALUE"
            raise UserMistakeError(f"--option {text}: {what}")
        given[name] = _value(value)
    return given


def make_net(model: str, given: dict[str, Any]) -> nn.Module:
    """The net; what cannot be is the user's mistake."""
    with mistakes_of_the_user():
        return create_model(model, **given)


@contextmanager
def too_large_for(image_size: int) -> Iterator[None]:
    """Around a net's passes: what fails there does so because the images are too small for it."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise UserMistakeError(f"image_size {image_size} is too small: {error}") from error


def in_words(given: dict[str, Any]) -> str:
    """`stem cifar  norm kernel`."""
    return "  ".join(f"{name} {value}" for name, value in given.items())


def _value(text: str) -> Any:
    """A number, truth value, mapping ... as Python writes it, else the word."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
