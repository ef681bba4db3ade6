"""The header of a DICOM image, read before any reader in C++ sees the file.

What a header claims is compared with what the file holds: a few bytes can promise gigabytes, and
the readers of voxels believe them. Values are taken as they stand in the file, since readers fill
in what is missing without a word (a pixel spacing of 1 mm, a rescale intercept of 0).
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import stat
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from DRAMLesionLib.errors import InputError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
IMPLICIT = "1.2.840.10008.1.2"

MAX_SIDE = 8192
"""More rows or columns than any CT has."""

_LOCALISER = {"LOCALIZER", "SCOUT", "TOPOGRAM"}
_PROJECTED = {"MIP", "MINIP", "PROJECTION IMAGE", "SCREEN SAVE", "VOLUME RENDERING", "VRT", "DOSE"}
_REFORMATTED = {"MPR", "CSA MPR", "CPR", "REFORMATTED", "CSA RESAMPLED"}
_GREY = {"", "MONOCHROME1", "MONOCHROME2"}
_NO_HU = {"MGML", "Z_EFF", "ED", "EDW", "PCT", "OD"}
"""Rescale types of material and density maps, whose values are no HU."""

_MAX_WHOLE = 1 << 28
"""Files up to this size are read at once; larger ones are no image of a slice."""

_MAX_INFLATED = (1 << 28) + (1 << 24)
"""Room for the largest slice there is and its header."""

_DEFER = 1 << 16
_MAX_METRES = 1e5
_NO_VALUE = 0xFFFFFFFF
_PADDING = b"\0 \r\n"
_LONG_FORMS = set(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
"""Types of values whose length takes four bytes."""


_TEXTS = {
    "series": 0x0020000E,
    "description": 0x0008103E,
    "modality": 0x00080060,
    "image_type": 0x00080008,
    "sop_class": 0x00080016,
    "sop": 0x00080018,
    "acquisition": 0x00200012,
    "instance": 0x00200013,
    "position": 0x00200032,
    "orientation": 0x00200037,
    "pixel_spacing": 0x00280030,
    "slope": 0x00281053,
    "intercept": 0x00281052,
    "rescale_type": 0x00281054,
    "photometric": 0x00280004,
    "frames": 0x00280008,
    "kernel": 0x00181210,
    "thickness": 0x00180050,
    "voltage": 0x00180060,
    "diameter": 0x00181100,
    "contrast": 0x00180010,
    "acquisition_uid": 0x00080017,
    "acquired": 0x00080032,
    "acquired_at": 0x0008002A,
    "content_time": 0x00080033,
    "series_number": 0x00200011,
    "frame_of_reference": 0x00200052,
    "study": 0x0020000D,
    "patient": 0x00100020,
}
_SHORTS = {
    "samples": 0x00280002,
    "rows": 0x00280010,
    "columns": 0x00280011,
    "bits_allocated": 0x00280100,
    "bits_stored": 0x00280101,
    "high_bit": 0x00280102,
    "signed": 0x00280103,
}
_MODALITY_LUT, _PIXEL_DATA = 0x00283000, 0x7FE00010
_OTHER_PIXELS = (0x7FE00008, 0x7FE00009)
_WANTED = [*_TEXTS.values(), *_SHORTS.values(), _MODALITY_LUT, _PIXEL_DATA, *_OTHER_PIXELS]


class DamagedImageError(Exception):
    """A file that says it is a DICOM image of a CT does not hold what its header promises."""


@dataclass(frozen=True)
class Slice:
    """One image file of a series, its voxels not read.

    Attributes:
        path: The file.
        tags: Header fields as text, by the names of this module; empty where missing.
        numbers: Whole numbers of the header: samples, bits_allocated, bits_stored, high_bit,
            signed.
        size: Columns, rows, frames.
        syntax: UID of the transfer syntax.
        has_lut: Whether stored values go through a table (Modality LUT) rather than a line.
    """

    path: Path
    tags: dict[str, str]
    numbers: dict[str, int]
    size: tuple[int, int, int]
    syntax: str
    has_lut: bool

    @property
    def position(self) -> np.ndarray | None:
        """Centre of the first voxel, LPS mm."""
        place = floats(self.tags["position"], 3)
        return place if place is not None and np.abs(place).max() < _MAX_METRES else None

    @property
    def orientation(self) -> np.ndarray | None:
        """Directions of row and column, six cosines."""
        return floats(self.tags["orientation"], 6)

    @property
    def spacing(self) -> tuple[float, float] | None:
        """Millimetres between columns and between rows; None if the file does not tell."""
        values = floats(self.tags["pixel_spacing"], 2)
        return None if values is None or values.min() <= 0 else (float(values[1]), float(values[0]))

    @property
    def kind(self) -> str:
        """What the slice cannot be used for, or nothing: see :attr:`DicomSeries.left_out`."""
        types = {part.strip().upper() for part in self.tags["image_type"].split("\\")}
        if self.tags["modality"] not in ("CT", ""):
            return f"modality {self.tags['modality']}"
        if self.tags["sop_class"] == ENHANCED_CT or self.size[2] > 1:
            return "multi-frame"
        if self.tags["sop_class"] not in (CT_IMAGE, ""):
            return "no CT images"
        if types & _LOCALISER:
            return "localiser"
        if types & _PROJECTED or self.numbers["samples"] != 1:
            return "projections or pictures"
        if self.tags["photometric"] not in _GREY:
            return "projections or pictures"
        if self.orientation is None or self.position is None:
            return "images without a position"
        if self.tags["rescale_type"].upper() in _NO_HU:
            return "material maps, not in HU"
        if types & _REFORMATTED or {"DERIVED", "SECONDARY"} <= types:
            return "derived"
        return ""


def refusal(folder: Path, what: str, remedy: str, paths: Sequence[Path] = ()) -> InputError:
    """Return an error about images of a folder; names of files are not for what is stored."""
    names = [shown(path.name) for path in paths[:3]]
    listed = f" ({', '.join(names)}{' …' if len(paths) > 3 else ''})" if names else ""
    return InputError(f"{folder}: {what}{listed}; {remedy}", stored=f"{folder}: {what}; {remedy}")


def shown(text: str) -> str:
    """Return a text from a file, or a file's name, so that a message can carry it."""
    readable = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(c if c.isprintable() else "?" for c in readable)


