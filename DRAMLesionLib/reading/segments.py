"""Slicer segmentations as files: names, codes and layers of segments in the fields of an image."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import SimpleITK as sitk

from DRAMLesionLib.errors import InputError, ScanWarning
from DRAMLesionLib.images import geometry

Rank: TypeAlias = Callable[[str, str], int]
"""Tells from name and tags of a segment whether it goes before others where they overlap."""

_MAX_NAME = 40


def segment_names(labels: sitk.Image) -> dict[int, str]:
    """Return label to segment name from the header fields of a Slicer ``.seg.nrrd`` file."""
    names = {}
    for index in segment_indices(labels):
        value = segment_label(labels, index)
        if value is not None:
            names[value] = segment_field(labels, index, "Name")
    return names


def segment_indices(labels: sitk.Image) -> list[int]:
    """Return the numbers under which the fields name segments, in order."""
    keys = (key for key in labels.GetMetaDataKeys() if key.startswith("Segment"))
    numbers = {key[7:].split("_")[0] for key in keys if key.endswith("_LabelValue")}
    return sorted(int(number) for number in numbers if _is_number(number))


def segment_field(labels: sitk.Image, index: int, field: str) -> str:
    """Return a field of a segment, such as ``Name``; empty if it has none."""
    key = f"Segment{index}_{field}"
    return _text(labels, key) if labels.HasMetaDataKey(key) else ""


def copy_segments(source: sitk.Image, target: sitk.Image) -> None:
    """Give an image the fields about segments of another one."""
    for key in source.GetMetaDataKeys():
        if key.startswith("Segment") and key.isascii():
            target.SetMetaData(key, _text(source, key))


def _text(image: sitk.Image, key: str) -> str:
    """Return a field; bytes that are no UTF-8 in the file become question marks."""
    return image.GetMetaData(key).encode("utf-8", "replace").decode("utf-8")


def segment_label(labels: sitk.Image, index: int) -> int | None:
    """Return the value of a segment's voxels; None if the field holds no number."""
    value = segment_field(labels, index, "LabelValue").strip()
    return int(value) if _is_number(value) else None


def shown(name: str) -> str:
    """Return a segment's name as it can stand in a message: short, and no control characters."""
    text = "".join(letter for letter in name if letter.isprintable()).strip()
    return f"'{text[:_MAX_NAME]}…'" if len(text) > _MAX_NAME else f"'{text}'"


def flatten_layers(
    image: sitk.Image, name: str, rank: Rank | None = None
) -> tuple[sitk.Image, list[ScanWarning]]:
    """Merge the layers of a Slicer segmentation into one label map with new label numbers.

    Args:
        image: Vectors with one value a layer.
        name: What to call the file in an error.
        rank: Where segments overlap, the one with the higher rank gets what they share, of the
            same rank the later one. If left out, all have the same.

    Returns:
        The label map, with the fields of its segments, and a warning if segments of the same rank
        overlap; of the rank 0, only if ``rank`` is left out.

    Raises:
        InputError: If a segment lies in a layer that the file does not have.
    """
    layers = sitk.GetArrayViewFromImage(image)
    indices = segment_indices(image)
    kind = np.uint8 if len(indices) < 256 else np.uint32
    flat = np.zeros(layers.shape[:-1], dtype=kind)
    ranks = {index: _rank(image, index, rank) for index in indices}
    overlaps: dict[tuple[int, int], int] = {}
    for index in sorted(indices, key=ranks.__getitem__):
        where = layers[..., _layer(image, index, name)] == segment_label(image, index)
        for other, count in zip(*np.unique(flat[where], return_counts=True), strict=True):
            before = indices[int(other) - 1]
            if other and ranks[before] == ranks[index] != 0:
                overlaps[before, index] = int(count)
        flat[where] = indices.index(index) + 1
    result = geometry.image_like(flat, image)
    copy_segments(image, result)
    for new, index in enumerate(indices, start=1):
        result.SetMetaData(f"Segment{index}_LabelValue", str(new))
    return result, _told(image, overlaps)


def _rank(image: sitk.Image, index: int, rank: Rank | None) -> int:
    fields = [segment_field(image, index, field) for field in ("Name", "Tags")]
    return 1 if rank is None else rank(*fields)


def _told(image: sitk.Image, overlaps: dict[tuple[int, int], int]) -> list[ScanWarning]:
    """Say which segments share voxels."""
    if not overlaps:
        return []
    pairs = [
        f"{shown(segment_field(image, a, 'Name'))} and {shown(segment_field(image, b, 'Name'))}"
        for a, b in list(overlaps)[:5]
    ]
    volume = sum(overlaps.values()) * geometry.voxel_ml(image)
    text = (
        f"Segments overlap, {', '.join(pairs)}, by {volume:.2g} ml in all: the later one of each "
        "pair got what they share."
    )
    return [ScanWarning("segments-overlap", text)]


def _layer(image: sitk.Image, index: int, name: str) -> int:
    text = segment_field(image, index, "Layer").strip() or "0"
    count = image.GetNumberOfComponentsPerPixel()
    if not _is_number(text) or int(text) >= count:
        message = (
            f"{name} is damaged: its segment {index} lies in layer {text[:20]}, and there are "
            f"{count} layers; save it again"
        )
        raise InputError(message)
    return int(text)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10
