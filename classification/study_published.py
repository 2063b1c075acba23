"""Published numbers beside which the rows of a study stand: lines of a CSV, see `METRIC`."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from knorm.choices import nearest
from knorm.training.mistakes import UserMistakeError

PUBLISHED = Path(__file__).parent / "published"
METRIC, VALUE = "metric", "value"
"""columns; the others tell which net, data set and setting a line is of"""


@dataclass(frozen=True)
class Standing:
    """What is published of a row."""

    name: str
    """what the publication calls it"""
    percent: float
    parameters: int | None = None


@dataclass(frozen=True)
class PublishedTable:
    """A published table and which of its numbers are compared."""

    lines: Sequence[Mapping[str, str]]
    file: str
    metric: str
    """of the accuracy"""
    factor: float = 1.0
    """makes it percent"""
    parameters: str | None = None
    """metric of the parameter count, where that is published too"""
    where: Mapping[str, Any] = field(default_factory=dict)
    """what all lines of the study have in common"""

    def standing(self, wanted: Mapping[str, Any]) -> Standing:
        """The published numbers of the one line that a row names.

        Raises:
            ValueError: there is no such line, or there are several.
        """
        parameters = None
        if self.parameters is not None:
            parameters = int(self._value(wanted, self.parameters))
        return Standing(
            name=", ".join(map(str, wanted.values())),
            percent=self.factor * self._value(wanted, self.metric),
            parameters=parameters,
        )

    def _value(self, wanted: Mapping[str, Any], metric: str) -> float:
        lines = list(self.lines)
        for column, value in {METRIC: metric, **self.where, **wanted}.items():
            if column not in self.lines[0]:
                hint = nearest(column, self.lines[0])
                raise ValueError(f"{self.file} has no column {column!r}{hint}")
            left = [line for line in lines if line[column] == str(value)]
            if not left:
                known = sorted({line[column] for line in lines})
                hint = nearest(value, known) or f"; there are {', '.join(known)}"
                raise ValueError(f"{self.file} has no such line: {column} {value!r}{hint}")
            lines = left
        if len(lines) > 1:
            differing = [c for c in lines[0] if len({line[c] for line in lines}) > 1]
            raise ValueError(
                f"{self.file} has {len(lines)} lines of {dict(wanted)}; tell them apart by "
                f"{' or '.join(differing) or 'another column, they are equal'}"
            )
        return float(lines[0][VALUE])


def read_lines(name: str, beside: Path) -> list[dict[str, str]]:
    """The lines of a CSV that lies with the study file or with ours."""
    for file in (beside.parent / name, PUBLISHED / name):
        if file.is_file():
            with file.open(encoding="utf-8", newline="") as text:
                lines = list(csv.DictReader(text))
            if not lines:
                raise UserMistakeError(f"{beside}: published: file {name}: has no lines")
            for column in (METRIC, VALUE):
                if column not in lines[0]:
                    raise UserMistakeError(
                        f"{beside}: published: file {name}: has no column {column}"
                    )
            return lines
    known = sorted(path.name for path in PUBLISHED.glob("*.csv"))
    raise UserMistakeError(f"{beside}: published: file {name}: no such file{nearest(name, known)}")
