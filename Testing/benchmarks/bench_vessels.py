"""The vesselness of a whole CT beside scikit-image and SimpleITK.

The CT is a real one where the data lie beside the repository, else a phantom.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from skimage.filters import frangi

from DRAMLesionLib.images.geometry import array, resample, working_grid
from DRAMLesionLib.images.intensity import window
from DRAMLesionLib.phantom import make_phantom
from DRAMLesionLib.vessels.frangi import FrangiConfig, vesselness
from Testing.benchmarks.measuring import peak_mb, product_rate, timings
from Testing.library.realdata import DATA

SIGMAS = (1.0, 1.5, 2.0, 3.0)
GAMMA = 0.05


def run(rounds: int = 3, slow_rounds: int = 2) -> list[dict[str, Any]]:
    """Return the rows of the benchmark table; scikit-image takes minutes a round."""
    scaled, spacing = _scaled()
    config = FrangiConfig(sigmas=SIGMAS, gamma=GAMMA, normalised=False)
    in_voxels = [sigma / spacing for sigma in SIGMAS]

    def ours() -> np.ndarray:
        return vesselness(scaled, spacing, config)

    def skimage() -> np.ndarray:
        return frangi(scaled, sigmas=in_voxels, gamma=GAMMA, black_ridges=False)

    share = _share_of_limit(scaled.size, spacing)
    rows = [
        _row(ours, "skimage.filters.frangi", skimage, slow_rounds, 5.0),
        _row(
            ours,
            "SimpleITK.ObjectnessMeasure",
            lambda: _objectness(scaled, spacing),
            rounds,
            1.0,
        ),
    ]
    for row in rows:
        row["limit_share"] = round(share / row["ours_s"], 3)
    rows[0]["met"] = rows[0]["met"] and rows[0]["agreement"] >= 0.99
    return rows


def _row(
    ours: Callable[[], np.ndarray],
    peer: str,
    theirs: Callable[[], np.ndarray],
    rounds: int,
    target: float,
) -> dict[str, Any]:
    """Time the two in turn; the results are compared, too."""
    kept: dict[str, np.ndarray] = {"ours": ours()}  # and the threads are warm

    def keep() -> None:
        kept["peer"] = theirs()

    timing = timings(ours, keep, peer, rounds, target, warm=False)
    correlation = np.corrcoef(kept["ours"].ravel(), kept["peer"].ravel())[0, 1]
    return {
        "name": "vesselness, whole CT",
        **timing,
        "agreement": round(float(correlation), 4),
        "peak_mb": round(peak_mb(_single)),
    }


def _single() -> Callable[[], np.ndarray]:
    scaled, spacing = _scaled()
    config = FrangiConfig(sigmas=SIGMAS, gamma=GAMMA, normalised=False)
    return lambda: vesselness(scaled, spacing, config)


def _scaled() -> tuple[np.ndarray, float]:
    """Return a windowed CT on a 1.25 mm grid, and the spacing."""
    file = Path(DATA) / "ct" / "lidc-idri-0002.nii.gz"
    ct = sitk.ReadImage(str(file)) if file.is_file() else make_phantom(0, 1.25).ct
    return window(array(resample(ct, working_grid(ct, 1.25)))), 1.25


def _objectness(scaled: np.ndarray, spacing: float) -> np.ndarray:
    image = sitk.GetImageFromArray(scaled)
    image.SetSpacing((spacing,) * 3)
    best: sitk.Image | None = None
    for sigma in SIGMAS:
        smooth = sitk.SmoothingRecursiveGaussian(image, sigma)
        # its derivatives are per mm, scikit-image's per voxel
        found = sitk.ObjectnessMeasure(smooth, 0.5, 0.5, GAMMA / spacing**2, False, 1, True)
        best = found if best is None else sitk.Maximum(best, found)
    return sitk.GetArrayFromImage(best)


def _share_of_limit(voxels: int, spacing: float) -> float:
    """Return the seconds that the multiplications alone take at the rate of a large product."""
    block = 64
    operations = 0.0
    for sigma in SIGMAS:
        wide = block + 2 * int(np.ceil(4.0 * sigma / spacing))
        lines = 3 * (wide / block) ** 2 + 6 * (wide / block) + 6
        operations += 2.0 * wide * lines
    return operations * voxels / product_rate()


if __name__ == "__main__":
    import json

    print(json.dumps(run(), indent=1))
