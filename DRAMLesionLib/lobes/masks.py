"""Lobe masks as files: a label map, a Slicer or DICOM segmentation, a folder of masks."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from DRAMLesionLib.errors import LobeError, ScanWarning
from DRAMLesionLib.images import geometry
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.lobes.terminology import lobe_from_entry, lobe_from_name
from DRAMLesionLib.paths import existing, image_suffix
from DRAMLesionLib.reading.dicom_seg import segmentation_in
from DRAMLesionLib.reading.files import read_labels
from DRAMLesionLib.reading.notes import add_notes, notes
from DRAMLesionLib.reading.segments import segment_names

_SAME_PLACE = 0.01
"""Voxels by which masks of one folder may differ in place: headers round."""


def read_lobes(path: Path | str) -> tuple[sitk.Image, dict[int, str] | None]:
    """Read a lobe mask.

    Args:
        path: What :func:`DRAMLesionLib.reading.files.read_labels` reads, or a folder with one mask
            a lobe, the files named as TotalSegmentator names them
            (``lung_upper_lobe_left.nii.gz``) or with one DICOM SEG.

    Returns:
        The labels, and the names of its segments if it has any. Where segments overlap, lobes go
        before all others. What a reader of the report has to know is attached as
        :mod:`DRAMLesionLib.reading.notes`; a mask whose file does not say where it lies is read,
        and :func:`DRAMLesionLib.lobes.fit.fit_lobes` decides about it.

    Raises:
        InputError: If it cannot be read or holds no labels.
    """
    path = existing(path)
    labels = (
        _read_folder_of_masks(path)
        if path.is_dir()
        else read_labels(path, rank=_rank, unplaced=True)
    )
    return labels, segment_names(labels) or None


def _rank(name: str, tags: str) -> int:
    """Let no other segment, such as one of the whole lung, overwrite a lobe."""
    return int(lobe_from_name(name) is not None or lobe_from_entry(tags) is not None)


def _read_folder_of_masks(folder: Path) -> sitk.Image:
    """Read one mask a lobe and number them in the order of the lobes."""
    files = _mask_files(folder)
    if not files and (segmentation := segmentation_in(folder)) is not None:
        return read_labels(segmentation, rank=_rank, unplaced=True)
    if not files:
        inner = [path.name for path in _entries(folder) if path.is_dir() and _mask_files(path)]
        message = f"{folder} holds no lobe masks" + (
            f", but its subfolder {inner[0]} does: give that"
            if inner
            else ": give a label file, or a folder with files such as lung_upper_lobe_left.nii.gz"
        )
        raise LobeError(message)
    masks: dict[Lobe, sitk.Image] = {}
    found: list[ScanWarning] = []
    for lobe, path in sorted(files.items()):
        mask = read_labels(path, unplaced=True)
        found += notes(mask)
        mask, more = _on_one_grid(mask > 0, next(iter(masks.values()), None), folder, path.name)
        found += more
        masks[lobe] = mask
    found += _overlaps(masks)
    result = sitk.Image(masks[min(masks)]) * 0
    for lobe, mask in masks.items():
        result += mask * int(lobe)
    for index, lobe in enumerate(masks):
        result.SetMetaData(f"Segment{index}_LabelValue", str(int(lobe)))
        result.SetMetaData(f"Segment{index}_Name", lobe.full_name)
    add_notes(result, found)
    return result


def _mask_files(folder: Path) -> dict[Lobe, Path]:
    """Return the file of each lobe.

    Raises:
        LobeError: If there are several for one lobe.
    """
    files: dict[Lobe, Path] = {}
    for path in _entries(folder):
        suffix = image_suffix(path)
        lobe = lobe_from_name(path.name[: -len(suffix)]) if suffix else None
        if lobe is None or path.name.startswith("."):
            continue
        if lobe in files:
            message = (
                f"{folder} has several masks of the {lobe.full_name}, {files[lobe].name} and "
                f"{path.name}: leave one there"
            )
            raise LobeError(message)
        files[lobe] = path
    return files


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        message = f"{folder} cannot be read ({error.strerror}): check that you may read it"
        raise LobeError(message) from error


def _on_one_grid(
    mask: sitk.Image, grid: sitk.Image | None, folder: Path, name: str
) -> tuple[sitk.Image, list[ScanWarning]]:
    """Bring a mask to the grid of the first one of its folder."""
    mask = sitk.Cast(mask, sitk.sitkUInt8)
    if grid is None:
        return mask, []
    if mask.GetSize() != grid.GetSize():
        message = f"{folder}: the lobe masks differ in size ({name}); make them anew"
        raise LobeError(message)
    if geometry.same_grid(mask, grid, _SAME_PLACE):
        mask.CopyInformation(grid)
        return mask, []
    text = (
        "The lobe masks of the folder do not lie on one grid; they were brought to that of the "
        "first one."
    )
    return geometry.resample(mask, grid, "nearest"), [ScanWarning("lobes-other-grids", text)]


def _overlaps(masks: dict[Lobe, sitk.Image]) -> list[ScanWarning]:
    """Take what masks share from all but the last of them, and tell it."""
    shared = 0
    pairs = []
    for a, b in combinations(masks, 2):
        both = sitk.And(masks[a], masks[b])
        count = int(np.count_nonzero(sitk.GetArrayViewFromImage(both)))
        if count:
            shared += count
            pairs.append(f"{a.full_name} and {b.full_name}")
            masks[a] = masks[a] - both
    if not pairs:
        return []
    volume = shared * geometry.voxel_ml(next(iter(masks.values())))
    text = (
        f"Lobe masks overlap, {', '.join(pairs)}, by {volume:.2g} ml in all: the later one of each "
        "pair got what they share."
    )
    return [ScanWarning("segments-overlap", text)]
