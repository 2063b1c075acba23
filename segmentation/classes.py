"""The classes that pixels belong to."""

from collections.abc import Mapping
from dataclasses import dataclass

IGNORE = 255  # the label of pixels that belong to no class


@dataclass(frozen=True)
class Classes:
    """Classes in the order of their train numbers."""

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    categories: tuple[str, ...]
    """one for each class, or none at all"""
    to_file: Mapping[int, int]
    """train number -> value in a label file"""
