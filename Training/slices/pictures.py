"""Slices and masks as picture files: read, or named with the reason why not.

A mask says lesion or not. Files say it by black and one other value, by transparency, or by a
palette; what could mean two things (several labels, exchanged colours) is refused, and what had to
be decided (a soft edge) is told.
"""

from __future__ import annotations

import struct
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from DRAMLesionLib.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_LOSSY = (".jpg", ".jpeg")
_LOSSY_COLOUR = 4
"""Largest difference of red, green and blue that is the noise of a JPEG, not a colour."""

_LABELS = 8
"""As many values are labels of several things; more are a soft edge."""

_SOFT_SHARE = 0.25
"""Largest share of what is not black that may lie between an eighth and seven eighths of white."""

_INVERTED = 0.75
"""No lesions take more of a picture than this: black and white are exchanged."""

_SAME_COLOUR = 0.1
"""Difference of red, green or blue, relative to the brightest of them."""

_ORIENTATION = 0x0112
_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA")
_GREYS_16 = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_UNREADABLE = (
    UnidentifiedImageError,
    OSError,
    ValueError,
    SyntaxError,
    TypeError,
    KeyError,
    IndexError,
    OverflowError,
    EOFError,
    MemoryError,
    struct.error,
    Image.DecompressionBombError,
)
"""What Pillow raises for damaged files, depending on where the damage is."""


@dataclass(frozen=True)
class Slice:
    """One picture with its truth.

    Attributes:
        name: Of both files, without extension.
        grey: (j, i) uint8.
        truth: (j, i) bool.
    """

    name: str
    grey: np.ndarray
    truth: np.ndarray


def read_slices(
    images: Path, masks: Path, report: Callable[[str], None] = lambda _: None
) -> list[Slice]:
    """Read slices and masks, which have the same names but for their extensions.

    Args:
        images: Folder of pictures with 8-bit greys.
        masks: Folder of masks: black, and one other value or colour where lesion.
        report: Called with a line for each thing that was left out or decided.

    Raises:
        InputError: If a folder is missing or empty, or a file cannot be used; all are named.
    """
    pictures, problems = _by_name(images, report)
    truths, more = _by_name(masks, report)
    problems += more
    if not pictures:
        message = f"there is no picture in {images}: give {', '.join(SUFFIXES)} files"
        raise InputError(message)
    for name in sorted(truths.keys() - pictures.keys()):
        report(f"left out: the mask {truths[name].name} has no picture in {images}")
    slices = []
    for name, path in pictures.items():
        try:
            grey = read_grey(path)
            if name not in truths:
                message = f"{path.name} has no mask: {masks / name}.png is missing"
                raise InputError(message)
            slices.append(_with_truth(name, grey, truths[name], report))
        except InputError as error:
            problems.append(str(error))
    if problems:
        message = (
            f"{len(pictures) - len(slices)} of {len(pictures)} slices cannot be used: "
            f"{'; '.join(problems)}"
        )
        raise InputError(message)
    return slices


def _by_name(folder: Path, report: Callable[[str], None]) -> tuple[dict[str, Path], list[str]]:
    """Return the pictures of a folder by name, and names that several have; tell other files."""
    if not folder.is_dir():
        message = f"{folder} is no folder"
        raise InputError(message)
    found: dict[str, Path] = {}
    problems = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.suffix.lower() not in SUFFIXES or not path.is_file():
            report(f"left out: {path} is none of {', '.join(SUFFIXES)}")
            continue
        name = unicodedata.normalize("NFC", path.stem)
        if name in found:
            problems.append(f"{folder} has both {found[name].name} and {path.name}: keep one")
        found.setdefault(name, path)
    return found, problems


def _with_truth(name: str, grey: np.ndarray, mask: Path, report: Callable[[str], None]) -> Slice:
    truth, note = read_mask(mask)
    if grey.shape != truth.shape:
        sizes = [f"{shape[1]} x {shape[0]}" for shape in (grey.shape, truth.shape)]
        message = f"{mask.name}: picture ({sizes[0]}) and mask ({sizes[1]}) differ in size"
        raise InputError(message)
    if note:
        report(f"the mask {mask.name} {note}")
    return Slice(name, grey, truth)


def read_grey(path: Path) -> np.ndarray:
    """Read a slice.

    Returns:
        (j, i) uint8.

    Raises:
        InputError: If it cannot be read, or holds no opaque 8-bit greys.
    """
    values, alpha, top = _pixels(path)
    if (alpha < 255).any():
        message = f"{path.name} is transparent in places: save it without transparency"
        raise InputError(message)
    differ = np.ptp(values.astype(np.int32), axis=2)
    if differ.max() > (_LOSSY_COLOUR if path.suffix.lower() in _LOSSY else 0):
        message = f"{path.name} has colours; greys are needed"
        raise InputError(message)
    grey = values[..., 0]
    if top > 255:
        if (grey % 257).any():
            message = (
                f"{path.name} has greys of 16 bits, whose window is not known: save it with 8-bit "
                "greys in a lung window, such as -1250 to 250 HU"
            )
            raise InputError(message)
        grey = grey // 257
    return grey.astype(np.uint8)


