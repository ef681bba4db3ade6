"""Slicer segmentations as files: names, codes and layers of segments in the fields of an image."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk


def segment_names(labels: sitk.Image) -> dict[int, str]:
    """Return label to segment name from the header fields of a Slicer ``.seg.nrrd`` file."""
    names = {}
    for index in segment_indices(labels):
        value = segment_field(labels, index, "LabelValue")
        if value.strip().isdigit():
            names[int(value)] = segment_field(labels, index, "Name")
    return names


def segment_indices(labels: sitk.Image) -> list[int]:
    """Return the numbers under which the fields name segments, in order."""
    keys = (key for key in labels.GetMetaDataKeys() if key.startswith("Segment"))
    numbers = {key[7:].split("_")[0] for key in keys if key.endswith("_LabelValue")}
    return sorted(int(number) for number in numbers if number.isdigit())


def segment_field(labels: sitk.Image, index: int, field: str) -> str:
    """Return a field of a segment, such as ``Name``; empty if it has none."""
    key = f"Segment{index}_{field}"
    return labels.GetMetaData(key) if labels.HasMetaDataKey(key) else ""


def flatten_layers(image: sitk.Image) -> sitk.Image:
    """Merge the layers of a Slicer segmentation into one label map with new label numbers."""
    layers = sitk.GetArrayViewFromImage(image)
    flat = np.zeros(layers.shape[:-1], dtype=np.uint8)
    keys = [key for key in image.GetMetaDataKeys() if key.startswith("Segment")]
    numbers = sorted(int(key[7:-11]) for key in keys if key.endswith("_LabelValue"))
    for new, number in enumerate(numbers, start=1):
        layer_key = f"Segment{number}_Layer"
        layer = int(image.GetMetaData(layer_key)) if image.HasMetaDataKey(layer_key) else 0
        label = int(image.GetMetaData(f"Segment{number}_LabelValue"))
        flat[layers[..., layer] == label] = new
    result = sitk.GetImageFromArray(flat)
    result.CopyInformation(image)
    for key in keys:
        result.SetMetaData(key, image.GetMetaData(key))
    for new, number in enumerate(numbers, start=1):
        result.SetMetaData(f"Segment{number}_LabelValue", str(new))
    return result
