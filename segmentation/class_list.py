"""The class list of masks of one's own: a text file, one value a line.

    # value in the masks, name, color in pictures (may be left out)
    0   background
    1   traffic light  #faaa1e
    255 ignored

Classes are numbered in the order of the lines. `ignored` is no class: pixels of such values do not
count. Where no line says it, the value 255 is ignored.
"""

import re

from knorm.training.mistakes import UserMistakeError
from segmentation.classes import IGNORE, MOST_CLASSES, Classes, Color

IGNORED = "ignored"
LINE = re.compile(r"(\d+)\s+([^#]+?)(?:\s+#([0-9a-fA-F]{6}))?")


def read_class_list(path: str) -> Classes:
    """The classes of the file; a mistake in it is told with file and line."""
    names: list[str] = []
    colors: list[Color] = []
    file_values: dict[int, int] = {}
    for place, line in _lines(path):
        found = LINE.fullmatch(line)
        if found is None:
            raise UserMistakeError(f"{place}: a line is `value name #rrggbb`, got {line!r}")
        value, name = int(found[1]), found[2]
        if value > 255 or value in file_values:
            rule = "given twice" if value in file_values else "not between 0 and 255"
            raise UserMistakeError(f"{place}: the value {value} is {rule}")
        if name in names:
            raise UserMistakeError(f"{place}: the class {name!r} is given twice")
        file_values[value] = IGNORE if name == IGNORED else len(names)
        if name != IGNORED:
            colors.append(_color(found[3]) if found[3] else drawn_color(len(names)))
            names.append(name)
    if not 2 <= len(names) <= MOST_CLASSES:
        raise UserMistakeError(f"{path}: {len(names)} classes; it takes 2 to {MOST_CLASSES}")
    if IGNORE not in file_values.values():
        file_values.setdefault(IGNORE, IGNORE)
    return Classes(tuple(names), tuple(colors), (), file_values)


def _lines(path: str) -> list[tuple[str, str]]:
    """(where it stands, what it says) of the lines that say something."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.strip() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no text in UTF-8"
        raise UserMistakeError(f"data.pairs.classes {path}: {reason}") from error
    return [
        (f"{path}, line {number}", line)
        for number, line in enumerate(lines, start=1)
        if line and not line.startswith("#")
    ]


def _color(digits: str) -> Color:
    red, green, blue = bytes.fromhex(digits)
    return red, green, blue


def drawn_color(number: int) -> Color:
    """A color for class `number`: Pascal VOC's, without its black."""
    red, green, blue, rest = 0, 0, 0, number + 1
    for bit in range(7, -1, -1):
        red, green, blue = (
            old | (rest >> channel & 1) << bit for channel, old in enumerate((red, green, blue))
        )
        rest >>= 3
    return red, green, blue