def read_mask(path: Path) -> tuple[np.ndarray, str]:
    """Read a mask.

    Returns:
        (j, i) bool, and what had to be decided about it in words; empty if nothing.

    Raises:
        InputError: If it cannot be read, or does not say lesion or not.
    """
    values, alpha, _ = _pixels(path)
    shown = _levels(values, path)
    visible = alpha > 0
    if not visible.any():
        message = f"the mask {path.name} is wholly transparent: save it anew in black and white"
        raise InputError(message)
    if not visible.all() and np.ptp(shown[visible]) == 0:
        # one colour: the shape is what can be seen of it
        shown = alpha
    elif (alpha < 255).any():
        if ((alpha > 0) & (alpha < 255)).any():
            message = (
                f"the mask {path.name} mixes colours with half-transparent places: save it in "
                "black and white without transparency"
            )
            raise InputError(message)
        shown = np.where(visible, shown, 0)
    truth, note = _two_values(shown, path)
    if truth.mean() > _INVERTED:
        message = (
            f"the mask {path.name} has {100 * truth.mean():.0f} % of the picture as lesion: black "
            "has to be what is none"
        )
        raise InputError(message)
    return truth, note


def _two_values(shown: np.ndarray, path: Path) -> tuple[np.ndarray, str]:
    """Part lesion from the rest."""
    there = np.unique(shown)
    if len(there) <= 2 and (there[0] == 0 or len(there) == 1):
        return shown > 0, ""
    if len(there) <= 2:
        message = (
            f"the mask {path.name} has the values {there[0]} and {there[1]}: save it with black (0)"
            " where there is no lesion"
        )
        raise InputError(message)
    if len(there) <= _LABELS:
        message = (
            f"the mask {path.name} has the values {', '.join(map(str, there))}, like a map of "
            "several labels: save it with 0 and one other value where lesion"
        )
        raise InputError(message)
    share = shown / there[-1]
    some, between = share > 1 / 8, (share > 1 / 8) & (share < 7 / 8)
    if between.sum() > _SOFT_SHARE * some.sum():
        message = (
            f"the mask {path.name} has {len(there)} different greys, like a picture: save it with "
            "black, and white where lesion"
        )
        raise InputError(message)
    note = f"has {len(there)} greys, like a soft edge: lesion is where it is more than half white"
    return share > 0.5, note


def _levels(values: np.ndarray, path: Path) -> np.ndarray:
    """Return one level for each pixel, (j, i): its grey, or how bright the one colour is."""
    if np.ptp(values.astype(np.int32), axis=2).max() > _LOSSY_COLOUR:
        colours = np.unique(values.reshape(-1, 3), axis=0).astype(np.float64)
        colours = colours[colours.max(axis=1) > _LOSSY_COLOUR]
        pure = colours / colours.max(axis=1, keepdims=True)
        # the soft edge of a colour is the same colour, but darker
        if np.ptp(pure, axis=0).max() > _SAME_COLOUR:
            message = (
                f"the mask {path.name} has {len(colours)} colours beside black, like a map of "
                "several labels: save it with black and one other colour where lesion"
            )
            raise InputError(message)
    return values.max(axis=2)


def _pixels(path: Path) -> tuple[np.ndarray, np.ndarray, int]:
    """Return red, green and blue (j, i, 3), opacity (j, i) up to 255, and the value of white."""
    try:
        # reading the pixels does not look at their checksums
        with Image.open(path) as image:
            image.verify()
        with Image.open(path) as image:
            if reason := _no_slice(image):
                message = f"{path.name} {reason}"
                raise InputError(message)
            if image.mode in _GREYS_16:
                grey = np.asarray(image.convert("I"))
                return np.repeat(grey[..., None], 3, axis=2), np.full_like(grey, 255), 65535
            pixels = np.asarray(image.convert("RGBA"))
            return pixels[..., :3], pixels[..., 3], 255
    except FileNotFoundError as error:
        message = f"{path} is missing"
        raise InputError(message) from error
    except _UNREADABLE as error:
        message = f"{path.name} cannot be read: {error}"
        raise InputError(message) from error


def _no_slice(image: Image.Image) -> str:
    """Say why an opened file is not one slice; empty if it is."""
    frames = getattr(image, "n_frames", 1)
    if frames != 1:
        return f"holds {frames} pictures: save the one slice alone"
    if image.getexif().get(_ORIENTATION, 1) != 1:
        return "is stored turned (EXIF): save it the way it is to be seen"
    if image.mode not in (*_MODES, *_GREYS_16):
        return f"has neither 8-bit greys nor colours (its mode is {image.mode})"
    return ""
