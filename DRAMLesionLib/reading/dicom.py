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
from DRAMLesionLib.reading.dicom_stack import CT_IMAGE, Slice, quiet, read_stack

MAX_FILES = 20_000
MIN_SERIES_MM = 15.0
"""A stack lower than this beside a higher one is a test or monitoring series, not the scan."""

_PIXEL_DATA = b"\xe0\x7f\x10\x00"
_SEQUENCE_END = b"\xfe\xff\xdd\xe0"
_OTHER_SYNTAXES = (b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.1.99")


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


_TAGS = {
    "series": "0020|000e",
    "description": "0008|103e",
    "modality": "0008|0060",
    "image_type": "0008|0008",
    "sop_class": "0008|0016",
    "sop": "0008|0018",
    "acquisition": "0020|0012",
    "position": "0020|0032",
    "orientation": "0020|0037",
}


def list_series(folder: Path | str) -> list[DicomSeries]:
    """List the DICOM series in a folder and its subfolders, usable or not, largest first.

    Raises:
        InputError: If the folder is missing, may not be read, or has no DICOM image in it.
    """
    series, _ = _scan(Path(folder))
    return series


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
    slices = _one_shape(chosen, folder)
    if len(slices) < len(chosen.slices) + len(chosen.dropped):
        number = len(chosen.slices) + len(chosen.dropped) - len(slices)
        text = f"{number} image(s) of the CT series, such as a localiser, are not part of the scan."
        warnings.append(ScanWarning("images-left-out", text))
    image, found = read_stack(slices, folder)
    return image, warnings + found


def _files(folder: Path) -> list[Path]:
    try:
        found = []
        for path in sorted(folder.iterdir()):
            if path.name.startswith(".") or path.name.upper() == "DICOMDIR":
                continue
            found += _files(path) if path.is_dir() and not path.is_symlink() else [path]
            if len(found) > MAX_FILES:
                message = f"{folder} holds more than {MAX_FILES} files: give the folder of one scan"
                raise InputError(message)
    except OSError as error:
        message = f"{folder} cannot be read ({error.strerror}): check that you may read it"
        raise InputError(message) from error
    return found


def _scan(folder: Path) -> tuple[list[DicomSeries], list[Path]]:
    """Return the series of a folder and the CT images in it that are damaged."""
    paths = _files(folder)
    slices, damaged = [], []
    with quiet():
        for path in paths:
            found = _read_header(path)
            if found is not None:
                slices.append(found)
            elif _says_ct(path):
                damaged.append(path)
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
    volumes = [p.name for p in paths if p.name.lower().endswith((".nii", ".nii.gz", ".nrrd"))]
    if volumes:
        return f"{folder} holds no DICOM image, but {volumes[0]}: give the path of that file"
    return f"{folder} holds no DICOM image ({len(paths)} files looked at): give another folder"


def _read_header(path: Path) -> Slice | None:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        tags = {
            name: reader.GetMetaData(tag).strip(" \0") if reader.HasMetaDataKey(tag) else ""
            for name, tag in _TAGS.items()
        }
    except (RuntimeError, UnicodeDecodeError):
        return None
    tags["description"] = tags["description"].encode("utf-8", "replace").decode("utf-8")
    columns, rows, frames = (*reader.GetSize(), 1)[:3]
    x, y = reader.GetSpacing()[:2]
    if _is_cut_short(path.read_bytes(), columns * rows):
        return None
    return Slice(path, tags, (columns, rows, frames), (x, y))


def _is_cut_short(content: bytes, pixels: int) -> bool:
    """Tell whether the voxels of a DICOM file end early, which not every GDCM notices.

    Args:
        content: The whole file.
        pixels: How many pixels it should have; tells the image from its thumbnail.
    """
    at = content.find(_PIXEL_DATA)
    while at >= 0:
        start = at + (12 if content[at + 4 : at + 6] in (b"OW", b"OB") else 8)
        length = int.from_bytes(content[start - 4 : start], "little")
        if length == 0xFFFFFFFF:
            return content.rfind(_SEQUENCE_END) < start
        if length >= pixels:
            return len(content) < start + length
        at = content.find(_PIXEL_DATA, at + 4)
    # big-endian and deflated files cannot be searched like this
    return not any(syntax + b"\0" in content[:1024] for syntax in _OTHER_SYNTAXES)


def _says_ct(path: Path) -> bool:
    """Tell whether the first bytes of a file that GDCM refuses promise a CT image."""
    try:
        with path.open("rb") as file:
            start = file.read(1024)
    except OSError:
        return False
    return start[128:132] == b"DICM" and CT_IMAGE.encode() + b"\0" in start


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
    never = ("localiser", "multi-frame", "projections or pictures", "no CT images")
    if uid is not None:
        matching = [s for s in series if s.uid == uid]
        if not matching:
            message = f"{folder} has no DICOM series {uid}; it has {_listed(series)}"
            raise InputError(message)
        choice = matching
    else:
        choice = [s for s in series if not s.left_out]
        for second in ("derived", "too few slices"):
            choice = choice or [s for s in series if s.left_out == second]
    if len(choice) > 1:
        message = (
            f"{folder} holds {len(choice)} usable CT series: choose one with --series UID or "
            f"series_uid=: {_listed(choice)}"
        )
        raise InputError(message)
    if not choice or choice[0].left_out in never or choice[0].left_out.startswith("modality"):
        message = f"{folder} holds no usable CT series, only {_listed(choice or series)}"
        if any(s.left_out == "multi-frame" for s in choice or series):
            message += "; convert a multi-frame file to NIfTI first"
        raise InputError(message)
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
            bad.append(path.name)
    if bad:
        message = (
            f"{folder}: {len(bad)} DICOM image(s) are cut short or damaged ({', '.join(bad[:3])}"
            f"{' …' if len(bad) > 3 else ''}); copy or export the series again"
        )
        raise InputError(message)


def _one_shape(series: DicomSeries, folder: Path) -> list[Slice]:
    """Return the slices that share size and orientation, if the few others can be spared."""
    groups: dict[tuple[object, ...], list[Slice]] = {}
    for one in series.slices:
        directions = np.round(np.asarray(one.orientation), 2) + 0.0
        groups.setdefault((one.size, *np.round(one.spacing, 4), *directions), []).append(one)
    largest = max(groups.values(), key=len)
    others = len(series.slices) - len(largest)
    if others > max(1, 0.05 * len(series.slices)):
        message = (
            f"{folder}: the series {series.uid} mixes images of different size, spacing or "
            f"orientation ({len(groups)} kinds); keep the images of one stack in the folder"
        )
        raise InputError(message)
    return largest
