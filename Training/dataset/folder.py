"""A data set for training: a folder of scans with the labels that its owner has.

``DIR/scans/CASE.nii.gz`` (NIfTI, NRRD, MetaImage, or a folder ``CASE`` with one DICOM series), and
where the user has them lobe masks ``DIR/lobes/CASE.nii.gz``. Of labels a scan has at least one:

* ``DIR/scores.csv`` with the columns ``case, LUL, LLL, RUL, RML, RLL``;
* ``DIR/labels.csv``: per cent, free or diseased, of lobes, lungs, scans and slices, see
  :mod:`Training.dataset.weak_labels`;
* ``DIR/points/CASE.mrk.json``: points and scribbles as Slicer saves them, called lesion or
  background, see :mod:`DRAMLesionLib.reading.markups`;
* ``DIR/masks/CASE.nii.gz``: 0 background, 1 lesion, 255 where nobody looked;
* ``DIR/pseudolabels/CASE.nii.gz`` that a person drew or corrected (0 background, 1 vessel,
  2 lesion; or a Slicer segmentation ``CASE.seg.nrrd``, see :mod:`Training.dataset.labels`). They
  take the place of the computed ones; of a scan without scores they are its mask as well.

A truth that phantoms bring lies in ``DIR/truth`` and is read by the evaluation alone, never by a
training stage.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.paths import case_name, mask_name
from DRAMLesionLib.reading import markups
from Training.dataset.scores import NO_SCORE, Problem, Scores, read_scores
from Training.dataset.weak_labels import LABELS_FILE, RegionLabel, read_region_labels

SCANS, LOBES, TRUTH, SCORES = "scans", "lobes", "truth", "scores.csv"
PSEUDOLABELS, POINTS, MASKS = "pseudolabels", "points", "masks"

_COMPANIONS = (".raw", ".zraw", ".img", ".txt", ".md", ".csv", ".json", ".html", ".pdf")
"""Of files that may lie beside volumes: detached voxels and notes."""

_VOLUMES = "a NIfTI, NRRD or MetaImage"
_NOUNS = {LOBES: "a mask", PSEUDOLABELS: "a mask", MASKS: "a mask", POINTS: "points"}


@dataclass(frozen=True)
class Case:
    """One scan of a data set.

    Attributes:
        name: What scan, mask and row of the table have in common.
        scan: File, or folder with one DICOM series.
        lobes: Lobe mask; None leaves the lobes to the embedded estimate.
        scores: Severity scores.
        label: Pseudo-label by a person; None leaves it to the training.
        regions: Labels of regions.
        points: Points that a person has called lesion or background.
        mask: What a person has outlined.
    """

    name: str
    scan: Path
    lobes: Path | None
    scores: Scores
    label: Path | None = None
    regions: tuple[RegionLabel, ...] = ()
    points: Path | None = None
    mask: Path | None = None

    @property
    def has_scores(self) -> bool:
        """Whether a lobe has a score."""
        return any(score is not None for score in self.scores.values())

    @property
    def outlined(self) -> Path | None:
        """The file that teaches voxels: the mask, or a pseudo-label where no lobe has a score."""
        return self.mask or (None if self.has_scores else self.label)


def find_cases(folders: Sequence[Path]) -> tuple[list[Case], list[Problem]]:
    """Return the cases of some data sets that have a scan and a label, and what is wrong.

    Args:
        folders: Data sets; a case may be in one of them only.

    Raises:
        InputError: If a folder or its table cannot be read at all.
    """
    cases: dict[str, Case] = {}
    problems: list[Problem] = []
    for folder in folders:
        found, more = _cases_of(folder)
        problems += more
        for case in found:
            if case.name in cases:
                message = f"is in {folder} and in another data set; rename it"
                problems.append(Problem(case.name, message))
                continue
            cases[case.name] = case
    problems += _alike(cases)
    broken = {problem.case for problem in problems if problem.fatal}
    return [case for name, case in sorted(cases.items()) if name not in broken], problems


def _cases_of(folder: Path) -> tuple[list[Case], list[Problem]]:
    """Return the cases of one data set, and what is wrong with it."""
    points, problems = _optional_files(folder / POINTS, _points_name)
    masks, of_masks = _optional_files(folder / MASKS, mask_name)
    labels, of_labels = _optional_files(folder / PSEUDOLABELS)
    regions: dict[str, tuple[RegionLabel, ...]] = {}
    if (folder / LABELS_FILE).exists():
        regions, found = read_region_labels(folder / LABELS_FILE)
        problems += found
    others = {*points, *masks, *labels, *regions}
    table, found = _scores(folder / SCORES, optional=bool(others))
    problems += [p for p in found if p.message != NO_SCORE or p.case not in others]
    scans, more = _files(folder / SCANS)
    lobes, of_lobes = _optional_files(folder / LOBES, mask_name)
    problems += more + of_lobes + of_masks + of_labels
    files = {LOBES: lobes, PSEUDOLABELS: labels, MASKS: masks, POINTS: points}
    tables = {**dict.fromkeys(regions, "labels"), **dict.fromkeys(table, "scores")}
    problems += _unmatched(folder, tables, others, scans, files)
    cases = [
        Case(
            name,
            scans[name],
            lobes.get(name),
            table.get(name, dict.fromkeys(Lobe)),
            labels.get(name),
            regions.get(name, ()),
            points.get(name),
            masks.get(name),
        )
        for name in sorted({*table, *others} & scans.keys())
    ]
    return cases, problems


def _scores(path: Path, optional: bool) -> tuple[dict[str, Scores], list[Problem]]:
    """Read the table of scores; where there are other labels, it may be missing or empty."""
    if optional and (not path.exists() or (path.is_file() and not path.read_bytes().strip())):
        return {}, []
    return read_scores(path)


def _points_name(path: Path) -> str | None:
    """Return the case of a file of points; None if it is none."""
    if not path.name.endswith(markups.SUFFIX) or path.name.startswith(".") or not path.is_file():
        return None
    return unicodedata.normalize("NFC", path.name.removesuffix(markups.SUFFIX))


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
    tables: Mapping[str, str],
    labelled: Iterable[str],
    scans: Iterable[str],
    files: Mapping[str, Iterable[str]],
) -> list[Problem]:
    """Name rows, scans and files that belong to nothing."""
    rows, scans = set(tables), set(scans)
    problems = [
        Problem(
            name,
            f"has {tables[name]} but no scan in {folder / SCANS}{_but_for_capitals(name, scans)}",
        )
        for name in rows - scans
    ]
    problems += [
        Problem(
            name,
            f"has no row in {folder / SCORES}{_but_for_capitals(name, rows)}, and no label of "
            "another kind",
        )
        for name in scans - rows - set(labelled)
    ]
    problems += [
        Problem(
            name,
            f"has {_NOUNS[kind]} in {folder / kind} but no scan{_but_for_capitals(name, scans)}",
            fatal=False,
        )
        for kind, names in files.items()
        for name in set(names) - scans
    ]
    return sorted(problems, key=lambda problem: problem.case)


def _but_for_capitals(name: str, others: set[str]) -> str:
    alike = sorted(other for other in others if other.casefold() == name.casefold())
    return f"; {alike[0]!r} differs in capitals alone: write both the same way" if alike else ""
