"""A montage of slices with the outlines of the lobes, of contours and of lesions."""

from __future__ import annotations

import io

import numpy as np
import SimpleITK as sitk
from PIL import Image
from scipy import ndimage

from DRAMLesionLib.images import geometry

WINDOW_HU = (-1000.0, 250.0)
PIXEL_MM = 0.8
ACROSS, DOWN = 4, 4
MARGIN_MM = 12.0
COLOURS = {
    1: (255, 70, 70),
    2: (255, 200, 0),
    3: (90, 255, 90),
    4: (0, 220, 255),
    5: (210, 110, 255),
}
"""Outlines of the lobes."""
CONTOUR, LESION = (60, 130, 255), (255, 255, 255)


def montage(
    ct: sitk.Image,
    lobes: sitk.Image,
    contours: sitk.Image | None = None,
    lesions: sitk.Image | None = None,
) -> bytes:
    """Return a PNG of axial slices from the bottom of the lungs to the top.

    Args:
        ct: HU.
        lobes: On the same grid, as are the others; outlined in ``COLOURS``.
        contours: Experts' lungs, outlined in blue.
        lesions: Outlined in white.
    """
    labels = geometry.array(lobes)
    used = np.flatnonzero((labels > 0).any(axis=(1, 2)))
    layers = [geometry.array(image) if image is not None else None for image in (contours, lesions)]
    hu = geometry.array(ct)
    zoom = [s / PIXEL_MM for s in ct.GetSpacing()[1::-1]]
    margin = [round(MARGIN_MM / s) for s in ct.GetSpacing()[1::-1]]
    sides = np.nonzero((labels > 0).any(axis=0))
    crop = tuple(
        slice(max(q.min() - m, 0), q.max() + m) for q, m in zip(sides, margin, strict=True)
    )
    tiles = []
    for k in np.linspace(used[0], used[-1], ACROSS * DOWN + 2)[1:-1].round().astype(int):
        grey = ndimage.zoom(np.clip(hu[k][crop].astype(np.float32), *WINDOW_HU), zoom, order=1)
        low, high = WINDOW_HU
        scaled: np.ndarray = (255.0 * (grey - low) / (high - low)).astype(np.uint8)
        tile = np.repeat(scaled[..., None], 3, axis=2)
        fine = ndimage.zoom(labels[k][crop], zoom, order=0)
        for lobe, colour in COLOURS.items():
            tile[_outline(fine == lobe)] = colour
        for layer, colour in zip(layers, (CONTOUR, LESION), strict=True):
            if layer is not None:
                mask = (layer[k][crop] > 0).astype(np.uint8)
                tile[_outline(ndimage.zoom(mask, zoom, order=0) > 0)] = colour
        tiles.append(tile)
    rows = [np.concatenate(tiles[r * ACROSS : (r + 1) * ACROSS], axis=1) for r in range(DOWN)]
    stream = io.BytesIO()
    Image.fromarray(np.concatenate(rows, axis=0)).save(stream, format="png")
    return stream.getvalue()


def _outline(mask: np.ndarray) -> np.ndarray:
    return mask & ~ndimage.binary_erosion(mask)
