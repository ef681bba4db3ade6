"""A result in the scene as the files from which its DICOM results are made.

They are those that ``segment`` writes, and the CT beside them, as :mod:`DRAMLesionLib.interchange`
reads them: on the CT's own grid, without the transforms above it, so that they lie on the slices
that it was read from.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import slicer

from DRAMLesionLib import writing
from DRAMLesionLib.errors import InputError
from DRAMLesionLib.mrml import segments, volumes
from DRAMLesionLib.mrml.result import NETWORK, Result, plain_rows

CT, SLICES = "ct.nrrd", "slices.txt"


def write_result(
    result: Result, folder: Path, slices: Sequence[str], output: Path
) -> Generator[None, None, list[str]]:
    """Write what the table counts, step by step, so that a window stays usable.

    The table is counted anew first: what was painted since is in it, too.

    Args:
        result: A complete result.
        folder: Where to; it exists.
        slices: Paths of the DICOM images that the CT was read from.
        output: Folder for the DICOM results.

    Returns:
        The words of the command line that makes the DICOM results.

    Raises:
        InputError: If a transform above the CT changes the size of its voxels, so that the numbers
            are not those of its slices.
        OutputError: If a file cannot be written.
    """
    ct, source = result.ct, result.source
    own = abs(np.linalg.det(volumes.ijk_to_ras(ct)[:3, :3])) / 1000.0
    if not np.isclose(own, volumes.voxel_ml(ct), rtol=1e-4):
        message = (
            f"the transform above {ct.GetName()} changes its size: take the CT out of it for DICOM "
            "results"
        )
        raise InputError(message)
    result.update_scores(source)
    yield
    edited = edited_parts(result)
    yield
    content = {**result.report, **plain_rows(result.rows)}
    vessels, lesions = _vessels_and_lesions(result)
    lobes = result.lobes()
    yield
    for name, values in (("vessels", vessels), ("lesions", lesions), ("lobes", lobes)):
        writing.write_image(_image(values, ct), folder / f"{name}.nii.gz")
        yield
    values = slicer.util.arrayFromVolume(ct)
    writing.write_image(_image(values, ct), folder / CT, compressed=False)
    yield
    writing.write_json(content, folder / "report.json")
    writing.write_text("".join(f"{path}\n" for path in slices), folder / SLICES)
    words = ["dicom", str(folder), str(folder / CT), "--slices", str(folder / SLICES)]
    words += ["-o", str(output), "--json-progress"]
    words += [] if source == NETWORK else ["--untyped"]
    return [*words, "--edited", *edited] if edited else words


def _vessels_and_lesions(result: Result) -> tuple[np.ndarray, np.ndarray]:
    """Return the mask of vessels and the labels of lesions that the table counts, both uint8."""
    if result.source == NETWORK:
        labels = result.lesions_and_vessels()
        vessels = labels == segments.LESION_SEGMENTS[3].label
        labels[vessels] = 0
        return vessels.astype(np.uint8), labels
    labels = result.pseudolabel()
    vessels = labels == segments.VESSEL_LABEL
    return vessels.astype(np.uint8), (labels == segments.LESION_LABEL).astype(np.uint8)


def edited_parts(result: Result) -> list[str]:
    """Return what of the shown result a person has changed: ``lesions``, ``lobes``, or both.

    A pseudo-label is edited as well if another threshold was chosen, or it follows points.
    """
    of_network, of_lobes = result.edited_layers()
    of_lesions = of_network if result.source == NETWORK else result.pseudolabel_is_chosen
    parts = {"lesions": of_lesions, "lobes": of_lobes}
    return [part for part, is_edited in parts.items() if is_edited]


def _image(values: np.ndarray, ct: Any) -> sitk.Image:
    image = sitk.GetImageFromArray(values)
    volumes.set_geometry(image, volumes.ijk_to_ras(ct))
    return image
