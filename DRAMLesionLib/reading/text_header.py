"""Text headers of NRRD and MetaImage files, read before the reader in C++ does.

Both readers in ITK write beyond their buffers where a header has longer lines or more axes than
they expect, so nothing reaches them that was not understood here.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from DRAMLesionLib.reading.claim import (
    Claim,
    Doubt,
    HeaderError,
    check_shape,
    letters,
    no_orientation,
    no_origin,
    no_spacing,
    sound_spacing,
)

MAX_HEADER = 1 << 20
"""Bytes: names and colours of hundreds of segments fit."""

_MAX_FIELD = 500
"""Characters of a field; segments have their names in key/value pairs, which may be longer."""

_MAX_AXES = 4

DAMAGED = "is cut short, damaged, or not what its name says: copy or convert it again"

# --- NRRD ---------------------------------------------------------------------------------------

_NRRD_TYPES = {
    1: "signed char, int8, int8_t, uchar, unsigned char, uint8, uint8_t",
    2: "short, short int, signed short, signed short int, int16, int16_t, "
    "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    4: "int, signed int, int32, int32_t, uint, unsigned int, uint32, uint32_t, float",
    8: "longlong, long long, long long int, signed long long, signed long long int, int64, "
    "int64_t, ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t, double",
}
_NRRD_BYTES = {name: n for n, names in _NRRD_TYPES.items() for name in names.split(", ")}
_NRRD_PACKINGS = {
    "raw": "raw",
    "gz": "gzip",
    "gzip": "gzip",
    "txt": "text",
    "text": "text",
    "ascii": "text",
    "hex": "hex",
}
_NRRD_SPACES = {
    "right-anterior-superior",
    "ras",
    "left-anterior-superior",
    "las",
    "left-posterior-superior",
    "lps",
}
"""Spaces that say where left and right are."""

_SPATIAL_KINDS = {"domain", "space"}


def nrrd_claim(head: bytes, path: Path) -> Claim:
    """Read the header of a NRRD file.

    Args:
        head: The first :data:`MAX_HEADER` bytes.
        path: The file.

    Raises:
        HeaderError: If no sound file has such a header.
    """
    end = re.search(rb"\r?\n\r?\n", head)
    detached = end is None and len(head) < MAX_HEADER
    if end is None and not detached:
        raise HeaderError(DAMAGED)
    fields = _nrrd_fields(head if end is None else head[: end.start()])
    data, start = path, 0 if end is None else end.end()
    if name := fields.get("data file", fields.get("datafile")):
        data, start = _beside(path, name), 0
    elif end is None:
        raise HeaderError(DAMAGED)
    shape = tuple(_integers(fields.get("sizes", "")))
    check_shape(shape)
    if str(len(shape)) != fields.get("dimension") or len(shape) > _MAX_AXES:
        message = (
            f"is damaged, or has more than three dimensions and one for segments: {len(shape)} "
            f"sizes and {fields.get('dimension', 'no')} axes"
        )
        raise HeaderError(message)
    packing = _NRRD_PACKINGS.get(fields.get("encoding", "").lower())
    voxel = _NRRD_BYTES.get(fields.get("type", "").lower())
    if packing is None or voxel is None:
        message = (
            f"has voxels of type '{fields.get('type', '')}' in the encoding "
            f"'{fields.get('encoding', '')}', which cannot be read: save it as raw or gzip"
        )
        raise HeaderError(message)
    skips = [_integers(fields.get(key, "0")) for key in ("byte skip", "line skip")]
    if any(len(skip) != 1 for skip in skips) or skips[1] != [0] or not -1 <= skips[0][0] < 1 << 20:
        message = "skips a part of its data: save it again without that"
        raise HeaderError(message)
    skip = skips[0][0]
    if skip > 0 and packing == "raw":
        start, skip = start + skip, 0
    doubts = _nrrd_doubts(fields)
    return Claim("NrrdImageIO", data, shape, voxel, start, packing, skip, doubts=doubts)


def _nrrd_fields(head: bytes) -> dict[str, str]:
    """Return the fields, without comments and key/value pairs."""
    fields: dict[str, str] = {}
    for line in head.splitlines()[1:]:
        if line.startswith(b"#") or not line.strip():
            continue
        key, separator, value = line.partition(b":")
        if value.startswith(b"=") and separator:
            _text(key)
            continue
        if len(line) > _MAX_FIELD and not line.lower().startswith((b"content:", b"data")):
            message = f"is damaged: its header has a line of {len(line)} characters"
            raise HeaderError(message)
        name = _text(key).strip().lower()
        if not separator or name in fields:
            raise HeaderError(DAMAGED)
        fields[name] = _text(value).strip()
    return fields


def _nrrd_doubts(fields: dict[str, str]) -> tuple[Doubt, ...]:
    directions = fields.get("space directions")
    if directions is None:
        spacing = _numbers(fields.get("spacings", ""))
        # an axis that is not in space has no spacing
        kinds = fields.get("kinds", "").lower().split()
        if len(kinds) == len(spacing):
            spacing = [s for s, k in zip(spacing, kinds, strict=True) if k in _SPATIAL_KINDS]
        doubts = [] if spacing and sound_spacing(spacing) else [no_spacing()]
        return (*doubts, no_orientation())
    units = set(re.findall(r'"([^"]*)"', fields.get("space units", "")))
    vectors = [_numbers(text) for text in re.findall(r"\(([^)]*)\)", directions)]
    spacing = [math.hypot(*vector) for vector in vectors]
    found = []
    if not spacing or not sound_spacing(spacing):
        found.append(no_spacing())
    elif other := units - {"", "mm", "millimeter", "millimetre", "???"}:
        text = f"measures its voxels in '{other.pop()[:20]}', which are no millimetres"
        found.append(Doubt("no-spacing", text, severe=True))
    if fields.get("space", "").lower() not in _NRRD_SPACES:
        found.append(no_orientation())
    origin = _numbers(fields.get("space origin", "").strip("()"))
    if not origin or not all(map(math.isfinite, origin)):
        found.append(no_origin())
    return tuple(found)


# --- MetaImage ----------------------------------------------------------------------------------

_META_BYTES = {
    "MET_CHAR": 1,
    "MET_UCHAR": 1,
    "MET_SHORT": 2,
    "MET_USHORT": 2,
    "MET_INT": 4,
    "MET_UINT": 4,
    "MET_LONG": 4,
    "MET_ULONG": 4,
    "MET_LONG_LONG": 8,
    "MET_ULONG_LONG": 8,
    "MET_FLOAT": 4,
    "MET_DOUBLE": 8,
}
_META_AXES = ("TransformMatrix", "Rotation", "Orientation")
_META_SPACINGS = ("ElementSpacing", "ElementSize")
_META_PLACES = ("Offset", "Position", "Origin", "CenterOfRotation")
_MAX_LINE, _MAX_LINES = 4000, 500


def meta_claim(head: bytes, path: Path) -> Claim:
    """Read the header of a MetaImage.

    Args:
        head: The first :data:`MAX_HEADER` bytes.
        path: The file.

    Raises:
        HeaderError: If no sound file has such a header.
    """
    fields, end = _meta_fields(head)
    axes = _integers(fields.get("NDims", ""))
    shape = tuple(_integers(fields.get("DimSize", "")))
    if len(axes) != 1 or not 2 <= axes[0] <= _MAX_AXES or len(shape) != axes[0]:
        message = (
            f"is damaged: its header tells of {fields.get('NDims', 'no')} axes and {len(shape)} "
            "sizes; convert it again"
        )
        raise HeaderError(message)
    check_shape(shape)
    channels = fields.get("ElementNumberOfChannels", "1")
    if channels != "1":
        message = (
            f"has {channels[:20]} values a voxel, like a colour picture or a vector field; give "
            "an image with one value a voxel"
        )
        raise HeaderError(message)
    voxel = _META_BYTES.get(fields.get("ElementType", ""))
    if voxel is None:
        message = f"has voxels of type '{fields.get('ElementType', '')}', which cannot be read"
        raise HeaderError(message)
    _check_numbers(fields, len(shape))
    data, start = path, end
    if (name := fields["ElementDataFile"]).upper() != "LOCAL":
        data, start = _beside(path, name), 0
    packing, packed = "raw", None
    if _is_true(fields.get("CompressedData", "False")):
        packing, packed = "zlib", _packed_length(fields, local=data == path)
    elif not _is_true(fields.get("BinaryData", "True")):
        packing = "text"
    skip = _integers(fields.get("HeaderSize", "0"))
    if len(skip) != 1 or not -1 <= skip[0] < 1 << 20 or (skip[0] and packing != "raw"):
        message = "is damaged: its header says to skip a part of its data; convert it again"
        raise HeaderError(message)
    if skip[0] > 0 and data != path:
        start, skip[0] = skip[0], 0
    doubts = _meta_doubts(fields) if len(shape) > 2 else ()
    return Claim("MetaImageIO", data, shape, voxel, start, packing, skip[0], packed, doubts=doubts)


def _packed_length(fields: dict[str, str], *, local: bool) -> int | None:
    """Return how many bytes the compressed voxels take; None for all of the file beside it."""
    told = _integers(fields.get("CompressedDataSize", ""))
    if len(told) == 1 and told[0] > 0:
        return told[0]
    if local or "CompressedDataSize" in fields:
        message = "is damaged: its header does not say how long its compressed voxels are"
        raise HeaderError(message)
    return None


def _meta_fields(head: bytes) -> tuple[dict[str, str], int]:
    """Return the fields and where the data begin."""
    fields: dict[str, str] = {}
    at = 0
    for line in head.splitlines(keepends=True)[:_MAX_LINES]:
        at += len(line)
        key, separator, value = line.partition(b"=")
        name = _text(key).strip()
        if not name and not separator:
            continue
        if not separator or name in fields or len(line) > _MAX_LINE:
            raise HeaderError(DAMAGED)
        # of what people write into comments nothing is used
        fields[name] = value.decode("utf-8", "replace").strip()
        if name == "ElementDataFile":
            _text(value)
            return fields, at
    raise HeaderError(DAMAGED)


def _check_numbers(fields: dict[str, str], axes: int) -> None:
    """Refuse more or fewer numbers than there are axes."""
    wanted = dict.fromkeys(_META_AXES, axes * axes)
    wanted |= dict.fromkeys((*_META_SPACINGS, *_META_PLACES), axes)
    for name, count in wanted.items():
        numbers = _numbers(fields.get(name, "0 " * count))
        # spacings that are no numbers are told as such
        sound = name in _META_SPACINGS or all(map(math.isfinite, numbers))
        if len(numbers) != count or not sound:
            message = f"is damaged: its header has '{fields[name][:60]}' for {name}"
            raise HeaderError(message)


def _meta_doubts(fields: dict[str, str]) -> tuple[Doubt, ...]:
    spacing = next((_numbers(fields[key]) for key in _META_SPACINGS if key in fields), [])
    doubts = [] if spacing and sound_spacing(spacing) else [no_spacing()]
    numbers = next((_numbers(fields[key]) for key in _META_AXES if key in fields), [])
    if not numbers:
        return (*doubts, no_orientation())
    if not any(key in fields for key in _META_PLACES[:3]):
        doubts.append(no_origin())
    axes = round(math.sqrt(len(numbers)))
    found = letters(np.reshape(numbers, (axes, axes))[:3, :3].T)
    told = fields.get("AnatomicalOrientation", "").upper()[:3]
    # the letters name where an axis comes from; some programs write where it goes
    away = found.translate(str.maketrans("LRPASI", "RLAPIS"))
    if sorted(told.translate(str.maketrans("LPS", "RAI"))) == list("AIR") and told not in (
        found,
        away,
    ):
        text = (
            f"says in two ways how its axes lie in the body: {away} (TransformMatrix) and {told} "
            "(AnatomicalOrientation)"
        )
        doubts.append(
            Doubt("orientation-contradiction", text, severe=False, unplaced=False),
        )
    return tuple(doubts)


# --- both ---------------------------------------------------------------------------------------


def _beside(path: Path, name: str) -> Path:
    """Return the file with the voxels that a header names."""
    if name.upper().startswith("LIST") or "%" in name or "\0" in name:
        message = "has its voxels in several files: save it as one"
        raise HeaderError(message)
    return path.parent / name


def _text(raw: bytes) -> str:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        message = "is damaged: its header is no UTF-8 text; save it again"
        raise HeaderError(message) from error
    if "\0" in text:
        raise HeaderError(DAMAGED)
    return text


def _integers(text: str) -> list[int]:
    """Return whole numbers; none if one of the words is none or has more than twelve digits."""
    words = text.split()
    return [int(word) for word in words] if all(map(_INTEGER.fullmatch, words)) else []


def _numbers(text: str) -> list[float]:
    """Return numbers; none if one of the words is none."""
    try:
        return [float(word) for word in re.split(r"[\s,]+", text.strip()) if word]
    except ValueError:
        return []


def _is_true(text: str) -> bool:
    return text[:1] in ("T", "t", "1")


_INTEGER = re.compile(r"[+-]?[0-9]{1,12}")
