"""A data set for training: a folder of scans with a table of lobe scores.

``DIR/scans/CASE.nii.gz`` (NIfTI, NRRD, MetaImage, or a folder ``CASE`` with one DICOM series),
``DIR/scores.csv`` with the columns ``case, LUL, LLL, RUL, RML, RLL``, and where the user has them
lobe masks ``DIR/lobes/CASE.nii.gz``. Pseudo-labels that a person drew or corrected lie in
``DIR/pseudolabels/CASE.nii.gz`` (0 background, 1 vessel, 2 lesion; or a Slicer segmentation
``CASE.seg.nrrd``, see :mod:`Training.dataset.labels`) and take the place of the
computed ones. A truth that phantoms bring lies in ``DIR/truth`` and is read by the evaluation
alone, never by a training stage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.paths import case_name, mask_name
from Training.dataset.scores import Problem, Scores, read_scores

SCANS, LOBES, TRUTH, SCORES = "scans", "lobes", "truth", "scores.csv"
PSEUDOLABELS = "pseudolabels"

_COMPANIONS = (".raw", ".zraw", ".img", ".txt", ".md", ".csv", ".json", ".html", ".pdf")
"""Of files that may lie beside volumes: detached voxels and notes."""

_VOLUMES = "a NIfTI, NRRD or MetaImage"


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
        masks, of_masks = _optional_files(folder / LOBES, mask_name)
        labels, of_labels = _optional_files(folder / PSEUDOLABELS)
        problems += more + of_masks + of_labels
        problems += _unmatched(folder, table, scans, {LOBES: masks, PSEUDOLABELS: labels})
        for name in sorted(table.keys() & scans.keys()):
            if name in cases:
                problems.append(Problem(name, f"is in {folder} and in another data set; rename it"))
                continue
            cases[name] = Case(name, scans[name], masks.get(name), table[name], labels.get(name))
    problems += _alike(cases)
    broken = {problem.case for problem in problems if problem.fatal}
    return [case for name, case in sorted(cases.items()) if name not in broken], problems


def _alike(names: Iterable[str]) -> list[Problem]:
    """Name cases whose files are one on systems that do not tell capitals."""
    first: dict[str, str] = {}
    problems = []
    for name in sorted(names):
        other = first.setdefault(name.casefold(), name)
        if other != name:
            message = (
                f"differs from {other!r} in capitals alone, which Windows and macOS do not tell "
                "apart: rename one of them"
            )
            problems.append(Problem(name, message))
    return problems


def _files(
    folder: Path, name_of: Callable[[Path], str | None] = case_name
) -> tuple[dict[str, Path], list[Problem]]:
    """Return the images of a folder by case; files that are none are named, but for hidden ones."""
    if not folder.is_dir():
        message = f"{folder} is missing: a data set has its scans in the folder {SCANS!r}"
        raise InputError(message)
    found: dict[str, Path] = {}
    problems = []
    for path in sorted(folder.iterdir()):
        name = name_of(path)
        if name is None:
            if not path.name.startswith(".") and path.suffix.lower() not in _COMPANIONS:
                message = f"{path} is left out: it is neither {_VOLUMES} file nor a folder"
                problems.append(Problem(path.name, message, fatal=False))
            continue
        if name in found:
            message = f"there are several files for it: {found[name].name} and {path.name}"
            problems.append(Problem(name, message))
        found.setdefault(name, path)
    return found, problems


def _optional_files(
    folder: Path, name_of: Callable[[Path], str | None] = case_name
) -> tuple[dict[str, Path], list[Problem]]:
    return _files(folder, name_of) if folder.is_dir() else ({}, [])


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
        Problem(name, f"has scores but no scan in {folder / SCANS}{_but_for_capitals(name, scans)}")
        for name in table - scans
    ]
    problems += [
        Problem(name, f"has no row in {folder / SCORES}{_but_for_capitals(name, table)}")
        for name in scans - table
    ]
    problems += [
        Problem(
            name,
            f"has a mask in {folder / kind} but no scan{_but_for_capitals(name, scans)}",
            fatal=False,
        )
        for kind, names in others.items()
        for name in set(names) - scans
    ]
    return sorted(problems, key=lambda problem: problem.case)


def _but_for_capitals(name: str, others: set[str]) -> str:
    alike = sorted(other for other in others if other.casefold() == name.casefold())
    return f"; {alike[0]!r} differs in capitals alone: write both the same way" if alike else ""
