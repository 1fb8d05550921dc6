"""Lines of text for a terminal: wrapped, in columns, and coloured where that is wanted.

May import the standard library. Never knows what a report is.
"""

from __future__ import annotations

import textwrap

RESET = "\x1b[0m"
STYLES = {"bold": "\x1b[1m", "dim": "\x1b[2m", "red": "\x1b[31m", "green": "\x1b[32m", "yellow": "\x1b[33m"}
MIN_WIDTH, MAX_WIDTH = 40, 132
"""What is narrower cannot hold two columns, what is wider cannot be read."""


def printable(text: object) -> str:
    """`text` without what a terminal would obey, or cannot show: a saved report may hold anything."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


class Page:
    """Lines, as wide as `width` and not wider unless a single word is."""

    def __init__(self, width: int = 80, has_colour: bool = False) -> None:
        self.width = max(MIN_WIDTH, min(width, MAX_WIDTH))
        self.has_colour = has_colour
        self.lines: list[str] = []

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def paint(self, text: str, style: str) -> str:
        return f"{STYLES[style]}{text}{RESET}" if self.has_colour and style and text else text

    def blank(self) -> None:
        if self.lines:
            self.lines.append("")

    def heading(self, title: str, more: str = "") -> None:
        """A title behind an empty line, and what there is to say about the whole section."""
        self.blank()
        title += ":" if more else ""
        self.entry(title, more, indent=0, column=len(title) + 1, style="bold")

    def paragraph(self, text: str, indent: int = 0, style: str = "") -> None:
        self.lines += [" " * indent + self.paint(line, style) for line in self._wrap(text, indent)]

    def entry(self, label: str, text: str, *, column: int, indent: int = 2, style: str = "") -> None:
        """`label` in a column of its own, and `text` beside it, or below it where there is no room."""
        label = printable(label)
        margin = indent + column
        fits = len(label) < column and self.width - margin >= MIN_WIDTH // 2
        lines = self._wrap(text, margin if fits else indent + 2)
        margins = [" " * (margin if fits else indent + 2)] * len(lines)
        head = " " * indent + self.paint(label, style)
        if fits and lines:
            margins[0] = head + " " * (column - len(label))
        else:
            self.lines.append(head)
        self.lines += [before + line for before, line in zip(margins, lines)]

    def table(self, rows: list[tuple[str, ...]], styles: list[str], *, styled: int) -> None:
        """Rows in columns, column `styled` in the style of its row. Cells for which there is no room go below."""
        cells = [[printable(cell) for cell in row] for row in rows]
        widths = [max(map(len, column)) + 2 for column in zip(*cells)]
        nfitting = max(n for n in range(1, len(widths) + 1) if n == 1 or sum(widths[:n]) <= self.width)
        for row, style in zip(cells, styles):
            padded = [cell.ljust(width) for cell, width in zip(row, widths)]
            padded[styled] = self.paint(row[styled], style) + padded[styled][len(row[styled]) :]
            self.lines.append("  " + "".join(padded[:nfitting]).rstrip())
            self.lines += ["    " + cell for cell in row[nfitting:] if cell]

    def _wrap(self, text: object, margin: int) -> list[str]:
        return textwrap.wrap(printable(text), self.width - margin, break_long_words=False, break_on_hyphens=False)
