"""Tables as text: cells by column, read as spreadsheets write them, each oddity named by its line.

Commas, semicolons or tabs between the cells, UTF-8 or UTF-16: programs and countries differ. What
could be read in two ways is refused. What is written is shown by a spreadsheet and not computed.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.paths import content_of

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_BOMS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_MAX_BYTES = 1 << 26
_LINE_END = re.compile(r"\r\n|\n|\r")

_FORMULA = ("=", "+", "-", "@")
"""How cells begin that spreadsheets take for formulas; tabs and line ends go anyway."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
"""Characters that command terminals, or end lines."""


@dataclass(frozen=True)
class Row:
    """A row with something in it.

    Attributes:
        line: Number of its first line in the file, from 1.
        cells: What stands in it, stripped, as :func:`original` has it and in Unicode's composed
            form (NFC).
    """

    line: int
    cells: list[str]


@dataclass(frozen=True)
class Table:
    """A table whose columns have names.

    Attributes:
        names: Of the columns, in their order; a nameless one has an empty text.
        rows: All others, of any length.
    """

    names: list[str]
    rows: list[Row]

    def cell(self, row: Row, column: str) -> str:
        """Return what stands in a column; empty if the row ends before it."""
        place = self.names.index(column)
        return row.cells[place] if place < len(row.cells) else ""

    def misfit(self, row: Row) -> str:
        """Say why the cells of a row do not belong to the columns; empty if they do."""
        if len(row.cells) == len(self.names):
            return ""
        return (
            f"line {row.line} has {len(row.cells)} cells, but the first line has "
            f"{len(self.names)}: is a separator, or a decimal comma, too many, or a cell missing?"
        )


def read_table(path: Path, columns: Sequence[str]) -> Table:
    """Read a table.

    Args:
        path: Text; the first line names the columns.
        columns: Which have to be there, in any order and beside any others.

    Raises:
        InputError: If it cannot be read, or one of ``columns`` is missing or there twice.
    """
    rows = list(_rows(_text(path, columns), path))
    names = rows[0].cells if rows else []
    if missing := [column for column in columns if column not in names]:
        shown = ", ".join(names)[:200] or "nothing"
        message = (
            f"{path} is no table with the columns {', '.join(columns)}: it lacks "
            f"{', '.join(missing)}; it has {shown} (between the cells are commas, semicolons or "
            "tabs)"
        )
        raise InputError(message)
    if twice := [column for column in columns if names.count(column) > 1]:
        message = (
            f"{path} has the column {twice[0]} {names.count(twice[0])} times: keep one of them"
        )
        raise InputError(message)
    return Table(names, rows[1:])


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Return a table as CSV with a header; text that came from outside is harmless in it.

    Args:
        columns: In their order; other entries of rows are left out.
        rows: Values by column; what is None or missing becomes an empty cell.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([cell(column) for column in columns])
    for row in rows:
        writer.writerow([cell(row.get(column)) for column in columns])
    return text.getvalue()


def cell(value: Any) -> Any:
    """Return a value for a cell: numbers as they are, text on one line and never a formula.

    A formula gets an apostrophe before it, by which spreadsheets know text. :func:`original` takes
    it away again.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        return value
    text = one_line(value)
    # a sign alone means that there is no value, and a number is one
    if text.startswith(_FORMULA) and len(text) > 1 and not _is_number(text):
        return f"'{text}"
    return text


def original(text: str) -> str:
    """Return the text that :func:`cell` was given, up to control characters."""
    return text[1:] if text.startswith("'") and cell(text[1:]) == text else text


def one_line(text: str) -> str:
    """Return text without control characters: names of files may hold escape sequences."""
    return _CONTROL.sub(" ", text).strip()


def _text(path: Path, columns: Sequence[str]) -> str:
    """Return the text of a table, whichever way a spreadsheet has encoded it."""
    try:
        size = path.stat().st_size
        data = content_of(path) if size <= _MAX_BYTES else b""
    except OSError as error:
        message = (
            f"cannot read {path}, the table with the columns {', '.join(columns)}: {error.strerror}"
        )
        raise InputError(message) from error
    if size > _MAX_BYTES:
        message = f"{path} has {size >> 20} MB: it is no table with a row a case"
        raise InputError(message)
    mark = next((mark for mark in _BOMS if data.startswith(mark)), b"")
    try:
        text = data[len(mark) :].decode(_BOMS.get(mark, "utf-8"))
    except UnicodeDecodeError as error:
        line = data[: len(mark) + error.start].count(b"\n") + 1
        message = f"cannot read {path}: line {line} is no UTF-8 text; save it as 'CSV UTF-8'"
        raise InputError(message) from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        message = f"{path}: line {line} has a NUL character; save the table anew as 'CSV UTF-8'"
        raise InputError(message)
    return text


def _rows(text: str, path: Path) -> Iterator[Row]:
    """Return the rows with something in them."""
    separator, skipped = "", 0
    if marked := re.match(r"(?i)sep=(.)(?:\r\n|\n|\r)", text):
        # how spreadsheets are told the separator
        separator, skipped, text = marked[1], 1, text[marked.end() :]
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=separator or _separator(text),
        skipinitialspace=True,
        strict=True,
    )
    line = 1 + skipped
    try:
        for cells in reader:
            stripped = [unicodedata.normalize("NFC", original(c.strip())) for c in cells]
            if any(stripped):
                yield Row(line, stripped)
            line = reader.line_num + 1 + skipped
    except csv.Error as error:
        endless = "unexpected end" in str(error) or "field limit" in str(error)
        reason = "a quotation mark has no end" if endless else str(error)
        message = f"{path}: the row that begins in line {line} cannot be read: {reason}"
        raise InputError(message) from error


def _separator(text: str) -> str:
    """Return what lies between the cells of the first line that has some."""
    first = next((line for line in _LINE_END.split(text) if line.strip()), "")
    return max(_SEPARATORS, key=first.count)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
