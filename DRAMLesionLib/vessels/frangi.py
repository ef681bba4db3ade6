"""Frangi's vesselness: how much each voxel of a volume looks like a bright tube.

The multi-scale filter of Frangi et al. (MICCAI 1998), equal to scikit-image's at a fraction of its
time: an axis of a block is convolved with all three derivative orders by products with banded
matrices, blocks without lung are left out, eigenvalues come in closed form and only where a
response above the best one of the smaller scales is still possible, and the blocks are shared out
to threads, which wait for nobody.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable
from concurrent.futures import as_completed
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from DRAMLesionLib.devices import single_threaded_pool
from DRAMLesionLib.errors import InputError
from DRAMLesionLib.images.boxes import Slices, bounding_box

Progress = Callable[[float], None]

BLOCK = 64
"""Edge of a block in voxels: the halo costs less than the copies, the arrays stay in the cache."""

TRUNCATE = 4.0
"""Radius of the convolution kernels in units of sigma."""

# Hessian components as pairs of (order along k, order along j); the order along i makes it two.
# Components that share the order along i lie side by side: one matrix product serves them all.
_COMPONENTS = ((2, 0), (1, 1), (0, 2), (1, 0), (0, 1), (0, 0))
_GROUPS = ((slice(0, 3), 0), (slice(3, 5), 1), (slice(5, 6), 2))


@dataclass(frozen=True)
class FrangiConfig:
    """Parameters of the vesselness.

    Attributes:
        sigmas: Scales in mm, smallest first. A tube answers most where sigma is about its radius.
        alpha: Sensitivity to plates, against R_A = |l2| / |l3|.
        beta: Sensitivity to blobs, against R_B = |l1| / sqrt(|l2 l3|).
        gamma: Sensitivity to structure, against the Hessian's norm S: in units of the intensity
            where ``normalised``, else of the intensity per squared voxel. None takes half of the
            largest norm at the first scale, as scikit-image does; it then depends on the brightest
            edge of the volume. The default, 0.03, is 45 HU of the windowed CT.
        normalised: Multiply the derivatives by sigma squared, so that thick and thin vessels of
            one contrast answer alike. False measures lengths in voxels, as scikit-image does.
    """

    sigmas: tuple[float, ...] = (0.8, 1.3, 2.0, 3.2)
    alpha: float = 0.5
    beta: float = 0.5
    gamma: float | None = 0.03
    normalised: bool = True

    def __post_init__(self) -> None:
        values = (*self.sigmas, self.alpha, self.beta, 1.0 if self.gamma is None else self.gamma)
        if not self.sigmas or min(values) <= 0.0:
            msg = f"the scales, alpha, beta and gamma of {self} must all be above 0"
            raise InputError(msg)


def vesselness(
    volume: np.ndarray | torch.Tensor,
    spacing_mm: float,
    config: FrangiConfig | None = None,
    mask: np.ndarray | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Return the multi-scale Frangi response to bright tubes.

    Equal to ``skimage.filters.frangi(black_ridges=False)`` with the same parameters, up to the
    kernels' tails and a few voxels at the border of the volume.

    Args:
        volume: Intensities (k, j, i) on an isotropic grid, mirrored at its border.
        spacing_mm: Edge of a voxel in mm.
        config: Scales and sensitivities.
        mask: Where a response is wanted, (k, j, i); voxels outside still shape the response
            inside. Blocks that it does not touch cost nothing.
        progress: Called with the finished share, 0 to 1; may raise to stop.

    Returns:
        float32 (k, j, i) in [0, 1), 0 outside ``mask``.

    Raises:
        InputError: The volume is not 3D or not finite, the spacing is not positive, or the mask
            has another shape.
    """
    config = config or FrangiConfig()
    values = _checked(volume, spacing_mm, mask)
    sigmas = [sigma / spacing_mm for sigma in config.sigmas]
    blocks = _blocks(values.shape, mask)
    response = np.zeros(values.shape, dtype=np.float32)
    share = 0.0 if config.gamma is not None else 0.5 / (0.5 + len(sigmas))
    gamma = config.gamma
    if gamma is None:
        norms = _each_block(
            lambda b: _largest_norm(values, b, mask, sigmas[0]), blocks, progress, (0.0, share)
        )
        gamma = 0.5 * max(norms, default=0.0) * (sigmas[0] ** 2 if config.normalised else 1.0)
        gamma = gamma or 1.0  # a flat volume: any gamma gives 0

    def work(block: Slices) -> None:
        response[block] = _block_response(values, block, mask, sigmas, config, gamma)

    _each_block(work, blocks, progress, (share, 1.0))
    return response


def _checked(
    volume: np.ndarray | torch.Tensor, spacing_mm: float, mask: np.ndarray | None
) -> np.ndarray:
    values = np.asarray(volume)
    if values.ndim != 3 or 0 in values.shape:
        msg = f"vesselness takes a 3D volume, not one of shape {values.shape}"
        raise InputError(msg)
    if not spacing_mm > 0.0:
        msg = f"the spacing of the volume must be above 0 mm, not {spacing_mm}"
        raise InputError(msg)
    if mask is not None and mask.shape != values.shape:
        msg = f"the mask has shape {mask.shape}, the volume {values.shape}; resample the mask first"
        raise InputError(msg)
    # the sum is finite only where every voxel is, and needs no array of flags
    if not np.isfinite(values.sum(dtype=np.float64)):
        msg = "the volume has voxels that are NaN or infinite; replace them first"
        raise InputError(msg)
    return values


