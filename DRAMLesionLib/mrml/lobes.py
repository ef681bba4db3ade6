"""Lobes that are in the scene already: recognised by code or name, correctable by the user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import SimpleITK as sitk
import slicer
import vtk

from DRAMLesionLib.errors import LobeError
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.lobes.schemes import labels_present, to_lobes
from DRAMLesionLib.lobes.terminology import TERMINOLOGY_TAG, lobe_from_entry, lobe_from_name
from DRAMLesionLib.mrml import segments, volumes

Matches = dict[Lobe, str]
"""For each lobe the ID of a segment, or the number of a label as text; lobes without are absent."""

_SURE = 3
"""So many lobes have to be named by the colour table of a label map, for its names to count."""


def is_segmentation(node: Any) -> bool:
    """Tell whether a node is a segmentation and not a label map."""
    return bool(node.IsA("vtkMRMLSegmentationNode"))


def choices(node: Any) -> list[tuple[str, str]]:
    """Return (key, name) of everything in a node that could be a lobe.

    Args:
        node: Segmentation or label map node; keys are segment IDs or label numbers.
    """
    if is_segmentation(node):
        segmentation = node.GetSegmentation()
        return [
            (identifier, segmentation.GetSegment(identifier).GetName())
            for identifier in segmentation.GetSegmentIDs()
        ]
    present = _labels(node)
    names = _label_names(node, present)
    return [(str(label), names.get(label) or f"label {label}") for label in sorted(present)]


def match(node: Any) -> Matches:
    """Recognise the lobes of a node.

    Codes count before names; of several candidates for a lobe the first is taken. The numbers of a
    label map without names count only where one numbering alone fits the anatomy.
    """
    if is_segmentation(node):
        return _match_segments(node)
    found: Matches = {}
    for label, name in _label_names(node, _labels(node)).items():
        lobe = lobe_from_name(name)
        if lobe is not None:
            found.setdefault(lobe, str(label))
    # the colour table of another kind of label map names one or two lobes by chance
    return found if len(found) >= _SURE else _match_numbers(node) or found


def _match_segments(node: Any) -> Matches:
    found: Matches = {}
    segmentation = node.GetSegmentation()
    identifiers = list(segmentation.GetSegmentIDs())
    for identifier in identifiers:
        lobe = lobe_from_entry(_tag(segmentation.GetSegment(identifier)))
        if lobe is not None:
            found.setdefault(lobe, identifier)
    for identifier in identifiers:
        lobe = lobe_from_name(segmentation.GetSegment(identifier).GetName())
        if lobe is not None and identifier not in found.values():
            found.setdefault(lobe, identifier)
    return found


def _tag(segment: Any) -> str:
    value = vtk.reference("")
    return str(value) if segment.GetTag(TERMINOLOGY_TAG, value) else ""


def _labels(node: Any) -> set[int]:
    if node.GetImageData() is None:
        return set()
    return labels_present(sitk.GetImageFromArray(slicer.util.arrayFromVolume(node)))


def _label_names(node: Any, labels: set[int]) -> dict[int, str]:
    display = node.GetDisplayNode()
    colours = display.GetColorNode() if display else None
    if colours is None:
        return {}
    return {label: colours.GetColorName(label) or "" for label in labels}


def _match_numbers(node: Any) -> Matches:
    """Return what the library reads from the numbers and the anatomy; nothing if it cannot."""
    try:
        image = volumes.image_from_volume(node)
        translated = sitk.GetArrayFromImage(to_lobes(sitk.Cast(image, sitk.sitkUInt16)))
    except (LobeError, RuntimeError):
        return {}
    labels = slicer.util.arrayFromVolume(node)
    found: Matches = {}
    for lobe in Lobe:
        where = np.argmax(translated == lobe)
        if translated.flat[where] == lobe:
            found[lobe] = str(int(labels.flat[where]))
    return found


def lobe_image(node: Any, matches: Mapping[Lobe, str], ct: Any) -> sitk.Image:
    """Return lobes of the scene as a label map with the values of :class:`Lobe`.

    Args:
        node: Segmentation or label map node.
        matches: Which segment or label is which lobe.
        ct: The CT's volume node; segments are brought to its grid, a label map keeps its own.

    Raises:
        LobeError: If no lobe is matched, or one segment stands for two lobes.
    """
    name = node.GetName()
    if not matches:
        message = f"no lobe was recognised in {name}: choose the segment of each lobe in the table"
        raise LobeError(message)
    if len(set(matches.values())) < len(matches):
        message = f"one segment of {name} is chosen for several lobes: choose each once"
        raise LobeError(message)
    source = ct if is_segmentation(node) else node
    values = np.zeros(volumes.shape(source), dtype=np.uint8)
    for lobe, key in matches.items():
        if is_segmentation(node):
            values[segments.mask_of(node, key, ct)] = lobe
        else:
            values[slicer.util.arrayFromVolume(node) == int(key)] = lobe
    image = sitk.GetImageFromArray(values)
    volumes.set_geometry(image, volumes.ijk_to_world(source))
    return image
