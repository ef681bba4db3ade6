"""The files that a run leaves: all of them, or none."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from DRAMLesionLib import writing
from DRAMLesionLib.errors import InputError
from DRAMLesionLib.report import data, html, pictures

if TYPE_CHECKING:
    import SimpleITK as sitk

    from DRAMLesionLib.report.result import LesionResult

MASKS = ("lesions", "vessels", "lobes")
MAPS = ("dram", "dram_refined", "lesion_probability")
TABLES = ("lobes.csv", "report.json", "report.html")


def write_result(
    result: LesionResult,
    folder: Path | str,
    maps: bool = False,
    progress: Callable[[float], None] | None = None,
) -> list[Path]:
    """Write images, table and report of one scan.

    Everything is written into a temporary folder inside ``folder`` first, and renamed when it is
    complete. Maps that an earlier run left there are removed if this one writes none: the files
    under their final names always belong together.

    Args:
        result: What the pipeline gave.
        folder: Where to; made if it is missing. Other files in it are left alone.
        maps: Whether to write the dRAMs and the lesion probability as well.
        progress: Called with the share done, 0 to 1; may raise to stop.

    Returns:
        The paths that were written.

    Raises:
        InputError: If the folder cannot be written to.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=".dramlesion-", suffix=".part", dir=folder))
    except OSError as error:
        message = f"cannot write to {folder}: {error.strerror}; choose another output folder"
        raise InputError(message) from error
    try:
        names = (*MASKS, *MAPS) if maps else MASKS
        for number, name in enumerate(names):
            image: sitk.Image = getattr(result, name)
            writing.write_image(image, part / f"{name}.nii.gz")
            if progress is not None:
                progress((number + 1) / (len(names) + 1))
        _write_report(result, part)
        written = [path.name for path in part.iterdir()]
        for path in part.iterdir():
            path.replace(folder / path.name)
        for stale in {f"{name}.nii.gz" for name in MAPS} - set(written):
            (folder / stale).unlink(missing_ok=True)
    except OSError as error:
        message = f"cannot write to {folder}: {error.strerror}; is there room on the disk?"
        raise InputError(message) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    if progress is not None:
        progress(1.0)
    return [folder / name for name in sorted(written)]


def _write_report(result: LesionResult, folder: Path) -> None:
    shots = pictures.key_slices(result.ct, result.lobes, result.lesions, result.maps.dram)
    writing.write_text(data.to_csv(result.report), folder / "lobes.csv")
    writing.write_json(data.to_json(result.report), folder / "report.json")
    writing.write_text(html.to_html(result.report, shots), folder / "report.html")
