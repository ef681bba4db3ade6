"""The DICOM files of a result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from DRAMLesionLib import writing
from DRAMLesionLib.interchange.measurements import measurement_report
from DRAMLesionLib.interchange.segmentation import (
    Kind,
    check_source,
    lesion_segmentation,
    lobe_segmentation,
)
from DRAMLesionLib.interchange.source import Source, check_installed, source_of
from DRAMLesionLib.report.output import DICOM

if TYPE_CHECKING:
    import SimpleITK as sitk
    from pydicom.dataset import Dataset

    from DRAMLesionLib.report.result import LesionResult


def write_dicom(result: LesionResult, source: Source, folder: Path, kind: Kind = "binary") -> None:
    """Write ``lesions.seg.dcm``, ``lobes.seg.dcm`` and ``measurements.sr.dcm``.

    They belong to the study of the CT and carry its names and identifiers.

    Args:
        result: What the pipeline gave.
        source: Slices of the CT.
        folder: Where to; it exists.
        kind: How the segmentations are stored.

    Raises:
        OutputError: If they cannot be written.
    """
    report = result.report
    lobes = lobe_segmentation(source, result.lobes, report, kind)
    objects: tuple[Dataset, ...] = (
        lesion_segmentation(source, result.lesions, result.vessels, report, kind),
        lobes,
        measurement_report(source, result, lobes),
    )
    for name, one in zip(DICOM, objects, strict=True):
        with writing.whole_file(folder / name) as part:
            one.save_as(part)


def dicom_writer(
    path: Path, ct: sitk.Image, kind: Kind, series_uid: str | None = None
) -> Callable[[LesionResult, Path], None]:
    """Return what writes the DICOM files of a result, once it is sure that it will be able to.

    Args:
        path: What the CT was read from.
        ct: The CT.
        kind: How the segmentations are stored.
        series_uid: Which series, where the folder holds several.

    Raises:
        MissingDependencyError: If highdicom is not installed.
        InputError: If the CT came from no DICOM series, or one that lacks what they need.
    """
    check_installed()
    source = source_of(path, ct, series_uid)
    check_source(source)
    return lambda result, folder: write_dicom(result, source, folder, kind)
