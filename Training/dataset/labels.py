"""Pseudo-labels that a person drew or corrected: as label maps, or as Slicer's segmentations."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.images import geometry
from DRAMLesionLib.lobes.schemes import labels_present
from DRAMLesionLib.lobes.terminology import (
    INFILTRATE_TERM,
    LESION_TERM,
    LUNG_TERM,
    VESSEL_TERM,
    entry_codes,
    lobe_from_entry,
    lobe_from_name,
)
from DRAMLesionLib.reading.files import read_labels
from DRAMLesionLib.reading.notes import add_notes, notes
from DRAMLesionLib.reading.segments import (
    segment_field,
    segment_indices,
    segment_label,
    shown,
)
from Training.dataset.cache import BACKGROUND, LESION, VESSEL

_WORDS = {
    LESION: {"lesion", "lesions", "infiltrate", "infiltrates", "consolidation", "opacity"}
    | {"opacities", "ggo", "glass"},
    VESSEL: {"vessel", "vessels"},
    BACKGROUND: {"lung", "lungs", "lobe", "lobes"},
}
_BY_CODE = {
    LESION_TERM.type.value: LESION,
    INFILTRATE_TERM.type.value: LESION,
    VESSEL_TERM.type.value: VESSEL,
    LUNG_TERM.type.value: BACKGROUND,
}
_CLASSES = {BACKGROUND: "lung", VESSEL: "vessel", LESION: "lesion"}


def read_pseudolabel(path: Path) -> sitk.Image:
    """Read a pseudo-label.

    Args:
        path: A label map with the values that training uses, or a Slicer segmentation whose
            segments are named or coded as lesion and vessel, as the module writes them; lungs and
            lobes in it are passed over. Where segments overlap, lesion goes before vessel.

    Returns:
        0 background, 1 vessel, 2 lesion; other values of a plain label map are left as they are.
        What a user has to know is attached as :mod:`DRAMLesionLib.reading.notes`.

    Raises:
        InputError: If it cannot be read, or a segment with voxels is neither.
    """
    if path.is_dir():
        message = f"{path} is a folder; a pseudo-label is one file"
        raise InputError(message)
    labels = read_labels(path, rank=lambda name, tags: max(_classes_of(name, tags), default=0))
    if not segment_indices(labels):
        return labels
    present = labels_present(labels)
    classes: dict[int, int] = {}
    for index in segment_indices(labels):
        value = segment_label(labels, index)
        if value is not None and value in present:
            classes[value] = _class_of(labels, index, path)
    if unnamed := sorted(present - classes.keys()):
        message = f"{path} has voxels of the value {unnamed[0]}, which none of its segments has"
        raise InputError(message)
    result = sitk.ChangeLabel(labels, {value: float(kind) for value, kind in classes.items()})
    add_notes(result, notes(labels))
    return result


def _class_of(labels: sitk.Image, index: int, path: Path) -> int:
    """Return what a segment stands for, by its name and its code."""
    name, tags = segment_field(labels, index, "Name"), segment_field(labels, index, "Tags")
    found = _classes_of(name, tags)
    if len(found) == 1:
        return found.pop()
    if found:
        told = " and ".join(_CLASSES[kind] for kind in sorted(found))
        message = f"{path}: name and code of the segment {shown(name)} say {told}: make them agree"
    else:
        message = (
            f"{path} has the segment {shown(name)}, which is neither lesion nor vessel: name it "
            "so, or take it out"
        )
    raise InputError(message)


def _classes_of(name: str, tags: str) -> set[int]:
    """Return what the name of a segment and its code say; they may disagree, or say nothing."""
    words = set(re.findall(r"[^\W\d_]+", name.lower()))
    by_name = {kind for kind, known in _WORDS.items() if words & known}
    if lobe_from_name(name) is not None:
        by_name = {BACKGROUND}
    _, code, _ = entry_codes(tags)
    by_code = BACKGROUND if lobe_from_entry(tags) is not None else _BY_CODE.get(code)
    found = by_name - {BACKGROUND} or by_name
    found |= set() if by_code is None else {by_code}
    return found


def label_on(label: sitk.Image, grid: sitk.Image, name: str) -> np.ndarray:
    """Bring a pseudo-label by a person to a grid of its scan.

    Args:
        label: 0 background, 1 vessel, 2 lesion.
        grid: Covers the scan.
        name: What to call the label in an error.

    Returns:
        (k, j, i) uint8.

    Raises:
        InputError: If the label holds another value or lies elsewhere.
    """
    values = np.unique(sitk.GetArrayViewFromImage(label))
    if strange := [int(value) for value in values if value not in (0, VESSEL, LESION)]:
        message = (
            f"{name} has the values {', '.join(map(str, strange))}; a pseudo-label has 0 for "
            f"background, {VESSEL} for vessel and {LESION} for lesion"
        )
        raise InputError(message)
    result = geometry.array(geometry.resample(label, grid, "nearest")).astype(np.uint8)
    if values.any() and not result.any():
        message = f"{name} lies outside of the CT: was it saved from another scan?"
        raise InputError(message)
    return result
