"""Cases for ``python -m Training``: CT, lobes, pseudo-label, points and scores in a folder.

The layout is the one that :mod:`Training.dataset.folder` reads. Names of patients do not enter it:
a case is called what the user calls it, and images carry no metadata.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import SimpleITK as sitk

from DRAMLesionLib import writing
from DRAMLesionLib.errors import InputError
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.paths import case_name, mask_name
from DRAMLesionLib.reading import markups
from DRAMLesionLib.reading.markups import Point
from DRAMLesionLib.tables import csv_text, read_table

SCORES = "scores.csv"
PSEUDOLABELS = "pseudolabels"
FOLDERS = ("scans", "lobes", PSEUDOLABELS)
POINTS = "points"
"""Folder of the reader's points, ``CASE.mrk.json``, that Slicer and the training read."""

COLUMNS = ("case", *(lobe.name for lobe in Lobe))

_SCORE = re.compile(r"[0-5](?:[.,]0+)?")
_NO_SCORE = "–"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def check_case_name(name: str) -> str:
    """Return why a text cannot be the name of a case; empty if it can."""
    if _NAME.fullmatch(name):
        return ""
    return "a case is named with letters, digits, - and _, such as case-0001"


def next_case_name(folder: Path | str | None) -> str:
    """Return a name that is free in a data set, if there is one: ``case-0001`` and so on."""
    try:
        taken = set(_read(Path(folder) / SCORES)) if folder else set()
    except (InputError, OSError):
        taken = set()
    number = 1
    while f"case-{number:04d}" in taken:
        number += 1
    return f"case-{number:04d}"


def has_case(folder: Path | str, name: str) -> bool:
    """Tell whether a data set has a case of this name already."""
    folder = Path(folder)
    found = any(_files(folder / part, name) for part in FOLDERS)
    return found or name in _read(folder / SCORES)


@dataclass(frozen=True)
class ListedCase:
    """What a data set shows of a case without any of its images being opened.

    Attributes:
        name: Its name.
        scores: The reader's by lobe, as they are shown.
        edited: Whether it has a pseudo-label that a reader corrected.
        points: How many points a reader placed; None if there are none.
        problems: Why it cannot be trained on, in sentences.
        notes: What else is odd about it.
    """

    name: str
    scores: dict[Lobe, str]
    edited: bool = False
    points: int | None = None
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_broken(self) -> bool:
        """Whether it cannot be trained on."""
        return bool(self.problems)


def list_cases(folder: Path | str) -> list[ListedCase]:
    """Return the cases of a data set, sorted by name; none if there is no such folder.

    Raises:
        InputError: If the table of scores cannot be read.
    """
    folder = Path(folder)
    table = _read(folder / SCORES)
    names = set(table)
    if (folder / FOLDERS[0]).is_dir():
        names |= {found for path in (folder / FOLDERS[0]).iterdir() if (found := case_name(path))}
    return [_listed(folder, name, table.get(name)) for name in sorted(names)]


def _listed(folder: Path, name: str, row: Mapping[str, str] | None) -> ListedCase:
    given = {lobe: (row or {}).get(lobe.name, "").strip() for lobe in Lobe}
    strange = [lobe for lobe, text in given.items() if text and not _SCORE.fullmatch(text)]
    problems = [f"the score of the {lobe.full_name} is {given[lobe]!r}" for lobe in strange]
    if row is None:
        problems.append(f"it has no row in {SCORES}")
    elif not any(given.values()):
        problems.append("it has no score")
    for part in FOLDERS:
        files = _files(folder / part, name)
        if len(files) > 1:
            told = " and ".join(path.name for path in files)
            problems.append(f"there are several files for it in {part}: {told}")
        elif not files and part == FOLDERS[0]:
            problems.append("it has no scan")
    points, notes = _count_points(folder / _points_file(name))
    scores = {lobe: text or _NO_SCORE for lobe, text in given.items()}
    edited = bool(_files(folder / PSEUDOLABELS, name))
    return ListedCase(name, scores, edited, points, problems, notes)


def _count_points(path: Path) -> tuple[int | None, list[str]]:
    """Return how many points a file of Slicer's markups has, and what is wrong with it."""
    if not path.exists():
        return None, []
    try:
        return len(markups.read_points(path)), []
    except InputError as error:
        return 0, [f"the points in {path.name} cannot be read: {error}"]


def _files(folder: Path, name: str) -> list[Path]:
    """Return what a folder has of a case: volumes of any kind, or a folder with a DICOM series."""
    if not folder.is_dir():
        return []
    name_of = mask_name if folder.name == FOLDERS[1] else case_name
    return sorted(path for path in folder.iterdir() if name_of(path) == name)


