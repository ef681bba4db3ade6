"""Lobe masks as files: a label map, a Slicer segmentation, or a folder with one mask a lobe."""

from __future__ import annotations

from pathlib import Path

import SimpleITK as sitk

from DRAMLesionLib.errors import LobeError
from DRAMLesionLib.lobes.terminology import lobe_from_name
from DRAMLesionLib.paths import existing, image_suffix
from DRAMLesionLib.reading.files import read_labels
from DRAMLesionLib.reading.segments import segment_names


def read_lobes(path: Path | str) -> tuple[sitk.Image, dict[int, str] | None]:
    """Read a lobe mask.

    Args:
        path: What :func:`DRAMLesionLib.reading.files.read_labels` reads, or a folder with one mask
            a lobe, the files named as TotalSegmentator names them
            (``lung_upper_lobe_left.nii.gz``).

    Returns:
        The labels, and the names of its segments if it has any.

    Raises:
        InputError: If it cannot be read or holds no labels.
    """
    path = existing(path)
    labels = _read_folder_of_masks(path) if path.is_dir() else read_labels(path)
    return labels, segment_names(labels) or None


def _read_folder_of_masks(folder: Path) -> sitk.Image:
    """Read one mask a lobe and number them in the order of the lobes."""
    masks = {}
    for path in sorted(folder.iterdir()):
        lobe = lobe_from_name(path.name[: -len(image_suffix(path))]) if image_suffix(path) else None
        if lobe is not None:
            masks[lobe] = path
    if not masks:
        message = (
            f"{folder} holds no lobe masks: give a label file, or a folder with files such as "
            "lung_upper_lobe_left.nii.gz"
        )
        raise LobeError(message)
    result: sitk.Image | None = None
    for lobe, path in sorted(masks.items()):
        mask = sitk.Cast(read_labels(path) > 0, sitk.sitkUInt8) * int(lobe)
        if result is not None and mask.GetSize() != result.GetSize():
            message = f"{folder}: the lobe masks differ in size ({path.name}); make them anew"
            raise LobeError(message)
        result = mask if result is None else sitk.Maximum(result, mask)
    assert result is not None  # noqa: S101
    for index, lobe in enumerate(sorted(masks)):
        result.SetMetaData(f"Segment{index}_LabelValue", str(int(lobe)))
        result.SetMetaData(f"Segment{index}_Name", lobe.full_name)
    return result
