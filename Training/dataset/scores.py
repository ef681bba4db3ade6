"""The table of lobe scores of a data set, each oddity named by its line and column."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.tables import csv_text, read_table
from DRAMLesionLib.writing import write_text

COLUMNS = ("case", *(lobe.name for lobe in Lobe))
UNSCORED = ("", "-", "n/a", "na", "none", "not assessable")
"""What a table says about a lobe that nobody could score."""

NO_SCORE = "has no score at all"
"""What is wrong with a row without a score, unless the case has labels of another kind."""

Scores = dict[Lobe, int | None]
"""Severity score 0..5 of each lobe, None where nobody gave one."""

_SCORE = re.compile(r"([0-5])(?:[.,]0+)?")
_SHOWN = 40


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with a data set.

    Attributes:
        case: Which case, or the file that concerns all of them.
        message: What is wrong and what to do about it.
        fatal: Whether the case cannot be trained on.
    """

    case: str
    message: str
    fatal: bool = True

    def __str__(self) -> str:
        return f"{'error' if self.fatal else 'note'}: {self.case}: {self.message}"


def read_scores(path: Path) -> tuple[dict[str, Scores], list[Problem]]:
    """Read a table of scores.

    Args:
        path: Text with the columns :data:`COLUMNS` in any order, and others, which are passed over.

    Returns:
        Scores by case, the names in Unicode's composed form (NFC) as those of files are; and the
        problems of single rows. A row that cannot be read has no score.

    Raises:
        InputError: If the table cannot be read, lacks a column or has it twice.
    """
    content = read_table(path, COLUMNS)
    table: dict[str, Scores] = {}
    problems: list[Problem] = []
    for row in content.rows:
        name = content.cell(row, "case")
        if reason := no_name(name):
            problems.append(Problem(path.name, f"line {row.line} {reason}"))
        elif name in table:
            message = f"has more than one row in {path.name}, see line {row.line}"
            problems.append(Problem(name, message))
        elif misfit := content.misfit(row):
            table[name] = dict.fromkeys(Lobe)
            problems.append(Problem(name, f"{path.name}: {misfit}"))
        else:
            given = {lobe: content.cell(row, lobe.name) for lobe in Lobe}
            table[name], found = _parse_row(name, given, f"{path.name}, line {row.line}")
            problems += found
    return table, problems


def write_scores(path: Path, table: Mapping[str, Mapping[Lobe, int | None]]) -> None:
    """Write a table of scores, sorted by case; it appears whole or not at all."""
    rows = (
        {"case": name} | {lobe.name: table[name].get(lobe) for lobe in Lobe}
        for name in sorted(table)
    )
    write_text(csv_text(COLUMNS, rows), path)


def no_name(name: str) -> str:
    """Say why a text is no name of a case; empty if it is one."""
    if not name:
        return "names no case"
    if any(ord(letter) < 32 for letter in name):
        return "has a line break or another control character in the name of the case"
    if "/" in name or "\\" in name:
        return f"has the case {short(name)!r}: give its name alone, without folders"
    if name.startswith("."):
        return f"has the case {short(name)!r}, which begins with a dot as hidden files do"
    if len(name) > 200:
        return "has a name of a case of more than 200 letters"
    return ""


def _parse_row(name: str, given: Mapping[Lobe, str], where: str) -> tuple[Scores, list[Problem]]:
    scores: Scores = dict.fromkeys(Lobe)
    problems = []
    for lobe, text in given.items():
        if text.lower() in UNSCORED:
            message = f"the score of the {lobe.full_name} is missing: that lobe is left out"
            problems.append(Problem(name, message, fatal=False))
        elif score := _SCORE.fullmatch(text):
            scores[lobe] = int(score[1])
        else:
            message = (
                f"the score of the {lobe.full_name} is {short(text)!r}, not a whole number 0 to 5 "
                f"({where}, column {lobe.name})"
            )
            problems.append(Problem(name, message))
    if all(score is None for score in scores.values()):
        problems.append(Problem(name, NO_SCORE))
    return scores, problems


def short(text: str) -> str:
    """Return a cell for a message, cut where it is long."""
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
