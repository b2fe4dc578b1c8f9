"""An emulated terminal: written to by a program, it holds the lines that a person would see."""

from __future__ import annotations

import re
import unicodedata
from typing import List

TOKEN = re.compile(r"\x1b\[(\d*)([A-Za-z])|(.)", re.DOTALL)


class Screen:
    """Interprets what bt_migrate writes: line breaks, cursor up, erasing, colours, wide characters.

    A window that is made narrower wraps its lines, as most terminals do.
    """

    def __init__(self, rows: int, columns: int) -> None:
        self.rows, self.columns = rows, columns
        # each a list of cells; a wide character is followed by an empty cell
        self.lines: List[List[str]] = [[]]
        self.row = self.column = 0

    @property
    def text(self) -> str:
        return "\n".join("".join(line).rstrip() for line in self.lines)

    def feed(self, text: str) -> None:
        for number, command, char in TOKEN.findall(text):
            if command:
                self._obey(command, int(number or 1))
            elif char == "\n":
                self._down()
            elif char == "\r":
                self.column = 0
            elif unicodedata.combining(char):
                self.lines[self.row][self.column - 1] += char
            else:
                self._put(char)

    def resize(self, columns: int) -> None:
        at_end = (self.row, self.column)
        assert at_end == (len(self.lines) - 1, len(self.lines[-1])), "the cursor is not at the end"
        self.lines = [
            line[start : start + columns]
            for line in self.lines
            for start in range(0, max(len(line), 1), columns)
        ]
        self.columns = columns
        self.row, self.column = len(self.lines) - 1, len(self.lines[-1])

    def _obey(self, command: str, number: int) -> None:
        line = self.lines[self.row]
        if command == "A":
            assert number <= self.row, "the cursor would leave the window"
            self.row -= number
        elif command in "JK":
            del line[self.column :]
            if command == "J":
                del self.lines[self.row + 1 :]
        else:
            assert command == "m", f"unknown sequence {command}"

    def _put(self, char: str) -> None:
        cells = [char, ""] if unicodedata.east_asian_width(char) in "WF" else [char]
        if self.column + len(cells) > self.columns:
            self._down()
        line = self.lines[self.row]
        line += [" "] * (self.column - len(line))
        line[self.column : self.column + len(cells)] = cells
        self.column += len(cells)

    def _down(self) -> None:
        self.row += 1
        self.column = 0
        if self.row == len(self.lines):
            self.lines.append([])
