"""The dense CRF beside pydensecrf, on lung chunks of 80^3 and 128^3, two classes, five iterations.

The chunks are cut from a real CT where the data lie beside the repository, else made of blobs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor
from torch.nn import functional as F

from DRAMLesionLib.images.intensity import window
from DRAMLesionLib.lesions.crf import CRFConfig, DenseCRF, dense_crf
from Testing.benchmarks.measuring import copy_rate, peak_mb, timings
from Testing.library.realdata import DATA

TARGET = 2.0
SAME_LABELS = 0.995
WIDE = CRFConfig(3.0, 3.0, 5.0, 0.1, 10.0, iterations=5)
"""Not what ships but what these rows have always been measured with: as wide and heavy as any."""

CORNERS = 9  # 4 of a simplex of the spatial lattice, 5 of one of the bilateral lattice


def run(rounds: int = 5, sizes: tuple[int, ...] = (80, 128)) -> list[dict[str, Any]]:
    """Return the rows of the benchmark table; a kept kernel is what training has."""
    rate = copy_rate()
    rows = []
    for size in sizes:
        rows.append(_row("dense CRF", partial(dense_crf, config=WIDE), size, rounds, rate))
        rows.append(_row("dense CRF, spatial kernel kept", DenseCRF(WIDE), size, rounds, rate))
    return rows


def _row(
    name: str, crf: Callable[[Tensor, Tensor], Tensor], size: int, rounds: int, rate: float
) -> dict[str, Any]:
    probability, image = lung_chunk(size)

    def ours() -> Tensor:
        return crf(probability, image)

    def peer() -> Tensor:
        return dense_crf(probability, image, WIDE, backend="pydensecrf")

    row = {
        "name": f"{name}, {size}^3",
        **timings(ours, peer, "pydensecrf", rounds, TARGET),
        "agreement": (ours().argmax(1) == peer().argmax(1)).float().mean().item(),
        "peak_mb": round(peak_mb(_single, size)),
    }
    row["limit_share"] = round(_bytes(size**3) / rate / row["ours_s"], 3)
    row["met"] = row["met"] and row["agreement"] >= SAME_LABELS
    return row


def lung_chunk(size: int) -> tuple[Tensor, Tensor]:
    """Return probabilities (1, 2, k, j, i) and image (1, 1, k, j, i) of a cube."""
    generator = torch.Generator().manual_seed(size)
    file = DATA / "ct" / "lidc-idri-0002.nii.gz"
    if file.is_file():
        scan = window(sitk.GetArrayFromImage(sitk.ReadImage(str(file))))
        start = [(n - size) // 2 + shift for n, shift in zip(scan.shape, (0, 0, 50), strict=True)]
        cube = scan[tuple(slice(a, a + size) for a in start)]
        image = torch.from_numpy(np.ascontiguousarray(cube))[None, None]
    else:
        coarse = torch.rand((1, 1, *(size // 8,) * 3), generator=generator)
        image = F.interpolate(coarse, (size,) * 3, mode="trilinear")
    noise = torch.randn(image.shape, generator=generator)
    foreground = torch.sigmoid(12.0 * (F.avg_pool3d(image, 3, 1, 1) - 0.45) + noise)
    return torch.cat((1.0 - foreground, foreground), 1), image


def _single(size: int) -> Callable[[], Tensor]:
    probability, image = lung_chunk(size)
    return lambda: dense_crf(probability, image, WIDE)


def _bytes(voxels: int) -> float:
    """Count what splatting and slicing must read: an index and a weight for each corner."""
    filters = WIDE.iterations + 2  # one for the norm, one for the last class
    return 2.0 * filters * voxels * CORNERS * (8 + 4)


if __name__ == "__main__":
    import json

    print(json.dumps(run(), indent=1))
