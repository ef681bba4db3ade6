"""Drawing one slice: grey values, outlines, heat map, direction letters, scale bar. Pillow only."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from skimage.measure import find_contours

WINDOW_HU = (-1350.0, 150.0)
"""Lung window for readers: centre -600, width 1500."""

TYPE_COLOURS: dict[int, str] = {1: "#56b4e9", 2: "#e8601c", 3: "#f0dc28"}
"""Lesion label to colour (after Okabe and Ito): told apart with every kind of colour vision."""

HEAT_COLOURS: tuple[str, ...] = ("#57106e", "#bc3754", "#f98e09", "#fcffa4")
"""dRAM from low to high: brightness grows steadily, so that it also reads in grey print."""

HEAT_FLOOR = 0.05
"""dRAM values below this are left clear."""

_HEAT_OPACITY = 0.62
_LESION_WIDTH_PX = 2.2
_LOBE_WIDTH_PX = 1.1
_LOBE_COLOUR = (255, 255, 255, 120)
_OVERSAMPLING = 3
_BAR_MM = 50.0


def grey(hu: np.ndarray) -> Image.Image:
    """Return HU (row, column) as an RGB picture in the lung window."""
    low, high = WINDOW_HU
    level = np.clip((hu - low) / (high - low), 0.0, 1.0)
    return Image.fromarray(np.rint(level * 255.0).astype(np.uint8)).convert("RGB")


def with_outlines(
    picture: Image.Image,
    lobes: Mapping[int, np.ndarray],
    lesions: Mapping[int, np.ndarray],
) -> Image.Image:
    """Draw the borders of lobes (thin, white) and lesions (in the colour of their type).

    Args:
        picture: RGB picture of width w and height h.
        lobes: For each lobe its share of each pixel, (h, w) in 0..1; the outline is at one half.
        lesions: The same for each lesion type.

    Returns:
        A new RGB picture.
    """
    n = _OVERSAMPLING
    overlay = Image.new("RGBA", (picture.width * n, picture.height * n))
    draw = ImageDraw.Draw(overlay)
    for _, share in sorted(lobes.items()):
        _trace(draw, share, _LOBE_COLOUR, _LOBE_WIDTH_PX)
    for label, share in sorted(lesions.items()):
        _trace(draw, share, (*_rgb(TYPE_COLOURS[label]), 255), _LESION_WIDTH_PX)
    overlay = overlay.resize(picture.size, Image.Resampling.BOX)
    return Image.alpha_composite(picture.convert("RGBA"), overlay).convert("RGB")


def with_heat(picture: Image.Image, dram: np.ndarray) -> Image.Image:
    """Lay a dRAM (row, column), 0..1, over an RGB picture; low values are clear."""
    value = np.clip(np.nan_to_num(dram), 0.0, 1.0)
    stops = np.array([_rgb(colour) for colour in HEAT_COLOURS], dtype=np.float32)
    at = np.linspace(0.0, 1.0, len(stops))
    colour = np.stack([np.interp(value, at, stops[:, c]) for c in range(3)], axis=-1)
    # opacity reaches its full value at one half: a lesion shows, and the CT shines through
    opacity = _HEAT_OPACITY * np.clip((value - HEAT_FLOOR) / (0.5 - HEAT_FLOOR), 0.0, 1.0)
    below = np.asarray(picture, dtype=np.float32)
    mixed = below + opacity[..., None] * (colour - below)
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def with_directions(picture: Image.Image, letters: str, mm_per_px: float) -> Image.Image:
    """Write the direction letters (left, right, top, bottom edge) and a 5 cm scale bar."""
    picture = picture.copy()
    draw = ImageDraw.Draw(picture)
    w, h = picture.size
    left, right, top, bottom = tuple(letters)
    for letter, place, anchor in (
        (left, (7, h // 2), "lm"),
        (right, (w - 7, h // 2), "rm"),
        (top, (w // 2, 5), "mt"),
        (bottom, (w // 2, h - 5), "mb"),
    ):
        _write(draw, letter, place, anchor, 20)
    length = round(_BAR_MM / mm_per_px)
    x1, y = w - 10, h - 9
    x0 = x1 - length
    for width, colour in ((4, (0, 0, 0)), (2, (235, 235, 235))):
        draw.line([(x0, y), (x1, y)], fill=colour, width=width)
        for x in (x0, x1):
            draw.line([(x, y - 4), (x, y + 3)], fill=colour, width=width)
    _write(draw, f"{_BAR_MM / 10:g} cm", (x1 - length // 2, y - 5), "mb", 15)
    return picture


def with_marks(
    picture: Image.Image, marks: Sequence[tuple[str, tuple[float, float]]]
) -> Image.Image:
    """Write short texts beside places (column, row) of a picture, each with a dot."""
    picture = picture.copy()
    draw = ImageDraw.Draw(picture)
    for text, (x, y) in marks:
        if not (0 <= x < picture.width and 0 <= y < picture.height):
            continue
        draw.ellipse([x - 3, y - 3, x + 3, y + 3], fill=(235, 235, 235), outline=(0, 0, 0))
        _write(draw, text, (round(x) + 6, round(y) - 5), "ls", 20)
    return picture


def png(picture: Image.Image) -> bytes:
    """Return the picture as a PNG file."""
    data = io.BytesIO()
    # no eye sees the lowest bit of a level, but as noise it takes a fifth of the file
    picture.point(lambda level: level & 0xFE).save(data, "PNG")
    return data.getvalue()


def _trace(
    draw: ImageDraw.ImageDraw, share: np.ndarray, colour: tuple[int, ...], width: float
) -> None:
    """Draw the lines where ``share`` is one half, closed at the edge of the picture."""
    for line in find_contours(np.pad(share, 1), 0.5):
        # back from the padding, and from pixel centres to the corner-based places of a drawing
        points = (line[:, ::-1] - 0.5) * _OVERSAMPLING
        draw.line(
            [tuple(point) for point in points],
            fill=colour,
            width=round(width * _OVERSAMPLING),
            joint="curve",
        )


def _write(
    draw: ImageDraw.ImageDraw, text: str, place: tuple[int, int], anchor: str, size: int
) -> None:
    draw.text(
        place,
        text,
        fill=(235, 235, 235),
        font=_font(size),
        anchor=anchor,
        stroke_width=2,
        stroke_fill=(0, 0, 0),
    )


@lru_cache(maxsize=4)
def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
