"""A reader who clicks where the worst error is."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from DRAMLesionLib.lesions.clicks import Click


def worst_error(found: np.ndarray, truth: np.ndarray, spacing: tuple[float, ...]) -> Click | None:
    """Return a click into the middle of the largest piece of lesion that is missed or made up.

    Args:
        found: (k, j, i) bool, inside the lobes.
        truth: The same.
        spacing: Millimetres of a voxel along (k, j, i).

    Returns:
        A click on the voxel of that piece that is farthest from its border, the first of several;
        None where there is no error.
    """
    worst: tuple[int, bool, np.ndarray, tuple[slice, ...]] | None = None
    for error, lesion in ((truth & ~found, True), (found & ~truth, False)):
        pieces, count = ndimage.label(error)
        if count == 0:
            continue
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0
        label = int(sizes.argmax())
        if worst is None or sizes[label] > worst[0]:
            box = ndimage.find_objects(pieces, max_label=label)[label - 1]
            worst = (int(sizes[label]), lesion, pieces[box] == label, box)
    if worst is None:
        return None
    _, lesion, piece, box = worst
    # what lies beyond the array counts as outside of the piece
    depth = ndimage.distance_transform_edt(np.pad(piece, 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
    k, j, i = (
        int(index) + part.start
        for index, part in zip(np.unravel_index(depth.argmax(), depth.shape), box, strict=True)
    )
    return Click((k, j, i), lesion)
