"""A valid-padding U-Net over the lungs of a scan, in tiles that fit each other exactly."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from DRAMLesionLib.devices import free_memory
from DRAMLesionLib.images.boxes import Slices, bounding_box, mirrored
from DRAMLesionLib.memory import is_out_of_memory
from DRAMLesionLib.networks.local import LOCAL_HALO, is_local, run_local
from DRAMLesionLib.networks.unet import STRIDE, VALID_EXACT_SHRINK, UNet3D
from DRAMLesionLib.networks.whole import fused, run_whole

Progress = Callable[[float], None]

_HALO = VALID_EXACT_SHRINK // 2
_BYTES = 5.5
"""Memory that a tile takes for each voxel of its input and each base channel, as measured."""
_BUDGET = {"cpu": 2.5e9}
_GPU_BUDGET = 6e9
"""What a tile may take at most: users have 8 GB of memory, or 8 GB on the GPU."""
_SHARE = 0.7
"""And never more than this share of what is free."""
_SMALLEST = 2 * STRIDE


@torch.no_grad()
def run_over_lungs(
    network: UNet3D,
    image: np.ndarray,
    inside: np.ndarray,
    take: Callable[[Slices, Tensor], None],
    tile: int = 320,
    slab: int = 16,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> None:
    """Run a network over the bounding box of the lungs; its output comes slab by slab.

    Tiles are as large as the free memory allows, and smaller ones are tried where it did not do
    after all.

    Args:
        network: Valid-padding U-Net in evaluation mode, on ``device``.
        image: (k, j, i) volume, windowed to [0, 1].
        inside: (k, j, i) bool, the lungs; tiles that do not touch them are left out.
        take: Called with a part of the volume and its logits, (1, channels, k, j, i); again with
            the same part if the memory gave out.
        tile: Largest edge of a tile's output in voxels; decides about memory, not the result.
        slab: Thickness in voxels of what is worked on at a time; the same holds.
        device: Where the network is.
        progress: Called with the share done, 0 to 1.
    """
    device = device or torch.device("cpu")
    edge = min(tile, fitting_tile(network.base_channels, device))
    quick = fused(network)
    while True:
        try:
            _run_tiles(quick, image, inside, take, edge, slab, device, progress)
        except (RuntimeError, MemoryError) as error:
            if edge <= _SMALLEST or not is_out_of_memory(error):
                raise
            edge = max(edge // 2, _SMALLEST)
        else:
            return


def fitting_tile(base_channels: int, device: torch.device) -> int:
    """Return the largest edge of a tile's output that the memory of a device allows, 8 n."""
    budget = _BUDGET.get(device.type, _GPU_BUDGET)
    free = free_memory(device)
    if free is not None:
        budget = min(budget, _SHARE * free)
    edge = int((budget / (_BYTES * base_channels)) ** (1.0 / 3.0)) - 2 * _HALO
    return max(edge // STRIDE * STRIDE, _SMALLEST)


def _run_tiles(
    quick: UNet3D,
    image: np.ndarray,
    inside: np.ndarray,
    take: Callable[[Slices, Tensor], None],
    tile: int,
    slab: int,
    device: torch.device,
    progress: Progress | None,
) -> None:
    todo = [place for place in tiles(inside, tile) if inside[place].any()]
    run, halo, depth = run_whole, _HALO, slab
    if is_local(quick):
        # works on each slab by itself: thin ones would be mostly seams
        run, halo, depth = run_local, LOCAL_HALO, 2 * slab
    for number, place in enumerate(todo):
        patch = torch.from_numpy(_cut_with_halo(image, place, halo))[None, None].to(device)

        def pass_on(first: int, logits: Tensor, place: Slices = place) -> None:
            start = place[0].start + first
            part = (slice(start, start + logits.shape[2]), place[1], place[2])
            # a tile may reach beyond the volume
            sizes = [
                max(min(s.stop, n) - s.start, 0) for s, n in zip(part, inside.shape, strict=True)
            ]
            if min(sizes) > 0:
                take(part, logits[:, :, : sizes[0], : sizes[1], : sizes[2]])

        def tell(share: float, number: int = number) -> None:
            if progress is not None:
                progress((number + share) / len(todo))

        run(quick, patch, pass_on, depth, tell)


def vessel_probability(
    network: UNet3D,
    image: np.ndarray,
    inside: np.ndarray,
    tile: int = 320,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Return what a network with one channel makes of the lungs, float32 in [0, 1], 0 elsewhere.

    Args:
        network: See :func:`run_over_lungs`, like the others.
        image: (k, j, i), windowed to [0, 1].
        inside: (k, j, i) bool, the lungs.
        tile: Largest edge of a tile.
        device: Where the network is.
        progress: Called with the share done.
    """
    probability = np.zeros(inside.shape, dtype=np.float32)

    def take(part: Slices, logits: Tensor) -> None:
        probability[part] = torch.sigmoid(logits[0, 0].float()).cpu().numpy() * inside[part]

    run_over_lungs(network, image, inside, take, tile, device=device, progress=progress)
    return probability


def tiles(inside: np.ndarray, largest: int) -> Iterator[Slices]:
    """Yield output tiles that cover the bounding box of a mask without overlap.

    Args:
        inside: (k, j, i) mask.
        largest: Largest edge of a tile.

    Yields:
        Slices whose starts and lengths are multiples of 8, so that the pooling lattice is the
        same in each; the last ones may reach beyond the volume.
    """
    if not inside.any():
        return
    ranges = []
    for box in bounding_box(inside):
        start = box.start // STRIDE * STRIDE
        extent = box.stop - start
        count = -(-extent // max(largest // STRIDE * STRIDE, STRIDE))
        edge = -(-extent // (count * STRIDE)) * STRIDE
        ranges.append([slice(start + n * edge, start + (n + 1) * edge) for n in range(count)])
    yield from itertools.product(*ranges)


def _cut_with_halo(image: np.ndarray, tile: Slices, halo: int) -> np.ndarray:
    """Cut a tile with what the network sees around it.

    Beyond the volume there is its mirror image: a scan that ends within the lungs goes on as lung,
    not as air, which would hide what lies in its last slices.
    """
    around = [
        mirrored(np.arange(t.start - halo, t.stop + halo), n)
        for t, n in zip(tile, image.shape, strict=True)
    ]
    return image[np.ix_(*around)]