# -- one block of the vesselness ------------------------------------------------------------------


def _block_response(
    values: np.ndarray,
    block: Slices,
    mask: np.ndarray | None,
    sigmas: list[float],
    config: FrangiConfig,
    gamma: float,
) -> np.ndarray:
    """Return the largest response over all scales in one block."""
    shape = tuple(s.stop - s.start for s in block)
    halo = max(_radius(sigma) for sigma in sigmas)
    padded = torch.from_numpy(_with_halo(values, block, halo))
    best = torch.zeros(math.prod(shape))
    wanted = None if mask is None else torch.from_numpy(mask[block].astype(bool)).view(-1)
    for sigma in sigmas:
        hessian = _hessian(padded, shape, sigma, halo)
        if config.normalised:
            hessian.mul_(sigma**2)
        _raise_response(best, hessian, wanted, config, gamma)
    return best.view(shape).numpy()


def _raise_response(
    best: torch.Tensor,
    hessian: torch.Tensor,
    wanted: torch.Tensor | None,
    config: FrangiConfig,
    gamma: float,
) -> None:
    """Set ``best`` (n) to the maximum of itself and the response of one scale (eq. 13).

    Left out are voxels that cannot answer: both large eigenvalues of a bright tube are negative,
    so the trace is; and no response exceeds plate term times structure term at their largest.
    """
    norm2 = _squared_norm(hessian)
    trace = hessian[0] + hessian[2]
    trace += hessian[5]
    structure = norm2.mul_(-0.5 / gamma**2).expm1_().neg_()
    possible = structure * -math.expm1(-0.5 / config.alpha**2) > best
    possible &= trace < 0
    if wanted is not None:
        possible &= wanted
    where = torch.from_numpy(np.flatnonzero(possible.numpy()))
    if where.numel() == 0:
        return
    components = [component.index_select(0, where) for component in hessian]
    low, middle, high = _eigenvalues(components, trace.index_select(0, where))
    # by magnitude: l3 = low, l2 = middle, l1 = high where the tube condition below holds
    tube = (middle + high) < 0
    ratio_a = middle / low
    ratio_b2 = high.square() / (middle * low)
    answer = ratio_a.square_().mul_(-0.5 / config.alpha**2).expm1_().neg_()
    answer *= ratio_b2.mul_(-0.5 / config.beta**2).exp_()
    answer *= structure.index_select(0, where)
    answer = torch.where(tube, answer, 0.0)
    best.index_copy_(0, where, torch.maximum(answer, best.index_select(0, where)))