def add_case(
    folder: Path | str,
    name: str,
    ct: sitk.Image,
    lobes: sitk.Image,
    pseudolabel: sitk.Image | None,
    scores: Mapping[Lobe, int | None],
    points: Sequence[Point] = (),
) -> list[Path]:
    """Write a case into a data set, in place of one of the same name: whole, or not at all.

    Args:
        folder: The data set; made if it is missing.
        name: See :func:`check_case_name`.
        ct: In HU.
        lobes: Labels of :class:`Lobe`.
        pseudolabel: 0 background, 1 vessel, 2 lesion; None leaves it to the training, which takes
            one that is there for the work of a person.
        scores: The reader's; None where there is none.
        points: The reader's, that the pseudo-label followed.

    Returns:
        The files.

    Raises:
        InputError: If the name is none, no lobe has a score, the table is none, or the case of
            that name has a folder with a DICOM series.
        OutputError: If the folder cannot be written to, or another run works in it.
    """
    folder = Path(folder)
    problem = check_case_name(name)
    if problem:
        message = f"'{name}': {problem}"
        raise InputError(message)
    if all(scores.get(lobe) is None for lobe in Lobe):
        message = "no lobe has a reader's score: type at least one (0 to 5) into the table"
        raise InputError(message)
    row = {"case": name} | {
        lobe.name: "" if scores.get(lobe) is None else str(scores[lobe]) for lobe in Lobe
    }
    images = dict(zip(FOLDERS, (ct, lobes, pseudolabel), strict=True))
    for path in (path for place in FOLDERS for path in _files(folder / place, name)):
        if path.is_dir():
            message = f"{path} is a folder of another case {name}: give this one another name"
            raise InputError(message)
    with writing.locked(folder):
        table = _read(folder / SCORES)
        for place in (*FOLDERS, POINTS):
            writing.clean(folder / place)
        with writing.unfinished(folder, folder) as part:
            for place, image in images.items():
                if image is not None:
                    writing.write_image(_bare(image), part / place / f"{name}.nii.gz")
            if points:
                markups.write_points(points, part / _points_file(name))
            _put(folder, part, table, row)
    written = [folder / place / f"{name}.nii.gz" for place in FOLDERS if images[place] is not None]
    return [*written, *([folder / _points_file(name)] if points else []), folder / SCORES]


def _points_file(name: str) -> Path:
    return Path(POINTS) / f"{name}{markups.SUFFIX}"


def _put(
    folder: Path, part: Path, table: Mapping[str, Mapping[str, str]], row: Mapping[str, str]
) -> None:
    """Move the files of a case and its row into place; put back what was there if that fails.

    The row is the first to go and the last to come: whenever this is stopped, a case that the
    table has is the one that the files show. All is written before: no step needs room.
    """
    images = [Path(place) / f"{row['case']}.nii.gz" for place in reversed(FOLDERS)]
    places = [_points_file(row["case"]), *images]
    others = {case: known for case, known in table.items() if case != row["case"]}
    writing.write_text(_csv(table), part / "before.csv")
    for text in ("without.csv", "again.csv"):
        writing.write_text(_csv(others), part / text)
    writing.write_text(_csv(others | {row["case"]: row}), part / "with.csv")
    new = {folder / place: part / place if (part / place).exists() else None for place in places}
    # those of other kinds go: two files would be two scans of one case
    there = [path for place in FOLDERS for path in _files(folder / place, row["case"])]
    files: dict[Path, Path | None] = {path: None for path in there if path not in new}
    files |= new
    scores = folder / SCORES
    existed = scores.exists()
    try:
        if len(others) < len(table):
            writing.put(part / "without.csv", scores)
        with writing.exchanged(files):
            try:
                writing.put(part / "with.csv", scores)
            except BaseException:
                writing.put(part / "again.csv", scores)
                raise
    except BaseException:
        if existed:
            writing.put(part / "before.csv", scores)
        else:
            scores.unlink(missing_ok=True)
        raise


def _bare(image: sitk.Image) -> sitk.Image:
    """Return an image without metadata."""
    bare = sitk.Image(image)
    for key in bare.GetMetaDataKeys():
        bare.EraseMetaData(key)
    return bare


def _read(path: Path) -> dict[str, dict[str, str]]:
    """Return the rows of a table of scores by case.

    Raises:
        InputError: If the file is no such table, or a row of it could be read in two ways: it is
            about to be written anew.
    """
    if not path.is_file():
        return {}
    content = read_table(path, COLUMNS)
    table: dict[str, dict[str, str]] = {}
    for row in content.rows:
        name = content.cell(row, "case")
        reason = content.misfit(row)
        if name in table:
            reason = f"line {row.line} has the case {name!r}, which has a row already"
        if reason:
            message = f"{path}: {reason}; correct the table first, or choose another folder"
            raise InputError(message)
        table[name] = {column: content.cell(row, column) for column in content.names if column}
    return table


def _csv(table: Mapping[str, Mapping[str, str]]) -> str:
    """Return the table as text, sorted by case; further columns of the user are kept."""
    extra = sorted({key for row in table.values() for key in row} - set(COLUMNS))
    return csv_text([*COLUMNS, *extra], (table[name] for name in sorted(table)))
