"""DICOM series of CT images: found in a folder, sorted into usable and other ones, chosen.

Localisers, pictures and derived images lie beside the scan in nearly every export. They are told by
their headers and left out; where more than one scan remains, the caller has to say which.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from DRAMLesionLib.errors import InputError, ScanWarning
from DRAMLesionLib.paths import readable_name
from DRAMLesionLib.reading.dicom_header import (
    DamagedImageError,
    Slice,
    read_header,
    refusal,
    regular,
    shown,
)
from DRAMLesionLib.reading.dicom_stack import read_stack

MAX_FILES = 20_000
MIN_SERIES_MM = 15.0
"""A stack lower than this beside a higher one is a test or monitoring series, not the scan."""

SAME_SPACING = 5e-4
"""Share of the pixel spacing by which images of one stack may differ: a quarter of a pixel over
the width of a slice. Other rounding differs by much less, another reconstruction by more."""

_SAME_COSINE = 0.01
_PLACELESS = "images without a position"


@dataclass(frozen=True)
class DicomSeries:
    """A series as a user would choose it.

    Attributes:
        uid: Series instance UID.
        description: Series description, empty if there is none.
        modality: Such as ``"CT"``.
        number_of_files: Images that belong to the stack.
        left_out: Why the series is not usable: ``"localiser"``, ``"derived"`` and the like, or
            empty.
        slices: The images of the stack, in no order.
        dropped: Images of the series that do not belong to the stack, such as a localiser.
    """

    uid: str
    description: str
    modality: str
    number_of_files: int
    left_out: str
    slices: tuple[Slice, ...] = field(repr=False, default=())
    dropped: tuple[Slice, ...] = field(repr=False, default=())


def list_series(folder: Path | str) -> list[DicomSeries]:
    """List the DICOM series in a folder and its subfolders, usable or not, largest first.

    Raises:
        InputError: If the folder is missing, may not be read, or has no DICOM image in it.
    """
    series, _ = _scan(Path(folder))
    return series


def series_files(folder: Path, series_uid: str | None) -> list[Path]:
    """Return the files of the one usable CT series of a folder, in no order.

    Raises:
        InputError: If there is no usable series or more than one.
    """
    series, _ = _scan(folder)
    return [one.path for one in _choose(series, series_uid, folder).slices]


def read_series(folder: Path, series_uid: str | None) -> tuple[sitk.Image, list[ScanWarning]]:
    """Read the one usable CT series of a folder.

    Args:
        folder: Searched with its subfolders.
        series_uid: Which series, where there are several.

    Returns:
        The CT as stored after rescaling (int16 or float32), first slice first along the normal of
        the slices, and warnings.

    Raises:
        InputError: If there is no usable series or more than one, or its slices make no volume.
    """
    series, damaged = _scan(folder)
    chosen = _choose(series, series_uid, folder)
    _refuse_damaged(chosen, series, damaged, folder)
    warnings = []
    if chosen.left_out:
        text = (
            "The CT series consists of derived images (reformatted or processed after the scan): "
            "noise and sharpness may differ from what the method knows."
        )
        warnings.append(ScanWarning("derived-series", text))
    _refuse_unusable(chosen, folder)
    slices = _one_shape(chosen, folder)
    kept = {s.path for s in slices}
    spared = [s for s in (*chosen.slices, *chosen.dropped) if s.path not in kept]
    if spared:
        text = (
            f"{len(spared)} image(s) of the CT series, such as a localiser, are not part of the "
            "scan."
        )
        warnings.append(ScanWarning("images-left-out", text))
    image, found = read_stack(slices, folder, spared)
    return image, warnings + found


def _files(folder: Path, seen: frozenset[Path] = frozenset()) -> list[Path]:
    """Return the regular files of a folder and its subfolders, links to folders followed once."""
    try:
        found = []
        for path in sorted(folder.iterdir()):
            if path.name.startswith(".") or path.name.upper() == "DICOMDIR":
                continue
            if path.is_dir():
                real = path.resolve()
                found += [] if real in seen else _files(path, seen | {folder.resolve(), real})
            elif path.exists() and regular(path):
                found.append(path)
            if len(found) > MAX_FILES:
                message = f"{folder} holds more than {MAX_FILES} files: give the folder of one scan"
                raise InputError(message)
    except OSError as error:
        reason = error.strerror or "unknown reason"
        message = f"{shown(str(folder))} cannot be read ({reason}): check that you may read it"
        raise InputError(message) from error
    return found


def _scan(folder: Path) -> tuple[list[DicomSeries], list[Path]]:
    """Return the series of a folder and the CT images in it that are damaged."""
    paths = _files(folder)
    slices, damaged, closed = [], [], []
    for path in paths:
        try:
            found = read_header(path)
        except DamagedImageError:
            damaged.append(path)
        except OSError:
            closed.append(path)
        else:
            slices += [found] if found is not None else []
    if closed:
        what = f"{len(closed)} of {len(paths)} files cannot be read"
        raise refusal(folder, what, "check that you may read them", closed)
    if not slices:
        raise InputError(_nothing(folder, paths, damaged))
    uids = dict.fromkeys(s.tags["series"] for s in slices)
    series = [_series(uid, [s for s in slices if s.tags["series"] == uid]) for uid in uids]
    return sorted(series, key=lambda s: (-s.number_of_files, s.uid)), damaged


def _nothing(folder: Path, paths: list[Path], damaged: list[Path]) -> str:
    if damaged:
        return (
            f"{folder}: none of the {len(damaged)} DICOM images can be read, they are cut short, "
            "damaged or compressed in an unusual way; copy or export the series again"
        )
    volumes = [
        shown(p.name) for p in paths if p.name.lower().endswith((".nii", ".nii.gz", ".nrrd"))
    ]
    if volumes:
        return f"{folder} holds no DICOM image, but {volumes[0]}: give the path of that file"
    return f"{folder} holds no DICOM image ({len(paths)} files looked at): give another folder"


def _series(uid: str, slices: list[Slice]) -> DicomSeries:
    kinds = Counter(s.kind for s in slices)
    # one localiser in a series of slices does not make it a series of localisers
    kind = "" if kinds[""] >= 2 else kinds.most_common(1)[0][0]
    stack = tuple(s for s in slices if s.kind == kind)
    dropped = tuple(s for s in slices if s.kind != kind)
    first = stack[0]
    if not kind and _height(stack) < MIN_SERIES_MM:
        kind = "too few slices"
    return DicomSeries(
        uid, first.tags["description"], first.tags["modality"], len(stack), kind, stack, dropped
    )


def _height(slices: Sequence[Slice]) -> float:
    positions = np.array([s.position for s in slices])
    return float(np.linalg.norm(np.ptp(positions, axis=0)))


def _choose(series: list[DicomSeries], uid: str | None, folder: Path) -> DicomSeries:
    """Return the one series to read; what could be chosen instead is told, but not stored."""
    if uid is not None:
        choice = [s for s in series if s.uid == uid]
        if not choice:
            start = f"{folder} has no DICOM series {shown(uid)}"
            message = f"{start}; it has {_listed(series)}"
            raise InputError(message, stored=start)
    else:
        choice = [s for s in series if not s.left_out]
        for second in ("derived", "too few slices"):
            choice = choice or [s for s in series if s.left_out == second]
    if len(choice) > 1:
        stored = (
            f"{folder} holds {len(choice)} usable CT series: choose one with --series UID or "
            "series_uid="
        )
        message = f"{stored}: {_listed(choice)}"
        raise InputError(message, stored=stored)
    if not choice or choice[0].left_out not in ("", "derived", "too few slices"):
        kinds = {s.left_out for s in choice or series}
        hint = ""
        if "multi-frame" in kinds:
            hint = "; convert a multi-frame file to NIfTI first"
        elif _PLACELESS in kinds:
            hint = (
                "; without positions (ImagePositionPatient, ImageOrientationPatient) slices cannot "
                "be put in order: export the series again from the scanner or archive"
            )
        start = f"{folder} holds no usable CT series"
        stored = f"{start}, only {', '.join(sorted(kinds))}{hint}"
        message = f"{start}, only {_listed(choice or series)}{hint}"
        raise InputError(message, stored=stored)
    return choice[0]


def _listed(series: Sequence[DicomSeries]) -> str:
    texts = []
    for one in series[:10]:
        reason = f", {one.left_out}" if one.left_out else ""
        title = one.description or "no description"
        texts.append(f"{one.uid} ({title}, {one.modality} {one.number_of_files} images{reason})")
    more = f"; and {len(series) - 10} more" if len(series) > 10 else ""
    return "; ".join(texts) + more


def _refuse_damaged(
    chosen: DicomSeries, series: list[DicomSeries], damaged: list[Path], folder: Path
) -> None:
    """Refuse damaged files unless they say that they belong to another series."""
    others = [s.uid.encode() for s in series if s.uid != chosen.uid]
    bad = []
    for path in damaged:
        content = path.read_bytes()
        if chosen.uid.encode() in content or not any(uid in content for uid in others):
            bad.append(path)
    if bad:
        what = f"{len(bad)} DICOM image(s) are cut short or damaged"
        raise refusal(folder, what, "copy or export the series again", bad)


def _refuse_unusable(series: DicomSeries, folder: Path) -> None:
    """Refuse a stack with images that lack what a volume needs, rather than to read around them.

    Raises:
        InputError: If a slice has no position, no pixel spacing, or an unreadable name.
    """
    sizes = {s.size for s in series.slices}
    lost = [s.path for s in series.dropped if s.kind == _PLACELESS and s.size in sizes]
    if lost:
        what = f"{len(lost)} image(s) of the CT series do not say where they lie"
        remedy = "export the series again, or remove them if they are no slices of the scan"
        raise refusal(folder, what, remedy, lost)
    blind = [s for s in series.slices if s.spacing is None]
    if blind:
        value = blind[0].tags["pixel_spacing"][:30]
        state = f"'{value}' is none" if value else "it is missing"
        what = (
            f"{len(blind)} of {len(series.slices)} images have no usable pixel spacing ({state}), "
            "so that nothing can be measured"
        )
        remedy = "export the series again from the scanner or archive"
        raise refusal(folder, what, remedy, [s.path for s in blind])
    unnamed = [s.path for s in series.slices if not _is_text(s.path)]
    if unnamed:
        what = f"{len(unnamed)} image(s) have a name or a folder that is no UTF-8 text"
        raise refusal(folder, what, "rename them", unnamed)


def _is_text(path: Path) -> bool:
    """Tell whether a path is UTF-8: the readers in C++ end the process on another one."""
    try:
        readable_name(path)
    except InputError:
        return False
    return True


def _one_shape(series: DicomSeries, folder: Path) -> list[Slice]:
    """Return the slices that share size and orientation, if the few others can be spared."""
    groups: list[list[Slice]] = []
    for one in series.slices:
        group = next((g for g in groups if _alike(one, g[0])), None)
        if group is None:
            groups.append([one])
        else:
            group.append(one)
    largest = max(groups, key=len)
    others = len(series.slices) - len(largest)
    if others > max(1, 0.05 * len(series.slices)):
        start = f"{folder}: the series"
        end = (
            f"mixes images of different size, spacing or orientation ({len(groups)} kinds); keep "
            "the images of one stack in the folder"
        )
        message = f"{start} {series.uid} {end}"
        raise InputError(message, stored=f"{start} {end}")
    return largest


def _alike(a: Slice, b: Slice) -> bool:
    if a.size != b.size:
        return False
    spacing = np.abs(np.divide(a.spacing, b.spacing) - 1).max()  # type: ignore[arg-type]
    turned = np.abs(np.subtract(a.orientation, b.orientation)).max()  # type: ignore[arg-type]
    return bool(spacing < SAME_SPACING and turned < _SAME_COSINE)