def _eigenvalues(
    components: list[torch.Tensor], trace: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the eigenvalues of symmetric 3x3 matrices, smallest first, in closed form.

    With A = q I + p B and det(B) / 2 = cos(3 phi), the eigenvalues are q + 2 p cos(phi + 2 pi m/3).
    """
    kk, kj, jj, ki, ji, ii = components
    q = trace / 3.0
    kk, jj, ii = kk - q, jj - q, ii - q
    p2 = kk.square().addcmul_(jj, jj).addcmul_(ii, ii).mul_(0.5)
    p2.addcmul_(kj, kj).addcmul_(ki, ki).addcmul_(ji, ji).div_(3.0).clamp_(min=1e-30)
    det = kk * (jj * ii - ji * ji) - kj * (kj * ii - ji * ki) + ki * (kj * ji - jj * ki)
    p = p2.sqrt()
    phi = (det / (p2 * p)).mul_(0.5).clamp_(-1.0, 1.0).acos_().div_(3.0)
    p *= 2.0
    high = torch.addcmul(q, p, phi.cos())
    low = torch.addcmul(q, p, phi.add_(2.0 * math.pi / 3.0).cos_())
    return low, trace - low - high, high


def _squared_norm(hessian: torch.Tensor) -> torch.Tensor:
    """Return S squared, the sum of the squared eigenvalues, from the six components."""
    kk, kj, jj, ki, ji, ii = hessian
    off = kj.square().addcmul_(ki, ki).addcmul_(ji, ji)
    return off.mul_(2.0).addcmul_(kk, kk).addcmul_(jj, jj).addcmul_(ii, ii)


def _largest_norm(
    values: np.ndarray, block: Slices, mask: np.ndarray | None, sigma: float
) -> float:
    shape = tuple(s.stop - s.start for s in block)
    halo = _radius(sigma)
    padded = torch.from_numpy(_with_halo(values, block, halo))
    norm2 = _squared_norm(_hessian(padded, shape, sigma, halo))
    if mask is not None:
        norm2 = norm2[torch.from_numpy(mask[block].astype(bool)).view(-1)]
    return math.sqrt(float(norm2.max()))


def _hessian(padded: torch.Tensor, shape: tuple[int, ...], sigma: float, halo: int) -> torch.Tensor:
    """Return the components kk, kj, jj, ki, ji, ii as (6, voxels) in a buffer of this thread."""
    nk, nj, ni = shape
    r = _radius(sigma)
    x = padded[tuple(slice(halo - r, halo + n + r) for n in shape)]
    along_k, along_j, along_i = (_banded(sigma, n) for n in shape)
    wide_j, wide_i = nj + 2 * r, ni + 2 * r
    a = _buffer("a", (3, nk, wide_j, wide_i))
    torch.mm(along_k.view(3 * nk, -1), x.reshape(nk + 2 * r, -1), out=a.view(3 * nk, -1))
    b = _buffer("b", (6, nk, nj, wide_i))
    for target, (order_k, order_j) in zip(b, _COMPONENTS, strict=True):
        torch.matmul(along_j[order_j], a[order_k], out=target)
    h = _buffer("h", (6, nk * nj * ni))
    for group, order_i in _GROUPS:
        torch.mm(b[group].view(-1, wide_i), along_i[order_i].t(), out=h[group].view(-1, ni))
    return h


@lru_cache(maxsize=512)
def _banded(sigma: float, length: int) -> torch.Tensor:
    """Return the matrices (order, length, length + 2 radius) that convolve a padded line."""
    kernels = _kernels(sigma)
    width = kernels.shape[1]
    matrices = np.zeros((3, length, length + width - 1), dtype=np.float32)
    for row in range(length):
        matrices[:, row, row : row + width] = kernels
    return torch.from_numpy(matrices)


def _kernels(sigma: float) -> np.ndarray:
    """Return the kernels of orders 0, 1, 2 as rows.

    Each is two passes of a sampled Gaussian (or its derivative) with sigma / sqrt(2), which keeps
    second derivatives accurate at small scales; so does scikit-image.
    """
    half = sigma / math.sqrt(2.0)
    reach = math.ceil(2.0 * TRUNCATE * sigma) + 2
    x = np.arange(-reach, reach + 1, dtype=float)
    smooth = np.exp(-0.5 * (x / half) ** 2)
    smooth /= smooth.sum()
    slope = -x / half**2 * smooth
    pairs = ((smooth, smooth), (smooth, slope), (slope, slope))
    full = np.stack([np.convolve(first, second) for first, second in pairs])
    r = _radius(sigma)
    kernels = full[:, 2 * reach - r : 2 * reach + r + 1]
    kernels[0] /= kernels[0].sum()
    kernels[2] -= kernels[2].sum() * kernels[0]  # the cut tails must not answer to a constant
    return kernels


def _radius(sigma: float) -> int:
    return max(1, math.ceil(TRUNCATE * sigma))


_local = threading.local()


def _buffer(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Return uninitialised memory that this thread uses again: fresh pages cost more than sums."""
    size = math.prod(shape)
    held = getattr(_local, name, None)
    if held is None or held.numel() < size:
        held = torch.empty(size)
        setattr(_local, name, held)
    return held[:size].view(shape)


# -- blocks and threads ---------------------------------------------------------------------------


def _blocks(shape: tuple[int, ...], mask: np.ndarray | None, size: int = BLOCK) -> list[Slices]:
    """Return blocks that cover the volume, or what the mask leaves of it."""
    along = [[slice(a, min(a + size, n)) for a in range(0, n, size)] for n in shape]
    blocks = list(itertools.product(along[0], along[1], along[2]))
    if mask is None:
        return blocks
    return [_shrunk(block, mask[block]) for block in blocks if mask[block].any()]


def _shrunk(block: Slices, mask: np.ndarray) -> Slices:
    """Return the part of the block that holds all of its mask, which is not empty."""
    k, j, i = (
        slice(whole.start + part.start, whole.start + part.stop)
        for whole, part in zip(block, bounding_box(mask), strict=True)
    )
    return k, j, i


def _with_halo(values: np.ndarray, block: Slices, halo: int) -> np.ndarray:
    """Return the block with ``halo`` voxels around it, mirrored where the volume ends."""
    inner = []
    outside = []
    for s, n in zip(block, values.shape, strict=True):
        inner.append(slice(max(s.start - halo, 0), min(s.stop + halo, n)))
        outside.append((max(halo - s.start, 0), max(s.stop + halo - n, 0)))
    cut = np.asarray(values[tuple(inner)], dtype=np.float32)
    # derivatives know no offset; without it, rounding does not answer where nothing is
    return np.ascontiguousarray(np.pad(cut - cut[0, 0, 0], outside, mode="symmetric"))


def _each_block(
    work: Callable[[Slices], Any],
    blocks: list[Slices],
    progress: Progress | None,
    span: tuple[float, float],
) -> list[Any]:
    """Do ``work`` on all blocks in threads, one core each; results come in any order."""
    results = []
    with single_threaded_pool() as pool:
        futures = [pool.submit(work, block) for block in blocks]
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                results.append(future.result())
                if progress is not None:
                    progress(span[0] + (span[1] - span[0]) * done / len(futures))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return results
