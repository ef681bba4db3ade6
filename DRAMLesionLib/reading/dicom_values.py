"""From the stored numbers of DICOM images to HU: is the way there told, and is it the same for all?

Each image carries its own slope and intercept. One that lacks them, or has others than its
neighbours, shifts a slice by a thousand HU in the middle of a sound scan.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from DRAMLesionLib.errors import InputError, ScanWarning
from DRAMLesionLib.reading.dicom_header import (
    MAX_SIDE,
    Slice,
    floats,
    pixel_source,
    quiet_parser,
    refusal,
    shown,
)

MIN_SPAN_HU = 1000.0
"""From air to water: what the stored numbers must be able to express."""

MAX_SLOPE, MAX_INTERCEPT_HU = 100.0, 1e5
"""Beyond these a rescale is a damaged number, not the way to HU."""

MAX_STEP_HU = 150.0
"""Mean difference of neighbouring slices that anatomy does not explain."""

_EXPORT = "export the series again from the scanner or archive"
_BITS = (8, 12, 16, 32)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep ITK's remarks about files that are no images off the terminal."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


def check_rescale(slices: Sequence[Slice], folder: Path) -> list[ScanWarning]:
    """Check what the headers of a stack say about stored numbers, before any is read.

    Raises:
        InputError: If the rescale is missing in some images, or is no believable one.
    """
    _refuse_odd_storage(slices, folder)
    told = [(bool(s.tags["slope"]), bool(s.tags["intercept"])) for s in slices]
    if len(set(told)) > 1:
        absent = [s.path for s, both in zip(slices, told, strict=True) if not all(both)]
        what = (
            f"{len(absent)} of {len(slices)} images lack the rescale slope or intercept, so their "
            "HU are unknown"
        )
        raise refusal(folder, what, _EXPORT, absent)
    bad = [s for s in slices if not _believable(s)]
    if bad:
        first = bad[0]
        slope, intercept = (first.tags[name][:20] or "none" for name in ("slope", "intercept"))
        what = (
            f"{len(bad)} of {len(slices)} images have a rescale that gives no Hounsfield units "
            f"(slope {slope}, intercept {intercept}, {first.numbers['bits_stored']} bits)"
        )
        raise refusal(folder, what, _EXPORT, [s.path for s in bad])
    if told[0] in ((True, False), (False, True)):
        lacking, taken = ("intercept", 0) if told[0][0] else ("slope", 1)
        text = (
            f"The CT's images lack the rescale {lacking}: {taken} was taken, and HU are right only "
            "if that is."
        )
        return [ScanWarning("rescale-incomplete", text)]
    return []


def check_equal_values(
    voxels: np.ndarray, slices: Sequence[Slice], folder: Path
) -> list[ScanWarning]:
    """Check that slices whose numbers are stored in different ways give the same HU scale.

    Args:
        voxels: (k, j, i) HU.
        slices: One for each k.
        folder: For messages.

    Returns:
        A warning if there are several ways and they agree.

    Raises:
        InputError: If HU jump where the way of storing changes.
    """
    ways = [_way(s) for s in slices]
    if len(set(ways)) == 1:
        return []
    step = max(1, min(voxels.shape[1:]) // 128)
    coarse = np.clip(voxels[:, ::step, ::step].astype(np.float32), -1024.0, 1500.0)
    steps = np.abs(np.diff(coarse, axis=0)).mean(axis=(1, 2))
    change = np.array([a != b for a, b in pairwise(ways)])
    usual = float(np.median(steps[~change])) if (~change).any() else MAX_STEP_HU / 3
    jumps = np.flatnonzero(change & (steps > max(MAX_STEP_HU, 3 * usual))).tolist()
    if len(jumps):
        what = (
            f"rescale or bit depth change between slices, and HU jump there by "
            f"{steps[jumps[0]]:.0f} on average: for some slices they are wrong"
        )
        raise refusal(folder, what, _EXPORT, [slices[k + 1].path for k in jumps])
    text = (
        f"The CT's slices are stored with {len(set(ways))} different rescales or bit depths; each "
        "was read with its own, and neighbouring slices agree."
    )
    return [ScanWarning("mixed-rescale", text)]


def read_plane(one: Slice, folder: Path) -> np.ndarray:
    """Read the voxels of one image.

    Returns:
        (rows, columns) HU, of whatever number type the reader finds fit.

    Raises:
        InputError: If it cannot be read.
    """
    try:
        plane = _inverted_plane(one) if one.tags["photometric"] == "MONOCHROME1" else _plane(one)
    except MemoryError:
        raise
    except Exception as error:  # readers in C++ and Python fail in many ways on damaged bytes
        what = (
            f"the image {shown(one.path.name)} is cut short or damaged, or compressed in a way "
            "that cannot be read"
        )
        stored = what.replace(f" {shown(one.path.name)}", "")
        remedy = "copy or export the series again"
        message = f"{folder}: {what}; {remedy}"
        raise InputError(message, stored=f"{folder}: {stored}; {remedy}") from error
    broken = plane.dtype.kind == "f" and not np.isfinite(plane).all()
    if broken or plane.size != one.size[0] * one.size[1]:
        what = "an image does not hold what its header says"
        raise refusal(folder, what, "copy or export the series again", [one.path])
    return plane.reshape(one.size[1], one.size[0])


def _plane(one: Slice) -> np.ndarray:
    with quiet():
        return sitk.GetArrayFromImage(sitk.ReadImage(str(one.path), imageIO="GDCMImageIO"))


def _inverted_plane(one: Slice) -> np.ndarray:
    """Read an image whose small numbers are shown white: GDCM would turn the stored numbers round.

    How an image is shown says nothing about its HU.
    """
    from pydicom.pixels import pixel_array

    with quiet_parser():
        stored = pixel_array(pixel_source(one.path, one.syntax))
    slope = floats(one.tags["slope"] or "1", 1)
    intercept = floats(one.tags["intercept"] or "0", 1)
    values = stored * float(slope[0]) + float(intercept[0])  # type: ignore[index]
    return values.astype(np.int32) if (values == np.rint(values)).all() else values


def _refuse_odd_storage(slices: Sequence[Slice], folder: Path) -> None:
    tables = [s.path for s in slices if s.has_lut]
    if tables:
        what = (
            f"{len(tables)} of {len(slices)} images turn their values into others by a table "
            "(Modality LUT) instead of a rescale slope and intercept, which is not supported"
        )
        raise refusal(folder, what, "export the series as plain CT images", tables)
    odd = [s.path for s in slices if not _plain_storage(s)]
    if odd:
        what = f"{len(odd)} of {len(slices)} images have an impossible bit depth or size"
        raise refusal(folder, what, _EXPORT, odd)


def _plain_storage(one: Slice) -> bool:
    allocated, stored = one.numbers["bits_allocated"], one.numbers["bits_stored"]
    high, signed = one.numbers["high_bit"], one.numbers["signed"]
    return (
        allocated in _BITS
        and 1 <= stored <= allocated
        and stored - 1 <= high < allocated
        and signed in (0, 1)
        and max(one.size[:2]) <= MAX_SIDE
    )


def _believable(one: Slice) -> bool:
    slope = floats(one.tags["slope"] or "1", 1)
    intercept = floats(one.tags["intercept"] or "0", 1)
    if slope is None or intercept is None:
        return False
    span = float(slope[0]) * math.ldexp(1.0, one.numbers["bits_stored"])
    sane = float(slope[0]) <= MAX_SLOPE and abs(float(intercept[0])) <= MAX_INTERCEPT_HU
    return sane and span >= MIN_SPAN_HU


def _way(one: Slice) -> tuple[object, ...]:
    """Return what decides how stored numbers become HU."""
    numbers = ("bits_allocated", "bits_stored", "high_bit", "signed")
    slope = floats(one.tags["slope"] or "1", 1)
    intercept = floats(one.tags["intercept"] or "0", 1)
    return (
        *(float(v[0]) for v in (slope, intercept) if v is not None),
        one.tags["photometric"] == "MONOCHROME1",
        *(one.numbers[name] for name in numbers),
    )
