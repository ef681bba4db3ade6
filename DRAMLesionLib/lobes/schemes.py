"""Naming schemes: from the numbers and names of other tools to :class:`Lobe`, never by guessing.

Tools disagree about the numbers of the lobes, and a wrong guess would put lesions into the wrong
lobe without anybody noticing. So a number counts only together with a named scheme, with segment
names or codes in the file, or where the anatomy leaves exactly one reading.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import SimpleITK as sitk

from DRAMLesionLib.errors import LobeError, ScanWarning
from DRAMLesionLib.images import geometry
from DRAMLesionLib.lobes import LEFT_LOBES, RIGHT_LOBES, Lobe
from DRAMLesionLib.lobes.terminology import lobe_from_entry, lobe_from_name
from DRAMLesionLib.reading.notes import UNPLACED, add_notes, notes
from DRAMLesionLib.reading.segments import (
    segment_field,
    segment_indices,
    segment_label,
    segment_names,
    shown,
)

AUTO = "auto"

SCHEMES: dict[str, dict[int, Lobe]] = {
    "dram": {1: Lobe.LUL, 2: Lobe.LLL, 3: Lobe.RUL, 4: Lobe.RML, 5: Lobe.RLL},
    "lungmask": {1: Lobe.LUL, 2: Lobe.LLL, 3: Lobe.RUL, 4: Lobe.RML, 5: Lobe.RLL},
    "totalsegmentator": {10: Lobe.LUL, 11: Lobe.LLL, 12: Lobe.RUL, 13: Lobe.RML, 14: Lobe.RLL},
    "totalsegmentator-v1": {13: Lobe.LUL, 14: Lobe.LLL, 15: Lobe.RUL, 16: Lobe.RML, 17: Lobe.RLL},
    "rtsunet": {1: Lobe.LUL, 2: Lobe.LLL, 3: Lobe.RUL, 4: Lobe.RLL, 5: Lobe.RML},
}
"""Label to lobe for every scheme that can be named (``lungmask`` is its LTRCLobes model)."""

_WHOLE_BODY = {"totalsegmentator": 117, "totalsegmentator-v1": 104}
"""Schemes with other organs beside the lobes, and their largest label."""

_CLEAR_MM = 5.0
"""Centres of lobes closer than this along an axis say nothing about their order."""

_ORDER: tuple[tuple[Lobe, Lobe, int, str, bool], ...] = (
    *((a, b, 0, "to the patient's left of", True) for a in RIGHT_LOBES for b in LEFT_LOBES),
    (Lobe.RML, Lobe.RLL, 1, "behind", True),
    (Lobe.LUL, Lobe.LLL, 1, "behind", False),
    (Lobe.RUL, Lobe.RLL, 1, "behind", False),
    (Lobe.RML, Lobe.RUL, 1, "behind", False),
    (Lobe.LLL, Lobe.LUL, 2, "above", False),
    (Lobe.RLL, Lobe.RUL, 2, "above", False),
    (Lobe.RML, Lobe.RUL, 2, "above", False),
)
"""Pairs (low, high) along an axis of LPS. In the last column, whether the order must be clear; if
not, as in a slab of few slices, it must only not be clearly the other way round."""

_MAX_SAMPLES = 2_000_000


def scheme_names() -> tuple[str, ...]:
    """Return what a user can choose from, ``"auto"`` first."""
    return (AUTO, *SCHEMES)


def to_lobes(
    labels: sitk.Image,
    scheme: str = AUTO,
    names: Mapping[int, str] | None = None,
    name: str = "the lobe mask",
) -> sitk.Image:
    """Translate a label map into lobes.

    Args:
        labels: 3D image of integers, as :func:`DRAMLesionLib.reading.files.read_labels` returns it.
        scheme: A key of :data:`SCHEMES`, or ``"auto"``: segment names and codes, then numbers that
            only one scheme has, then the anatomy.
        names: What the labels are called, where the caller knows; goes before names in the file.
        name: What to call the file in messages.

    Returns:
        uint8 image on the grid of ``labels``: 0 or the value of a :class:`Lobe`. Labels that are
        not lobes become 0. The notes of ``labels`` are attached to it, and one that names the
        segments that were not recognised if a lobe is missing.

    Raises:
        LobeError: The scheme is unknown, none of its labels is there, or ``"auto"`` finds no or
            several readings.
    """
    if scheme != AUTO and scheme not in SCHEMES:
        message = f"'{scheme}' is no known lobe scheme: choose from {', '.join(scheme_names())}"
        raise LobeError(message)
    present = labels_present(labels)
    if not present:
        message = f"{name} is empty: it has no voxel with a label; give another file or none"
        raise LobeError(message)
    if scheme != AUTO:
        mapping = SCHEMES[scheme]
        if not present & mapping.keys():
            message = (
                f"{name} has the labels {_listed(present)}, but the scheme '{scheme}' numbers the "
                f"lobes {_listed(mapping)}: choose another one of {', '.join(scheme_names())}"
            )
            raise LobeError(message)
        return _translate(labels, mapping)
    names = dict(names) if names is not None else segment_names(labels)
    named, contradictions = _named_mapping(names, labels)
    mapping = {label: lobe for label, lobe in named.items() if label in present}
    lobes = _translate(labels, mapping or _infer(labels, present, name))
    if mapping:
        add_notes(lobes, _not_recognised(mapping, present, names))
        add_notes(lobes, [text for label, text in contradictions.items() if label in mapping])
    return lobes


def labels_present(labels: sitk.Image) -> set[int]:
    """Return all labels of an image but 0, exactly (every voxel is looked at)."""
    found: set[int] = set()
    for plane in sitk.GetArrayViewFromImage(labels):
        if plane.dtype == np.uint8:
            found.update(np.flatnonzero(np.bincount(plane.ravel(), minlength=256)).tolist())
        else:
            found.update(np.unique(plane).tolist())
    return found - {0}


def anatomy_problems(lobes: sitk.Image) -> list[str]:
    """Say where the lobes of a mask do not lie as lobes lie in a human body.

    Args:
        lobes: Image with the values of :class:`Lobe`.

    Returns:
        One short phrase a problem, such as ``"the right middle lobe is not in front of the right
        lower lobe"``; nothing if all is well or too few lobes are there to tell.
    """
    return _violations({Lobe(k): v for k, v in _centres(lobes, set(Lobe)).items()})


def _translate(labels: sitk.Image, mapping: Mapping[int, Lobe]) -> sitk.Image:
    values = sitk.GetArrayViewFromImage(labels)
    result = np.zeros(values.shape, dtype=np.uint8)
    if values.dtype == np.uint8:
        table = np.zeros(256, dtype=np.uint8)
        table[list(mapping)] = [int(lobe) for lobe in mapping.values()]
        np.take(table, values, out=result)
    else:
        for label, lobe in mapping.items():
            result[values == label] = lobe
    lobes = geometry.image_like(result, labels)
    add_notes(lobes, notes(labels))
    return lobes


def _not_recognised(
    mapping: Mapping[int, Lobe], present: set[int], names: Mapping[int, str]
) -> list[ScanWarning]:
    """Name the segments that may be the lobes that are missing."""
    missing = sorted(set(Lobe) - set(mapping.values()))
    others = sorted(present - mapping.keys())
    if not missing or not others:
        return []
    listed = ", ".join(shown(names.get(label) or str(label)) for label in others[:8])
    text = (
        f"No segment was recognised as {', '.join(lobe.full_name for lobe in missing)}. Of the "
        f"others, {listed}{' …' if len(others) > 8 else ''}, none has a name that says which lobe "
        "it is: rename it if one of them is."
    )
    return [ScanWarning("segments-unknown", text)]


def _named_mapping(
    names: Mapping[int, str], labels: sitk.Image
) -> tuple[dict[int, Lobe], dict[int, ScanWarning]]:
    """Return what names say, and codes where a name says nothing; and where both contradict."""
    mapping = {}
    for label, text in names.items():
        lobe = lobe_from_name(text)
        if lobe is not None:
            mapping[label] = lobe
    contradictions = {}
    for index in segment_indices(labels):
        value = segment_label(labels, index)
        lobe = lobe_from_entry(segment_field(labels, index, "Tags"))
        if value is None or lobe is None:
            continue
        if mapping.setdefault(value, lobe) != lobe:
            text = (
                f"The segment {shown(names[value])} of the lobe mask is the {lobe.full_name} by "
                f"its code, but the {mapping[value].full_name} by its name, which was followed: "
                "look whether that is right."
            )
            contradictions[value] = ScanWarning("segment-contradicts-code", text)
    return mapping, contradictions


def _infer(labels: sitk.Image, present: set[int], name: str) -> dict[int, Lobe]:
    """Find the one scheme that fits numbers and anatomy."""
    candidates = _candidates(present)
    # where the labels lie in the body is not known for all of them
    placed = all(note.code != UNPLACED for note in notes(labels))
    fitting: dict[tuple[tuple[int, Lobe], ...], dict[int, Lobe]] = {}
    for mapping in candidates.values():
        used = {label: lobe for label, lobe in mapping.items() if label in present}
        centres = {used[k]: v for k, v in _centres(labels, set(used)).items()}
        if not placed or not _violations(centres):
            fitting[tuple(sorted(used.items()))] = mapping
    if len(fitting) == 1:
        return next(iter(fitting.values()))
    choice = (
        f"name the scheme ({', '.join(SCHEMES)}) with --lobe-scheme or lobe_scheme=, or use a file "
        "with segment names (.seg.nrrd)"
    )
    if len(fitting) > 1:
        message = f"{name}: the labels {_listed(present)} fit more than one lobe scheme; {choice}"
    elif candidates:
        message = (
            f"{name}: the labels {_listed(present)} lie where no lobe scheme has its lobes; check "
            f"that left and right are not swapped, or {choice}"
        )
    else:
        message = f"{name}: the labels {_listed(present)} are those of no lobe scheme; {choice}"
        if len(present) <= 2:
            message += "; a mask of the two lungs, not of the five lobes, cannot be used"
    raise LobeError(message)


def _candidates(present: set[int]) -> dict[str, dict[int, Lobe]]:
    """Return the schemes whose numbers a file could be using: at least three of its lobes."""
    result = {}
    for scheme, mapping in SCHEMES.items():
        others = present - mapping.keys()
        largest = _WHOLE_BODY.get(scheme, 0)
        if len(present & mapping.keys()) >= 3 and all(0 < other <= largest for other in others):
            result[scheme] = mapping
    return result


def _centres(labels: sitk.Image, wanted: set[int]) -> dict[int, np.ndarray]:
    """Return the centre of each label in LPS mm, from every n-th voxel along each axis."""
    values = sitk.GetArrayViewFromImage(labels)
    step = max(1, round((values.size / _MAX_SAMPLES) ** (1 / 3)))
    coarse = np.array(values[::step, ::step, ::step])
    centres = {}
    for label in wanted:
        indices = np.argwhere(coarse == label)
        if len(indices):
            centre = indices.mean(axis=0)[::-1] * step
            centres[label] = np.array(
                labels.TransformContinuousIndexToPhysicalPoint(centre.tolist())
            )
    return centres


def _violations(centres: Mapping[Lobe, np.ndarray]) -> list[str]:
    """Check the order of the centres along L, P and S for each pair that anatomy orders."""
    problems = []
    for low, high, axis, phrase, clear in _ORDER:
        if low in centres and high in centres:
            distance = centres[high][axis] - centres[low][axis]
            if distance < (_CLEAR_MM if clear else -_CLEAR_MM):
                problems.append(f"the {high.full_name} is not {phrase} the {low.full_name}")
    return problems


def _listed(labels: set[int] | Mapping[int, Lobe]) -> str:
    shown = sorted(labels)
    return ", ".join(map(str, shown[:12])) + (" …" if len(shown) > 12 else "")
