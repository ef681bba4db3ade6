"""Points as a reader would click them, taken from masks (paper 003, sections 4.1.1 and 4.2)."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from Training.dataset.cache import UNKNOWN

WITHOUT_LESION = 5
"""Background points of an image without lesion; they lie in the lungs (ours: the published code
gives such images none)."""


def sample_points(
    truth: np.ndarray, lungs: np.ndarray | None, rng: np.random.Generator
) -> np.ndarray:
    """Return labels of single voxels: one for each lesion, and as many background voxels.

    A lesion's voxel is the one farthest from its edge, which always lies inside of it. Background
    is drawn evenly over all of the image that is no lesion.

    Args:
        truth: Mask of a slice or a volume.
        lungs: Same shape, where background is drawn from if there is no lesion; all of the image
            if left out.
        rng: Source of randomness.

    Returns:
        uint8 of the same shape: 0 background, 1 lesion, 255 unknown.
    """
    labels = np.full(truth.shape, UNKNOWN, dtype=np.uint8)
    # voxels that touch at a corner are connected
    regions, count = ndimage.label(truth, np.ones((3,) * truth.ndim))
    for number, box in enumerate(ndimage.find_objects(regions), start=1):
        # what lies beyond the box, and beyond the image, is outside of the lesion
        inside = np.pad(regions[box] == number, 1)
        place = np.unravel_index(np.argmax(ndimage.distance_transform_edt(inside)), inside.shape)
        labels[tuple(int(n) - 1 + s.start for n, s in zip(place, box, strict=True))] = 1
    wanted = count or WITHOUT_LESION
    clear = ~truth.astype(bool)
    if count == 0 and lungs is not None and (clear & (lungs > 0)).any():
        clear &= lungs > 0
    places = np.flatnonzero(clear)
    labels.flat[rng.choice(places, min(wanted, places.size), replace=False)] = 0
    return labels
