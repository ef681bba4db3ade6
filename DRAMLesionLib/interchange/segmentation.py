"""Lesions, vessels and lobes as DICOM segmentations of their CT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import SimpleITK as sitk

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.interchange import codes
from DRAMLesionLib.interchange.findings import Findings, Part
from DRAMLesionLib.interchange.source import Source
from DRAMLesionLib.report.drawing import TYPE_COLOURS
from DRAMLesionLib.report.model import Report

if TYPE_CHECKING:
    import highdicom as hd
    from pydicom.sr.coding import Code

Kind = Literal["binary", "labelmap"]
"""Whether a segmentation has frames for each segment, or one number for each voxel."""

NAME = "DRAMLesion"
_SERIES = {"lesions": 9401, "lobes": 9402, "measurements": 9403}
"""Numbers of the new series: beyond those of scanners."""


@dataclass(frozen=True)
class Segment:
    """What a segment is.

    Attributes:
        label: Name for people.
        category: Of CID 7150.
        type: What it is.
        colour: Hexadecimal sRGB.
        side: Laterality of a lobe.
        region: Where a lesion or vessel is.
    """

    label: str
    category: Code
    type: Code
    colour: str
    side: Code | None = None
    region: Code | None = None


def lesion_segmentation(source: Source, findings: Findings, kind: Kind) -> hd.seg.Segmentation:
    """Return the lesions by type (segments 1 to 3) and the vessels (4).

    Lesions that are not told apart by type are segment 1, and the vessels 2.

    Args:
        source: Slices of the CT.
        findings: Lesions and vessels, and what produced them.
        kind: How they are stored.
    """
    segments = _lesion_segments(findings.typed)
    numbers = sitk.GetArrayFromImage(findings.lesions)
    numbers[sitk.GetArrayFromImage(findings.vessels) > 0] = max(segments)
    is_edited = "lesions" in findings.edited
    return _segmentation(source, numbers, segments, findings.report, kind, "lesions", is_edited)


def lobe_segmentation(source: Source, findings: Findings, kind: Kind) -> hd.seg.Segmentation:
    """Return the lobes, numbered as :class:`~DRAMLesionLib.lobes.Lobe`.

    Args:
        source: Slices of the CT.
        findings: Lobes, and what produced them.
        kind: How they are stored.
    """
    segments = {
        int(lobe): Segment(
            lobe.full_name.capitalize(),
            codes.ANATOMY,
            site,
            codes.COLOURS[lobe.name],
            side,
        )
        for lobe, (site, side) in codes.LOBES.items()
    }
    numbers = sitk.GetArrayFromImage(findings.lobes)
    is_edited = "lobes" in findings.edited
    return _segmentation(source, numbers, segments, findings.report, kind, "lobes", is_edited)


def check_source(source: Source) -> None:
    """Find out before the computing that the CT's headers make no segmentation.

    Raises:
        InputError: If they do not.
    """
    first = source.slices[0]
    nothing = np.zeros((len(source.slices), first.Rows, first.Columns), np.uint8)
    nothing[0, 0, 0] = 1  # one frame is enough
    trial = Report(
        rows=(), totals=(), total_score=None, lobes_source="", grid={}, version="0", created=""
    )
    try:
        _segmentation(source, nothing, _lesion_segments(True), trial, "binary", "lesions")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        message = (
            f"the CT cannot get DICOM results: {error}; send it from the scanner or archive again, "
            "or do without DICOM results"
        )
        stored = "the headers of the CT lack what DICOM results need: do without DICOM results"
        raise InputError(message, stored=stored) from error


def device(report: Report) -> dict[str, Any]:
    """Return what says in a DICOM object which program has made it."""
    return {
        "manufacturer": NAME,
        "manufacturer_model_name": NAME,
        "software_versions": report.version,
    }


def parameters(report: Report) -> dict[str, str]:
    """Return the checksum of each network."""
    return {str(w["name"]): f"SHA-256 {w['sha256']}" for w in report.weights}


def series_number(name: str) -> int:
    """Return the number of the series of ``lesions``, ``lobes`` or ``measurements``."""
    return _SERIES[name]


def _lesion_segments(is_typed: bool) -> dict[int, Segment]:
    kinds = codes.LESIONS if is_typed else {1: codes.LESION}
    segments = {
        label: Segment(code.meaning, codes.ALTERED, code, TYPE_COLOURS[label], region=codes.LUNG)
        for label, code in kinds.items()
    }
    colour = codes.COLOURS["vessels"]
    vessels = Segment("Vessels", codes.ANATOMY, codes.VESSEL, colour, region=codes.LUNG)
    return {**segments, len(segments) + 1: vessels}


def _segmentation(
    source: Source,
    numbers: np.ndarray,
    segments: Mapping[int, Segment],
    report: Report,
    kind: Kind,
    name: Part,
    is_edited: bool = False,
) -> hd.seg.Segmentation:
    import highdicom as hd

    column, row, plane = source.spacing
    maker = f"{NAME}, edited by hand" if is_edited else NAME
    result = hd.seg.Segmentation(
        source_images=list(source.slices),
        pixel_array=numbers,
        # of the voxels: what a CT says of the thickness of its slices may be missing, or another
        pixel_measures=hd.PixelMeasuresSequence([row, column], plane, plane),
        segmentation_type=kind.upper(),
        segment_descriptions=[
            _described(number, segment, report, is_edited) for number, segment in segments.items()
        ],
        series_instance_uid=hd.UID(),
        series_number=series_number(name),
        sop_instance_uid=hd.UID(),
        instance_number=1,
        device_serial_number=report.version,
        content_label=name.upper(),
        content_description=f"{name.capitalize()} by {maker}, research use only",
        series_description=f"{NAME} {name}",
        omit_empty_frames=bool(numbers.any()),
        **device(report),
    )
    codes.identify_scheme(result)
    return result


def _described(
    number: int, segment: Segment, report: Report, is_edited: bool
) -> hd.seg.SegmentDescription:
    import highdicom as hd
    from highdicom.color import CIELabColor

    how = hd.seg.SegmentAlgorithmTypeValues
    described = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=segment.label,
        segmented_property_category=segment.category,
        segmented_property_type=segment.type,
        algorithm_type=how.SEMIAUTOMATIC if is_edited else how.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            NAME, codes.METHOD, report.version, parameters=parameters(report)
        ),
        tracking_uid=hd.UID(),
        tracking_id=segment.label,
        anatomic_regions=[segment.region] if segment.region else None,
        display_color=CIELabColor(*_lab(segment.colour)),
    )
    if segment.side is not None:
        side = hd.sr.CodedConcept.from_code(segment.side)
        described.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [
            side
        ]
    return described


def _lab(colour: str) -> Sequence[float]:
    """Return the CIELab values of a hexadecimal sRGB colour."""
    from skimage.color import rgb2lab

    rgb = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    return [float(value) for value in rgb2lab(rgb)]
