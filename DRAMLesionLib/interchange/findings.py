"""What the DICOM files of a scan say: images, numbers, and what a person has changed in them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk

from DRAMLesionLib import typed
from DRAMLesionLib.errors import InputError
from DRAMLesionLib.images.geometry import same_grid
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.reading.files import read_labels
from DRAMLesionLib.report.model import LESION_LABELS, TOTALS, LobeRow, Report
from DRAMLesionLib.report.result import LesionResult

Part = Literal["lesions", "lobes"]
"""Lesions with vessels, or lobes."""

_OF_TYPES = tuple(f"{name.replace(' ', '_')}_ml" for name in LESION_LABELS.values())
_OF_LOBES = ("volume_ml", "lesion_ml", "lesion_percent", "score")
_OF_TOTALS = ("lesion_ml", "lesion_percent")
"""Numbers of a row that was assessed."""


@dataclass(frozen=True)
class Findings:
    """What is known of a CT; every image lies on its grid.

    Attributes:
        ct: In HU.
        lobes: uint8 labels of :class:`~DRAMLesionLib.lobes.Lobe`.
        lesions: uint8 labels of :data:`~DRAMLesionLib.report.model.LESION_LABELS`; if they are not
            typed, 1 is a lesion of any type.
        vessels: uint8 mask.
        report: Numbers of these lobes and lesions, and what produced them.
        typed: Whether the lesions are told apart by type.
        edited: What a person has changed since the program made it.
    """

    ct: sitk.Image
    lobes: sitk.Image
    lesions: sitk.Image
    vessels: sitk.Image
    report: Report
    typed: bool = True
    edited: frozenset[Part] = frozenset()

    @classmethod
    def of(cls, result: LesionResult) -> Findings:
        """Return what a run has found."""
        return cls(result.ct, result.lobes, result.lesions, result.vessels, result.report)


@dataclass(frozen=True)
class _Stored:
    lobes: list[LobeRow]
    totals: list[LobeRow]
    version: str
    created: str = ""
    lobes_source: str = ""
    weights: list[dict[str, Any]] = field(default_factory=list)


def read_findings(
    folder: Path, ct: sitk.Image, is_typed: bool = True, edited: Collection[Part] = ()
) -> Findings:
    """Read what ``segment`` has written for a CT.

    Args:
        folder: With ``lesions.nii.gz``, ``lobes.nii.gz``, ``vessels.nii.gz``, ``report.json``.
        ct: The CT that they belong to.
        is_typed: Whether the lesions are told apart by type.
        edited: What a person has changed in them.

    Raises:
        InputError: If a file is missing or damaged, holds other labels, or lies elsewhere.
    """
    highest = {"lobes": max(Lobe), "lesions": max(LESION_LABELS) if is_typed else 1, "vessels": 1}
    images = {name: _labels(folder / f"{name}.nii.gz", ct, most) for name, most in highest.items()}
    # a voxel of both is lesion, as in the report
    lesion_free = sitk.Cast(images["lesions"] == 0, sitk.sitkUInt8)
    return Findings(
        ct,
        images["lobes"],
        images["lesions"],
        images["vessels"] * lesion_free,
        _report(folder / "report.json", is_typed),
        is_typed,
        frozenset(edited),
    )


def _labels(path: Path, ct: sitk.Image, highest: int) -> sitk.Image:
    image = read_labels(path)
    if not same_grid(image, ct):
        message = f"{path} does not lie on the voxels of the CT: give the CT that it was made from"
        raise InputError(message)
    found = int(np.max(sitk.GetArrayViewFromImage(image)))
    if found > highest:
        message = f"{path} holds the label {found}; labels from 0 to {highest} are wanted"
        raise InputError(message)
    return sitk.Cast(image, sitk.sitkUInt8)


def _report(path: Path, is_typed: bool) -> Report:
    stored = typed.read_json(path, _Stored, others=True)
    of_lobes = (*_OF_LOBES, *(_OF_TYPES if is_typed else ()))
    _check_rows(stored.lobes, [lobe.name for lobe in Lobe], of_lobes, path)
    _check_rows(stored.totals, list(TOTALS), _OF_TOTALS, path)
    return Report(
        rows=tuple(stored.lobes),
        totals=tuple(stored.totals),
        total_score=stored.totals[-1].score,
        lobes_source=stored.lobes_source,
        grid={},
        version=stored.version,
        created=stored.created,
        weights=tuple(stored.weights),
    )


def _check_rows(
    rows: Sequence[LobeRow], names: Sequence[str], needed: Sequence[str], path: Path
) -> None:
    if [row.name for row in rows] != names:
        message = f"{path} does not have the rows {', '.join(names)}, in this order"
        raise InputError(message)
    for row in rows:
        lacking = [name for name in needed if getattr(row, name) is None]
        if row.assessed and lacking:
            message = f"{path}: the row {row.name} has no {lacking[0]}"
            raise InputError(message)
