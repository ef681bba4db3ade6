"""The vesselness of a whole CT beside scikit-image and SimpleITK, and the reference mask.

The CT is a real one where the data lie beside the repository, else a phantom.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import SimpleITK as sitk
import torch
from scipy import ndimage
from skimage.filters import frangi

from DRAMLesionLib.frangi import FrangiConfig, vesselness
from DRAMLesionLib.geometry import array, image_like, resample, working_grid
from DRAMLesionLib.intensity import window
from DRAMLesionLib.phantom import make_phantom
from DRAMLesionLib.vessels import reference_vessels
from Testing.library.realdata import DATA

SIGMAS = (1.0, 1.5, 2.0, 3.0)
GAMMA = 0.05


def run(rounds: int = 3, slow_rounds: int = 2) -> list[dict[str, Any]]:
    """Return the rows of the benchmark table; scikit-image takes minutes a round."""
    ct, lungs = _scan()
    scaled, spacing = window(array(ct)), ct.GetSpacing()[0]
    config = FrangiConfig(sigmas=SIGMAS, gamma=GAMMA, normalised=False)
    in_voxels = [sigma / spacing for sigma in SIGMAS]

    def ours() -> np.ndarray:
        return vesselness(scaled, spacing, config)

    def skimage() -> np.ndarray:
        return frangi(scaled, sigmas=in_voxels, gamma=GAMMA, black_ridges=False)

    share = _share_of_limit(scaled.size, spacing)
    rows = [
        _row("vesselness, whole CT", ours, "skimage.filters.frangi", skimage, slow_rounds, 5.0),
        _row(
            "vesselness, whole CT",
            ours,
            "SimpleITK.ObjectnessMeasure",
            lambda: _objectness(scaled, spacing),
            rounds,
            1.0,
        ),
        _row(
            "vessel reference, whole CT", lambda: reference_vessels(ct, lungs), None, None, rounds
        ),
    ]
    for row in rows[:2]:
        row["limit_share"] = round(share / row["ours_s"], 3)
    rows[0]["met"] = rows[0]["met"] and rows[0]["agreement"] >= 0.99
    return rows


def _scan() -> tuple[sitk.Image, sitk.Image]:
    """Return a CT on its 1.25 mm grid and a mask of what is as dark as lung."""
    file = Path(DATA) / "ct" / "lidc-idri-0002.nii.gz"
    ct = sitk.ReadImage(str(file)) if file.is_file() else make_phantom(0, 1.25).ct
    ct = resample(ct, working_grid(ct, 1.25))
    hu = array(ct)
    tissue = ndimage.binary_opening(hu > -400, iterations=2)
    body = np.stack([ndimage.binary_fill_holes(plane) for plane in tissue])
    lungs = ndimage.binary_closing(body & (hu < -500), iterations=4)
    return ct, image_like(lungs, ct)


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


def _row(
    name: str,
    ours: Callable[[], Any],
    peer: str | None,
    theirs: Callable[[], np.ndarray] | None,
    rounds: int,
    target: float | None = None,
) -> dict[str, Any]:
    """Time the two in turn; the peer's result is also compared with ours."""
    ours()  # the first call builds the kernels and warms the threads up
    peak = _peak_mb(ours)
    times: list[float] = []
    peer_times: list[float] = []
    agreement = None
    for _ in range(rounds):
        seconds, result = _timed(ours)
        times.append(seconds)
        if theirs is not None:
            seconds, other = _timed(theirs)
            peer_times.append(seconds)
            agreement = float(np.corrcoef(result.ravel(), other.ravel())[0, 1])
    median = statistics.median(times)
    peer_median = statistics.median(peer_times) if peer_times else None
    ratio = peer_median / median if peer_median else None
    return {
        "name": name,
        "ours_s": round(median, 3),
        "ours_spread_s": round(max(times) - min(times), 3),
        "peer": peer,
        "peer_s": round(peer_median, 3) if peer_median else None,
        "peer_spread_s": round(max(peer_times) - min(peer_times), 3) if peer_times else None,
        "ratio": round(ratio, 2) if ratio else None,
        "agreement": round(agreement, 4) if agreement is not None else None,
        "peak_mb": round(peak),
        "limit_share": None,
        "target": target,
        "met": ratio is None or target is None or ratio >= target,
    }


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def _peak_mb(work: Callable[[], Any]) -> float:
    """Return by how much the resident memory rose at most during ``work``."""
    process = psutil.Process()
    before = process.memory_info().rss
    peak = before
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return (peak - before) / 1e6


def _share_of_limit(voxels: int, spacing: float) -> float:
    """Return the seconds that the multiplications alone take at the rate of a large product."""
    size = 2048
    a, b = torch.rand(size, size), torch.rand(size, size)
    rate = 2.0 * size**3 / min(_timed(lambda: torch.mm(a, b))[0] for _ in range(5))
    block = 64
    operations = 0.0
    for sigma in SIGMAS:
        wide = block + 2 * int(np.ceil(4.0 * sigma / spacing))
        lines = 3 * (wide / block) ** 2 + 6 * (wide / block) + 6
        operations += 2.0 * wide * lines
    return operations * voxels / rate


if __name__ == "__main__":
    import json

    print(json.dumps(run(), indent=1))