def floats(text: str, count: int) -> np.ndarray | None:
    """Return the numbers of a DICOM decimal string; None unless there are ``count`` finite ones."""
    try:
        values = np.array([float(part) for part in text.split("\\")])
    except ValueError:
        return None
    return values if len(values) == count and np.isfinite(values).all() else None


def read_header(path: Path) -> Slice | None:
    """Read the header of a DICOM image.

    Args:
        path: Any regular file.

    Returns:
        What it says; None if it is no DICOM image.

    Raises:
        DamagedImageError: If it says that it is a CT image, but is cut short or claims more than
            it holds.
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(1024)
        if not _looks_like_dicom(start):
            return None
        file.seek(0)
        large = path.stat().st_size > _MAX_WHOLE
        stream: BinaryIO = file if large else io.BytesIO(file.read())
        try:
            dataset, syntax, stream = open_dataset(stream, _MAX_INFLATED, _WANTED)
            found = _slice(path, dataset, syntax, stream)
        except DamagedImageError:
            raise
        except Exception as error:  # whatever a parser meets in damaged bytes
            if _says_ct(start):
                raise DamagedImageError from error
            return None
    if found is None and _says_ct(start):
        raise DamagedImageError
    return found


def is_dicom(path: Path) -> bool:
    """Tell whether a file begins as DICOM files do."""
    if not regular(path):
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def open_dataset(
    stream: BinaryIO, limit: int, wanted: list[Any] | None = None
) -> tuple[Dataset, str, BinaryIO]:
    """Parse a DICOM file up to its pixels, or some of its values.

    Args:
        stream: The file, at its beginning.
        limit: How many bytes a deflated file may unpack to.
        wanted: Tags to read; values too large for a header are left out. If not given, all before
            the pixels, and the stream stands there afterwards.

    Returns:
        The data set, the UID of its transfer syntax, and the stream that offsets refer to.

    Raises:
        Exception: Of many kinds, if the bytes are damaged.
    """
    from pydicom.filereader import read_dataset

    start = stream.read(132)
    stream.seek(132 if start[128:] == b"DICM" else 0)
    with quiet_parser():
        meta = read_dataset(stream, False, True, stop_when=lambda tag, *_: tag.group != 2)
        syntax = str(meta.get("TransferSyntaxUID", "")).strip(" \0") or IMPLICIT
        if syntax == DEFLATED:
            unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
            content = unpacker.decompress(stream.read(), limit)
            if not unpacker.eof:
                message = "cut short, or too large"
                raise ValueError(message)
            stream = io.BytesIO(content)
        dataset = read_dataset(
            stream,
            is_implicit_VR=syntax == IMPLICIT,
            is_little_endian=syntax != BIG_ENDIAN,
            stop_when=None if wanted else lambda tag, *_: tag >= _OTHER_PIXELS[0],
            defer_size=_DEFER if wanted else None,
            specific_tags=wanted,
        )
    return dataset, syntax, stream


def holds_pixels(stream: BinaryIO, syntax: str, bits: int) -> bool:
    """Tell whether pixels follow in a stream, as many as the header promises or compressed ones."""
    from pydicom.filereader import read_dataset

    with quiet_parser():
        rest = read_dataset(
            stream,
            is_implicit_VR=syntax == IMPLICIT,
            is_little_endian=syntax != BIG_ENDIAN,
            defer_size=_DEFER,
            specific_tags=[_PIXEL_DATA],
        )
    return _PIXEL_DATA in rest and _pixels_are_there(rest, stream, bits)


def pixel_source(path: Path, syntax: str) -> Path | Dataset:
    """Return what the decoders of pixels take: they do not unpack a deflated file themselves.

    Args:
        path: A file that :func:`open_dataset` has unpacked within its limit.
        syntax: UID of its transfer syntax.
    """
    from pydicom import dcmread

    return dcmread(path) if syntax == DEFLATED else path


@contextlib.contextmanager
def quiet_parser() -> Iterator[None]:
    """Keep remarks of the parser about odd values off the terminal."""
    logger = logging.getLogger("pydicom")
    before = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def regular(path: Path) -> bool:
    """Tell whether there is a file that can be read to its end: no pipe, socket or device.

    Raises:
        OSError: If that cannot be known.
    """
    return stat.S_ISREG(path.stat().st_mode)


def _looks_like_dicom(start: bytes) -> bool:
    """Accept what has the prefix, and old files that begin with their first group."""
    return start[128:132] == b"DICM" or start[:4] in (
        b"\x08\0\0\0",
        b"\x08\0\x05\0",
        b"\x08\0\x08\0",
    )


def _says_ct(start: bytes) -> bool:
    """Tell whether the first bytes of a file promise a CT image."""
    return start[128:132] == b"DICM" and CT_IMAGE.encode() + b"\0" in start


def _slice(path: Path, dataset: Dataset, syntax: str, stream: BinaryIO) -> Slice | None:
    tags = {name: _text(dataset, tag) for name, tag in _TEXTS.items()}
    numbers = {name: _short(dataset, tag) for name, tag in _SHORTS.items()}
    numbers["samples"] = numbers["samples"] or 1
    columns, rows = numbers["columns"], numbers["rows"]
    is_ct = tags["sop_class"] == CT_IMAGE
    if not (columns and rows and _PIXEL_DATA in dataset):
        if is_ct:
            raise DamagedImageError
        return None
    frames = int(tags["frames"]) if tags["frames"].isdigit() else 1
    found = Slice(
        path, tags, numbers, (columns, rows, max(1, frames)), syntax, _MODALITY_LUT in dataset
    )
    bits = columns * rows * max(1, frames) * numbers["samples"] * numbers["bits_allocated"]
    if max(columns, rows) > MAX_SIDE or not _pixels_are_there(dataset, stream, bits):
        if is_ct:
            raise DamagedImageError
        return None
    if is_ct and tags["photometric"] in _GREY and _holds_more(dataset, stream, bits):
        raise DamagedImageError
    return found


def _text(dataset: Dataset, tag: int) -> str:
    """Return a value as it stands in the file, whatever its type should be."""
    if tag not in dataset:
        return ""
    value = getattr(dataset.get_item(tag, keep_deferred=True), "value", None)
    if not isinstance(value, bytes):
        return ""
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        text = value.decode("latin-1")
    return shown(text.strip(" \0"))


def _short(dataset: Dataset, tag: int) -> int:
    if tag not in dataset:
        return 0
    element: Any = dataset.get_item(tag, keep_deferred=True)
    value = getattr(element, "value", None)
    if not isinstance(value, bytes) or len(value) < 2:
        return 0
    order = "<" if element.is_little_endian else ">"
    return int(struct.unpack_from(f"{order}H", value)[0])


def _pixels_are_there(dataset: Dataset, stream: BinaryIO, bits: int) -> bool:
    """Compare what the header promises with the bytes that are there."""
    element: Any = dataset.get_item(_PIXEL_DATA, keep_deferred=True)
    if element.length == _NO_VALUE:
        # the parser has found the end of the compressed pixels, or they would not be here
        return True
    end = stream.seek(0, io.SEEK_END)
    behind = element.value_tell + element.length
    return (
        element.length >= max(1, math.ceil(bits / 8))
        and behind <= end
        and _rest_fits(stream, behind, end, dataset.is_implicit_VR, dataset.is_little_endian)
    )


def _holds_more(dataset: Dataset, stream: BinaryIO, bits: int) -> bool:
    """Tell whether there are more pixels than rows and columns: lines would be shifted."""
    element: Any = dataset.get_item(_PIXEL_DATA, keep_deferred=True)
    needed = math.ceil(bits / 8)
    if element.length == _NO_VALUE or element.length <= needed:
        return False
    stream.seek(element.value_tell + needed)
    return bool(stream.read(element.length - needed).strip(_PADDING))


def _rest_fits(
    stream: BinaryIO, at: int, end: int, implicit: bool | None, little: bool | None
) -> bool:
    """Tell whether what stands behind the pixels claims no more than the file holds.

    GDCM asks for as much memory as an element there says that it takes.
    """
    order = "little" if little in (True, None) else "big"
    while at < end:
        stream.seek(at)
        head = stream.read(12)
        if not any(head):  # padding
            return True
        if len(head) < 8:
            return False
        header, length = 8, head[4:8]
        if not implicit and head[4:6].isupper():
            is_long = head[4:6] in _LONG_FORMS
            header, length = (12, head[8:12]) if is_long else (8, head[6:8])
        claimed = int.from_bytes(length, order)  # type: ignore[arg-type]
        if claimed == _NO_VALUE:
            return True
        at += header + claimed
    return at == end
