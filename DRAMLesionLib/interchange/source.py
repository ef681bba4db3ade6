"""The DICOM series that a CT was read from: whether results can refer to it, slice by slice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from DRAMLesionLib.errors import InputError, MissingDependencyError
from DRAMLesionLib.paths import content_of
from DRAMLesionLib.reading.dicom import series_files
from DRAMLesionLib.reading.dicom_header import quiet_parser

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_UIDS = {
    "StudyInstanceUID": "study",
    "SeriesInstanceUID": "series",
    "SOPInstanceUID": "image",
    "SOPClassUID": "kind of image",
    "FrameOfReferenceUID": "frame of reference",
}
"""What has to be there, and what it identifies."""

_MAY_BE_EMPTY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
)
"""What every object has to have, though without a value: de-identified CTs may lack it."""

_OFF_MM = 0.1
"""By how much a slice may lie elsewhere than the voxels that were read from it."""


@dataclass(frozen=True)
class Source:
    """The slices of a CT.

    Attributes:
        slices: Their headers, in the order of the voxels from the first slice.
        spacing: Millimetres between columns, rows and slices.
    """

    slices: tuple[Dataset, ...]
    spacing: tuple[float, float, float]


def check_installed() -> None:
    """Find out before the computing that DICOM results could not be written.

    Raises:
        MissingDependencyError: If highdicom is not installed.
    """
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        message = (
            "--dicom needs highdicom, which is not installed: python -m pip install "
            '"dramlesion[dicom]"'
        )
        raise MissingDependencyError(message) from error


def source_of(path: Path, ct: sitk.Image, series_uid: str | None = None) -> Source:
    """Return the slices of a CT.

    Args:
        path: What the CT was read from.
        ct: The CT, as :func:`~DRAMLesionLib.reading.files.read_ct` gave it.
        series_uid: Which series, where the folder holds several.

    Raises:
        InputError: If it was no DICOM series, or one that results cannot refer to: a slice lacks an
            identifier, or the voxels do not lie as the slices do.
    """
    if not path.is_dir():
        message = (
            f"{path.name} is no folder with a DICOM series: DICOM results belong to the study of "
            "their CT; give the folder that it was converted from, or do without DICOM results"
        )
        raise InputError(message)
    return source_of_files(series_files(path, series_uid), ct)


def listed(path: Path) -> list[Path]:
    """Return the paths in a text file, one a line.

    Raises:
        InputError: If it cannot be read, or one of them is no file.
    """
    try:
        text = content_of(path).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        message = f"{path} cannot be read as a list of files: give a UTF-8 text, one path a line"
        raise InputError(message) from error
    paths = [Path(line) for line in text.split("\n") if line.strip()]
    gone = [one for one in paths if not one.is_file()]
    if gone:
        message = (
            f"{len(gone)} of the {len(paths)} DICOM images of the CT are no longer where they were "
            f"({gone[0]}): import the series again"
        )
        stored = "DICOM images of the CT are no longer where they were"
        raise InputError(message, stored=stored)
    return paths


def source_of_files(paths: Iterable[Path], ct: sitk.Image) -> Source:
    """Return the slices of a CT from their files, in any order.

    Args:
        paths: DICOM files; those of which the CT has no plane are left out.
        ct: The CT.

    Raises:
        InputError: If a file is no DICOM image, or as for :func:`source_of`.
    """
    with quiet_parser():
        slices = [_header(path) for path in paths]
    _check_identifiers(slices)
    for one in slices:
        for name in _MAY_BE_EMPTY:
            if name not in one:
                setattr(one, name, "")
        if not one.get("SliceThickness"):  # the voxels say it
            one.SliceThickness = f"{ct.GetSpacing()[2]:.6g}"
    return Source(_in_order(slices, ct), ct.GetSpacing())


def _header(path: Path) -> Dataset:
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        return pydicom.dcmread(path, stop_before_pixels=True)
    except InvalidDicomError as error:
        message = (
            f"{path.name} is no DICOM image: import the series of the CT again, or do without "
            "DICOM results"
        )
        raise InputError(message, stored="a file of the CT is no DICOM image") from error


def _check_identifiers(slices: Sequence[Dataset]) -> None:
    for name, what in _UIDS.items():
        values = [str(one.get(name, "") or "") for one in slices]
        lacking = sum(not _is_uid(value) for value in values)
        if lacking:
            message = (
                f"the CT cannot get DICOM results: {lacking} of its {len(slices)} slices have no "
                f"valid identifier of their {what} ({name}); send it from the scanner or archive "
                "again, or do without DICOM results"
            )
            raise InputError(message)
        several = len(set(values)) > 1
        if several and name in ("StudyInstanceUID", "FrameOfReferenceUID"):
            message = (
                f"the CT cannot get DICOM results: its slices belong to {len(set(values))} "
                f"different {what} identifiers ({name}); give a folder with one scan, or do "
                "without DICOM results"
            )
            raise InputError(message)
    images = {str(one.SOPInstanceUID) for one in slices}
    if len(images) < len(slices):
        message = (
            "the CT cannot get DICOM results: several of its slices have the same identifier "
            "(SOPInstanceUID); send it from the scanner or archive again, or do without DICOM "
            "results"
        )
        raise InputError(message)


def _is_uid(value: str) -> bool:
    from pydicom.uid import UID

    return bool(value) and UID(value).is_valid


def _in_order(slices: Sequence[Dataset], ct: sitk.Image) -> tuple[Dataset, ...]:
    """Return one slice for each plane of voxels, and nothing else."""
    size = ct.GetSize()
    axes = np.array(ct.GetDirection()).reshape(3, 3)
    origin, spacing = np.array(ct.GetOrigin()), np.array(ct.GetSpacing())
    found: dict[int, Dataset] = {}
    for one in slices:
        placed = one.get("ImagePositionPatient") and one.get("ImageOrientationPatient")
        if not placed or (one.get("Columns"), one.get("Rows")) != size[:2]:
            continue
        place = np.array([float(v) for v in one.ImagePositionPatient])
        plane = round(float((place - origin) @ axes[:, 2] / spacing[2]))
        where = origin + axes[:, 2] * spacing[2] * plane
        turned = np.array([float(v) for v in one.ImageOrientationPatient])
        straight = np.abs(turned - axes[:, :2].T.ravel()).max() < 1e-3
        if 0 <= plane < size[2] and straight and np.abs(place - where).max() <= _OFF_MM:
            found.setdefault(plane, one)
    if len(found) < size[2]:
        message = (
            f"the CT cannot get DICOM results: {size[2] - len(found)} of its {size[2]} planes of "
            "voxels do not lie where a slice does, as after a tilted gantry or between uneven "
            "slices; do without DICOM results"
        )
        raise InputError(message)
    return tuple(found[plane] for plane in range(size[2]))
