"""Headers of NIfTI files and Analyze pairs, read before the reader in C++ does."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np

from DRAMLesionLib.reading.claim import (
    Claim,
    Doubt,
    HeaderError,
    check_shape,
    letters,
    no_orientation,
    no_spacing,
    same_spacing,
    sound_spacing,
)

HEADER_BYTES = 544
"""Enough for either kind of header."""

_TYPES = {2: 8, 4: 16, 8: 32, 16: 32, 64: 64, 256: 8, 512: 16, 768: 32, 1024: 64, 1280: 64}
_FLOATS = {16: "f4", 64: "f8"}
_NO_SCALARS = {32: 64, 128: 24, 1792: 128, 2304: 32}
"""Complex numbers and colours."""

_TURNED_DEGREES = 2.0
_MOVED_MM = 2.0
"""Two positions of one image differ by more than rounding beyond these."""

_SHEARED = 0.01
"""Cosine between two axes beyond which they are not at right angles whatever the rounding; what is
closer is judged as for all formats."""

_LPS = np.diag([-1.0, -1.0, 1.0])
"""NIfTI has its axes to the right, to the front and up."""


_V1 = {
    "dim": (40, "8h"),
    "datatype": (70, "h"),
    "bitpix": (72, "h"),
    "pixdim": (76, "8f"),
    "vox_offset": (108, "f"),
    "scale": (112, "2f"),
    "qform_code": (252, "h"),
    "sform_code": (254, "h"),
    "quaternion": (256, "3f"),
    "qoffset": (268, "3f"),
    "srow": (280, "12f"),
}
_V2 = {
    "datatype": (12, "h"),
    "bitpix": (14, "h"),
    "dim": (16, "8q"),
    "pixdim": (104, "8d"),
    "vox_offset": (168, "q"),
    "scale": (176, "2d"),
    "qform_code": (344, "i"),
    "sform_code": (348, "i"),
    "quaternion": (352, "3d"),
    "qoffset": (376, "3d"),
    "srow": (400, "12d"),
}


class _Fields:
    """The fields of a header by name, of either version and byte order."""

    def __init__(self, head: bytes) -> None:
        for order in "<>":
            for version, length in ((1, 348), (2, 540)):
                if head[:4] == struct.pack(f"{order}i", length) and len(head) >= length:
                    self._head, self.order, self.version = head, order, version
                    self._places = _V1 if version == 1 else _V2
                    return
        message = "is cut short, damaged, or not what its name says: copy or convert it again"
        raise HeaderError(message)

    def all(self, name: str) -> tuple:
        place, form = self._places[name]
        return struct.unpack_from(self.order + form, self._head, place)

    def one(self, name: str) -> float:
        return self.all(name)[0]

    @property
    def magic(self) -> bytes:
        return self._head[344:348] if self.version == 1 else self._head[4:8]


def nifti_claim(head: bytes, data: Path, *, pair: bool, packed: bool) -> Claim:
    """Read a header.

    Args:
        head: The first :data:`HEADER_BYTES` bytes, unpacked.
        data: File with the voxels.
        pair: Whether the voxels lie in another file than the header.
        packed: Whether the voxels are gzipped.

    Raises:
        HeaderError: If no sound file has such a header.
    """
    fields = _Fields(head)
    is_nifti = fields.magic[:2] in (b"n+", b"ni") and fields.magic[2:3] in (b"1", b"2")
    if not is_nifti and not pair:
        message = "is damaged: its header is not that of a NIfTI file; copy or convert it again"
        raise HeaderError(message)
    dim = fields.all("dim")
    shape = tuple(int(n) for n in dim[1 : dim[0] + 1]) if 1 <= dim[0] <= 7 else ()
    check_shape(shape)
    datatype = int(fields.one("datatype"))
    floats = _FLOATS.get(datatype)
    start = _offset(fields, pair)
    return Claim(
        reader="NiftiImageIO",
        data=data,
        shape=shape,
        voxel=_voxel_bytes(fields, datatype),
        packing="gzip" if packed else "raw",
        start=0 if packed else start,
        skip=start if packed else 0,
        floats=None if floats is None else np.dtype(fields.order + floats),
        doubts=_doubts(fields, is_nifti) if len(shape) >= 3 else (),
    )


def _voxel_bytes(fields: _Fields, datatype: int) -> int:
    bits = int(fields.one("bitpix"))
    if datatype in _NO_SCALARS:
        message = (
            "has several values a voxel, like a colour picture or a vector field; give an image "
            "with one value a voxel"
        )
        raise HeaderError(message)
    if _TYPES.get(datatype) != bits:
        message = (
            f"is damaged: its header tells of voxels of type {datatype} and {bits} bits, which "
            "there are not; convert it again"
        )
        raise HeaderError(message)
    slope, intercept = fields.all("scale")
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        message = f"is damaged: it scales its voxels by {slope:g} and {intercept:g}"
        raise HeaderError(message)
    return bits // 8


def _offset(fields: _Fields, pair: bool) -> int:
    """Return where the voxels begin."""
    offset = fields.one("vox_offset")
    least = 0 if pair else 352 if fields.version == 1 else 544
    if not math.isfinite(offset) or not least <= offset < 1 << 30 or offset != int(offset):
        message = (
            f"is damaged: its header says that the voxels begin at byte {offset:g}, where they "
            "cannot; convert it again"
        )
        raise HeaderError(message)
    return int(offset)


def _doubts(fields: _Fields, is_nifti: bool) -> tuple[Doubt, ...]:
    """Compare spacing, quaternion and matrix with each other."""
    spacing = [float(s) for s in fields.all("pixdim")[1:4]]
    q = fields.one("qform_code") > 0 and is_nifti
    s = fields.one("sform_code") > 0 and is_nifti
    doubts = []
    if not sound_spacing(spacing):
        doubts.append(no_spacing())
    if not q and not s:
        return (*doubts, no_orientation())
    matrix = np.reshape(fields.all("srow"), (3, 4)).astype(float)
    turn = _rotation(fields) if q else None
    steps = np.linalg.norm(matrix[:, :3], axis=0)
    if (s and not (np.isfinite(matrix).all() and sound_spacing(steps))) or (q and turn is None):
        message = (
            "is damaged: what its header says about the place of its voxels are no numbers, or no "
            "rotation; convert it again"
        )
        raise HeaderError(message)
    if s:
        axes = matrix[:, :3] / steps
        if np.abs(axes.T @ axes - np.eye(3)).max() > _SHEARED:
            message = (
                "has a sheared grid: its axes are not at right angles (sform); resample it to a "
                "rectangular grid first"
            )
            raise HeaderError(message)
        if not doubts and not same_spacing(spacing, steps.tolist()):
            text = (
                f"says in two ways how large its voxels are: {_by(spacing)} mm (pixdim) and "
                f"{_by(steps)} mm (sform)"
            )
            doubts.append(Doubt("spacing-contradiction", text, severe=True))
        if turn is not None:
            doubts += _two_positions(turn, fields.all("qoffset"), axes, matrix[:, 3])
    return tuple(doubts)


def _two_positions(
    turn: np.ndarray, place: tuple, other: np.ndarray, other_place: np.ndarray
) -> list[Doubt]:
    """Compare the position that the quaternion gives with that of the matrix."""
    ways = letters(_LPS @ turn), letters(_LPS @ other)
    code = "orientation-contradiction"
    if ways[0] != ways[1]:
        text = (
            f"says in two ways how its axes lie in the body: {ways[0]} (qform) and {ways[1]} "
            "(sform)"
        )
        return [Doubt(code, text, severe=True)]
    cosine = np.clip((turn * other).sum(axis=0), -1.0, 1.0).min()
    moved = float(np.linalg.norm(np.asarray(place) - other_place))
    if math.degrees(math.acos(cosine)) <= _TURNED_DEGREES and moved <= _MOVED_MM:
        return []
    text = (
        f"gives two positions, {math.degrees(math.acos(cosine)):.0f} degrees and {moved:.0f} mm "
        "apart (qform and sform)"
    )
    return [Doubt(code, text, severe=False, unplaced=False)]


def _rotation(fields: _Fields) -> np.ndarray | None:
    """Return the axes (columns, to the right, front and up) of the quaternion; None if none."""
    b, c, d = fields.all("quaternion")
    if not all(map(math.isfinite, (b, c, d, *fields.all("qoffset")))):
        return None
    square = b * b + c * c + d * d
    if square > 1.01:
        return None
    a = math.sqrt(max(0.0, 1.0 - square))
    turn = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    if fields.all("pixdim")[0] < 0:
        turn[:, 2] *= -1
    return turn


def _by(values: object) -> str:
    return " x ".join(f"{value:.4g}" for value in np.asarray(values, dtype=float))
