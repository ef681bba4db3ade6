"""A data set for training: a folder of scans with a table of lobe scores.

``DIR/scans/CASE.nii.gz`` (NIfTI, NRRD, MetaImage, or a folder ``CASE`` with one DICOM series),
``DIR/scores.csv`` with the columns ``case, LUL, LLL, RUL, RML, RLL``, and where the user has them
lobe masks ``DIR/lobes/CASE.nii.gz``. Pseudo-labels that a person drew or corrected lie in
``DIR/pseudolabels/CASE.nii.gz`` (0 background, 1 vessel, 2 lesion) and take the place of the
computed ones. A truth that phantoms bring lies in ``DIR/truth`` and is read by the evaluation
alone, never by a training stage.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.lesions.severity import score_to_interval
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.paths import case_name
from DRAMLesionLib.writing import write_text

SCANS, LOBES, TRUTH, SCORES = "scans", "lobes", "truth", "scores.csv"
PSEUDOLABELS = "pseudolabels"
COLUMNS = ("case", *(lobe.name for lobe in Lobe))
UNSCORED = ("", "-", "n/a", "na", "none", "not assessable")
"""What a table says about a lobe that nobody could score."""

Scores = dict[Lobe, int | None]
"""Severity score 0..5 of each lobe, None where nobody gave one."""


@dataclass(frozen=True)
class Case:
    """One scan of a data set.

    Attributes:
        name: What scan, mask and row of the table have in common.
        scan: File, or folder with one DICOM series.
        lobes: Lobe mask; None leaves the lobes to the embedded estimate.
        scores: Severity scores.
        label: Pseudo-label by a person; None leaves it to the training.
    """

    name: str
    scan: Path
    lobes: Path | None
    scores: Scores
    label: Path | None = None


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


def find_cases(folders: Sequence[Path]) -> tuple[list[Case], list[Problem]]:
    """Return the cases of some data sets that have scan and scores, and what is wrong.

    Args:
        folders: Data sets; a case may be in one of them only.

    Raises:
        InputError: If a folder or its table cannot be read at all.
    """
    cases: dict[str, Case] = {}
    problems: list[Problem] = []
    for folder in folders:
        table, found = read_scores(folder / SCORES)
        problems += found
        scans, more = _files(folder / SCANS)
        masks, of_masks = _optional_files(folder / LOBES)
        labels, of_labels = _optional_files(folder / PSEUDOLABELS)
        problems += more + of_masks + of_labels
        problems += _unmatched(folder, table, scans, {LOBES: masks, PSEUDOLABELS: labels})
        for name in sorted(table.keys() & scans.keys()):
            if name in cases:
                problems.append(Problem(name, f"is in {folder} and in another data set; rename it"))
                continue
            cases[name] = Case(name, scans[name], masks.get(name), table[name], labels.get(name))
    broken = {problem.case for problem in problems if problem.fatal}
    return [case for name, case in sorted(cases.items()) if name not in broken], problems


def read_scores(path: Path) -> tuple[dict[str, Scores], list[Problem]]:
    """Read a table of scores.

    Returns:
        Scores by case, and the problems of single rows.

    Raises:
        InputError: If the table cannot be read or lacks a column.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        message = f"cannot read {path}, the table with the columns {', '.join(COLUMNS)}: {error}"
        raise InputError(message) from error
    reader = csv.DictReader(io.StringIO(text), skipinitialspace=True)
    names = [name.strip() for name in reader.fieldnames or []]
    if missing := [column for column in COLUMNS if column not in names]:
        message = f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(names)}"
        raise InputError(message)
    reader.fieldnames = names
    table: dict[str, Scores] = {}
    problems: list[Problem] = []
    for row in reader:
        name = (row["case"] or "").strip()
        if not name:
            problems.append(Problem(path.name, f"line {reader.line_num} names no case"))
        elif name in table:
            problems.append(Problem(name, f"has more than one row in {path.name}"))
        else:
            table[name], found = _parse_row(name, row)
            problems += found
    return table, problems


def write_scores(path: Path, table: Mapping[str, Mapping[Lobe, int | None]]) -> None:
    """Write a table of scores, sorted by case; it appears whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name in sorted(table):
        scores = [table[name].get(lobe) for lobe in Lobe]
        writer.writerow([name, *("" if score is None else score for score in scores)])
    write_text(text.getvalue(), path)


def _parse_row(name: str, row: Mapping[str, str | None]) -> tuple[Scores, list[Problem]]:
    scores: Scores = {}
    problems = []
    for lobe in Lobe:
        text = (row[lobe.name] or "").strip()
        scores[lobe] = None
        if text.lower() in UNSCORED:
            message = f"the score of the {lobe.full_name} is missing: that lobe is left out"
            problems.append(Problem(name, message, fatal=False))
            continue
        try:
            score = int(text)
            score_to_interval(score)
        except ValueError:
            message = f"the score of the {lobe.full_name} is {text!r}, not a whole number 0 to 5"
            problems.append(Problem(name, message))
            continue
        scores[lobe] = score
    if all(score is None for score in scores.values()):
        problems.append(Problem(name, "has no score at all"))
    return scores, problems


def _files(folder: Path) -> tuple[dict[str, Path], list[Problem]]:
    """Return the images of a folder by case."""
    if not folder.is_dir():
        message = f"{folder} is missing: a data set has its scans in the folder {SCANS!r}"
        raise InputError(message)
    found: dict[str, Path] = {}
    problems = []
    for path in sorted(folder.iterdir()):
        name = case_name(path)
        if name is None:
            continue
        if name in found:
            message = f"there are several files for it: {found[name].name} and {path.name}"
            problems.append(Problem(name, message))
        found.setdefault(name, path)
    return found, problems


def _optional_files(folder: Path) -> tuple[dict[str, Path], list[Problem]]:
    return _files(folder) if folder.is_dir() else ({}, [])


def find_labels(folders: Sequence[Path]) -> dict[str, Path]:
    """Return the pseudo-labels that lie in some data sets, by case."""
    found: dict[str, Path] = {}
    for folder in folders:
        found |= _optional_files(folder / PSEUDOLABELS)[0]
    return found


def _unmatched(
    folder: Path,
    table: Iterable[str],
    scans: Iterable[str],
    others: Mapping[str, Iterable[str]],
) -> list[Problem]:
    """Name rows, scans and masks that belong to nothing."""
    table, scans = set(table), set(scans)
    problems = [
        Problem(name, f"has scores but no scan in {folder / SCANS}") for name in table - scans
    ]
    problems += [Problem(name, f"has no row in {folder / SCORES}") for name in scans - table]
    problems += [
        Problem(name, f"has a mask in {folder / kind} but no scan", fatal=False)
        for kind, names in others.items()
        for name in set(names) - scans
    ]
    return sorted(problems, key=lambda problem: problem.case)
