"""The files that a run leaves: all of them, or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from DRAMLesionLib import writing
from DRAMLesionLib.errors import OutputError
from DRAMLesionLib.report import data, html, pictures

if TYPE_CHECKING:
    import SimpleITK as sitk

    from DRAMLesionLib.report.result import LesionResult

MASKS = ("lesions", "vessels", "lobes")
MAPS = ("dram", "dram_refined", "lesion_probability")
TABLES = ("lobes.csv", "report.json", "report.html")
DICOM = ("lesions.seg.dcm", "lobes.seg.dcm", "measurements.sr.dcm")
MARKER = "report.json"
"""The file that says that a result is complete."""

_LABEL_BYTES, _MAP_BYTES, _DICOM_BYTES, _REPORT_BYTES = 0.05, 1.0, 2.0, 5e6
"""Room on the disk: a voxel of a label map and of a map, compressed and rounded up, and of the
DICOM segmentations, which are not compressed; a report."""


def write_result(
    result: LesionResult,
    folder: Path | str,
    maps: bool = False,
    progress: Callable[[float], None] | None = None,
    origin: Mapping[str, Any] | None = None,
    others: Callable[[Path], object] | None = None,
) -> list[Path]:
    """Write images, table and report of one scan.

    The files get their names when all are complete, ``report.json`` as the last: where it is, all
    belong together. Maps and DICOM files that an earlier run left there are removed if this one
    writes none.

    Args:
        result: What the pipeline gave.
        folder: Where to; made if it is missing. Other files in it are left alone.
        maps: Whether to write the dRAMs and the lesion probability as well.
        progress: Called with the share done, 0 to 1; may raise to stop.
        origin: What the result was made from, for the report; see
            :mod:`DRAMLesionLib.report.origin`.
        others: Called with the folder to write :data:`DICOM` into, if those are wanted.

    Returns:
        The paths that were written.

    Raises:
        OutputError: If the folder cannot be written to. What was there before is there again.
    """
    folder = Path(folder)
    owned = [*(f"{name}.nii.gz" for name in MAPS), *DICOM]
    with writing.whole_results(folder, MARKER, owned) as part:
        names = (*MASKS, *MAPS) if maps else MASKS
        for number, name in enumerate(names):
            image: sitk.Image = getattr(result, name)
            writing.write_image(image, part / f"{name}.nii.gz")
            if progress is not None:
                progress((number + 1) / (len(names) + 1))
        if others is not None:
            others(part)
        _write_report(result, part, origin)
        written = sorted(path.name for path in part.iterdir())
    if progress is not None:
        progress(1.0)
    return [folder / name for name in written]


def check_output(
    folder: Path | str, voxels: int = 0, maps: bool = False, dicom: bool = False
) -> None:
    """Find out before the computing begins that :func:`write_result` could not write.

    Args:
        folder: Where to.
        voxels: How many the CT has, for the room that the results need.
        maps: Whether maps are to be written.
        dicom: Whether DICOM files are to be written.

    Raises:
        OutputError: If the folder cannot be made or written to, something stands in the way, the
            path is too long, or there is too little room.
    """
    folder = Path(folder)
    needed = voxels * (
        _LABEL_BYTES * len(MASKS) + maps * _MAP_BYTES * len(MAPS) + dicom * _DICOM_BYTES
    )
    writing.check_writable(folder, needed + _REPORT_BYTES if voxels else 0)
    for name in (*(f"{name}.nii.gz" for name in (*MASKS, *MAPS)), *DICOM, *TABLES):
        if (folder / name).is_dir():
            message = (
                f"cannot write to {folder / name}: a folder stands where a file should be; choose "
                "another place"
            )
            raise OutputError(message)


def _write_report(result: LesionResult, folder: Path, origin: Mapping[str, Any] | None) -> None:
    shots = pictures.key_slices(result.ct, result.lobes, result.lesions, result.maps.dram)
    writing.write_text(data.to_csv(result.report), folder / "lobes.csv")
    content = data.to_json(result.report)
    if origin is not None:
        content["origin"] = dict(origin)
    writing.write_json(content, folder / MARKER)
    writing.write_text(html.to_html(result.report, shots), folder / "report.html")
