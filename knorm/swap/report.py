"""What a swap did to each norm."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Row:
    """What became of one norm."""

    name: str
    """the module's, in the net that was given"""
    was: str
    """its class"""
    became: str
    """the class in its place; "as it was" for a norm that stays"""
    kept: tuple[str, ...] = ()
    """tensors whose values went on, by their names in what was"""
    note: str = ""
    """why it stays, or what else there is to know"""
    added: bool = False
    """it was no norm, but a layer that one was put beside"""

    @property
    def stays(self) -> bool:
        """Whether the norm is the one that was."""
        return self.became == STAYS


STAYS = "as it was"


@dataclass(frozen=True)
class Report:
    """What `swap_norm` did; `str` makes a table of it."""

    kind: str
    """the norm kind that was asked for"""
    rows: tuple[Row, ...]
    """each norm of the net and what else was put in, in the order of definition"""
    parameters_before: int
    parameters_after: int

    def __str__(self) -> str:
        stay, added = (sum(getattr(row, what) for row in self.rows) for what in ("stays", "added"))
        head = (
            f"{self.kind}: {len(self.rows) - stay - added} replaced, {stay} as they were; "
            f"{self.parameters_before:,} -> {self.parameters_after:,} parameters"
        )
        columns = [("module", "was", "became", "kept", "note")]
        columns += [
            (row.name or "(model)", row.was, row.became, ", ".join(row.kept), row.note)
            for row in self.rows
        ]
        widths = [max(map(len, cells)) for cells in zip(*columns, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in columns
        ]
        return "\n".join([head, *lines])


def count_parameters(model: nn.Module) -> int:
    """Elements of all parameters, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def describe(modules: Iterable[nn.Module]) -> str:
    """The classes, in order."""
    return " + ".join(type(module).__name__ for module in modules)


def join_notes(*notes: str) -> str:
    """Those that say something, in one line."""
    return "; ".join(note for note in notes if note)
