"""The DICOM files of a result."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

from DRAMLesionLib import writing
from DRAMLesionLib.interchange.findings import Findings, Part, read_findings
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


def write_dicom(
    findings: Findings,
    source: Source,
    folder: Path,
    kind: Kind = "binary",
    progress: Callable[[float], None] = lambda _: None,
) -> None:
    """Write ``lesions.seg.dcm``, ``lobes.seg.dcm`` and ``measurements.sr.dcm``.

    They belong to the study of the CT and carry its names and identifiers.

    Args:
        findings: What is known of the CT.
        source: Slices of the CT.
        folder: Where to; it exists.
        kind: How the segmentations are stored.
        progress: Called with the share done, 0 to 1; may raise to stop.

    Raises:
        OutputError: If they cannot be written.
    """
    lobes = lobe_segmentation(source, findings, kind)
    progress(0.4)
    lesions = lesion_segmentation(source, findings, kind)
    progress(0.8)
    objects: tuple[Dataset, ...] = (lesions, lobes, measurement_report(source, findings, lobes))
    for name, one in zip(DICOM, objects, strict=True):
        with writing.whole_file(folder / name) as part:
            one.save_as(part)
    progress(1.0)


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
    return lambda result, folder: write_dicom(Findings.of(result), source, folder, kind)


def write_dicom_of(
    result: Path,
    ct: sitk.Image,
    source: Source,
    output: Path,
    kind: Kind = "binary",
    is_typed: bool = True,
    edited: Collection[Part] = (),
    progress: Callable[[float], None] = lambda _: None,
) -> None:
    """Write the DICOM files of a result that ``segment`` has written before.

    Args:
        result: Its folder; see :func:`read_findings`.
        ct: The CT that it belongs to.
        source: Slices of the CT.
        output: Where to; made if it is missing. Other files in it are left alone.
        kind: How the segmentations are stored.
        is_typed: Whether the lesions are told apart by type.
        edited: What a person has changed in the result.
        progress: Called with the share done, 0 to 1; may raise to stop.

    Raises:
        InputError: If the result does not fit the CT, or the CT lacks what they need.
        OutputError: If they cannot be written; what was there before is there again.
    """
    check_source(source)
    findings = read_findings(result, ct, is_typed, edited)
    with writing.whole_results(output, DICOM[-1], DICOM) as part:
        write_dicom(findings, source, part, kind, progress)
