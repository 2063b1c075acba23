"""Tables as text: Markdown for files, aligned columns for a terminal."""

from collections.abc import Sequence

Cells = Sequence[str]


def markdown(head: Cells, rows: Sequence[Cells]) -> str:
    """A Markdown table, without a line break at its end."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def columns(head: Cells, rows: Sequence[Cells], *, left: int = 1) -> str:
    """Columns two spaces apart: the first `left` ones begin and the others end below each other."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = []
    for cells in (head, *rows):
        padded = [
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)
