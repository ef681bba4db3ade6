"""Fully connected CRF: the dRAM is refined to a target that follows the edges of the CT.

Mean-field inference in the dense CRF of Krähenbühl and Koltun (2011), which the paper uses in
section III-D: Potts compatibility, a spatial Gaussian kernel and a bilateral one, each normalised
symmetrically. Both kernels are applied on the permutohedral lattice of Adams et al. (2010), the
same one that pydensecrf uses, in the same float32 arithmetic. The lattice is a coarse stand-in for
the Gaussian, so a finer filter would be nearer to the formula and further from the reference:
mean-field feeds every small difference back, and where the evidence is weak whole regions flip.

What a volume is makes the lattice cheap. The features fill a box, so a vertex is found by
arithmetic in a table over that box and not by hashing; the marginals sum to one, so the last class
needs no filtering of its own; and all the rest is gather and scatter-add, the same on a CPU and a
GPU.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from DRAMLesionLib.errors import InputError, MissingDependencyError
from DRAMLesionLib.typed import Between

MIN_PROBABILITY = 1e-5
"""A probability of zero would let nothing else speak; pydensecrf's helper clips at the same."""

_BLOCK_VOXELS = {"cpu": 1 << 17, "cuda": 1 << 23}
# on a CPU, the intermediate results of one block stay in the cache

_MAX_TABLE = 1 << 30
_KEPT = 4
"""Shapes whose spatial kernel is kept: 50 bytes a voxel."""


@dataclass(frozen=True)
class CRFConfig:
    """Parameters of the dense CRF; not given in the paper, found on development data.

    ``python -m Training.studies.crf_search`` repeats the search. What decides is the sum of the
    weights: a map that is sure (0.95) has a log-odds of 3, and a region that is smaller than the
    kernels hears little but the background around it. Weights well above that erase ground glass.

    Attributes:
        spatial_sigma: Width of the spatial kernel, in voxels of a chunk of ``reference_size``.
        spatial_weight: Its weight in the energy, in units of log-odds.
        bilateral_sigma: Spatial width of the bilateral kernel, likewise.
        bilateral_intensity_sigma: Its width in rescaled intensity (0 to 1; 0.1 is 150 HU).
        bilateral_weight: Its weight in the energy.
        iterations: Mean-field iterations; 0 returns the clipped probability.
        reference_size: Edge of the chunk that the widths are meant for. A lobe fills its chunk
            whatever the edge, so both widths shrink and grow with the edge of the image. 0, which
            cards and runs of before there was this choice mean, takes the widths as they are.

    Raises:
        InputError: A width is not positive, or a weight or the iterations are negative.
    """

    spatial_sigma: Annotated[float, Between(1e-3, 1e3)] = 2.0
    spatial_weight: Annotated[float, Between(0, 1e6)] = 0.5
    bilateral_sigma: Annotated[float, Between(1e-3, 1e3)] = 4.0
    bilateral_intensity_sigma: Annotated[float, Between(1e-3, 1e3)] = 0.04
    bilateral_weight: Annotated[float, Between(0, 1e6)] = 3.0
    iterations: Annotated[int, Between(0, 1000)] = 5
    reference_size: Annotated[int, Between(0, 4096)] = 0

    def __post_init__(self) -> None:
        widths = (self.spatial_sigma, self.bilateral_sigma, self.bilateral_intensity_sigma)
        if not all(math.isfinite(width) and width > 0 for width in widths):
            message = f"the widths of the CRF's kernels must be positive, got {widths}"
            raise InputError(message)
        counts = (self.spatial_weight, self.bilateral_weight, self.iterations, self.reference_size)
        if not all(math.isfinite(count) and count >= 0 for count in counts):
            message = f"the CRF's weights, iterations and size must not be negative, got {counts}"
            raise InputError(message)

    def for_image(self, shape: Sequence[int]) -> CRFConfig:
        """Return the same with widths in voxels of an image of this shape."""
        if not self.reference_size:
            return self
        scale = max(shape) / self.reference_size
        return replace(
            self,
            spatial_sigma=self.spatial_sigma * scale,
            bilateral_sigma=self.bilateral_sigma * scale,
            reference_size=0,
        )


class DenseCRF:
    """Dense CRF that keeps its spatial kernels from one call to the next.

    The spatial kernel depends on nothing but the shape, so a caller with many chunks of a few
    shapes saves a third of the work; :func:`dense_crf` is the same for a single call.

    Differentiable with respect to the probability. The image shapes the lattice and receives no
    gradient. On a CPU the same call gives the same result; on a GPU the scatter-adds sum in no
    fixed order, unless ``torch.use_deterministic_algorithms`` asks for it.
    """

    def __init__(self, config: CRFConfig | None = None) -> None:
        self.config = config or CRFConfig()
        self._spatial: dict[object, _Kernel] = {}

    def __call__(self, probability: Tensor, image: Tensor) -> Tensor:
        """Refine class probabilities; shapes and errors as for :func:`dense_crf`."""
        _check(probability, image)
        dtype = torch.promote_types(probability.dtype, torch.float32)
        volumes = []
        for p, (volume,) in zip(probability, image.detach(), strict=True):
            # outside inference mode: the kernel that is kept may serve a training step next
            with torch.inference_mode(False), torch.no_grad():
                kernels = self._kernels(volume.to(p.device, torch.float32), dtype)
            volumes.append(_mean_field(p, kernels, self.config.iterations))
        return torch.stack(volumes)

    def _kernels(self, image: Tensor, dtype: torch.dtype) -> tuple[_Kernel, _Kernel]:
        config = self.config.for_image(image.shape)
        position = [torch.arange(n, dtype=torch.float32, device=image.device) for n in image.shape]
        key = (image.shape, image.device, dtype)
        if key not in self._spatial:
            while len(self._spatial) >= _KEPT:
                self._spatial.pop(next(iter(self._spatial)))
            axes = [axis / config.spatial_sigma for axis in position]
            self._spatial[key] = _Kernel(_Features(axes), config.spatial_weight, dtype)
        axes = [axis / config.bilateral_sigma for axis in position]
        bilateral = _Features(axes, image / config.bilateral_intensity_sigma)
        return self._spatial[key], _Kernel(bilateral, config.bilateral_weight, dtype)


def dense_crf(
    probability: Tensor,
    image: Tensor,
    config: CRFConfig | None = None,
    backend: Literal["torch", "pydensecrf"] = "torch",
) -> Tensor:
    """Refine class probabilities with a dense CRF over the image.

    Args:
        probability: (batch, classes, k, j, i), at least two classes, in [0, 1]; each voxel is
            normalised over the classes.
        image: (batch, 1, k, j, i), rescaled intensity in [0, 1], finite.
        config: Kernel widths and weights.
        backend: ``"torch"`` is :class:`DenseCRF`; ``"pydensecrf"`` runs the reference
            implementation (package ``pydensecrf2``) on one CPU core, without gradients.

    Returns:
        Marginals Q, (batch, classes, k, j, i), summing to 1 over the classes; device and dtype of
        ``probability``.

    Raises:
        InputError: The shapes do not fit, or the kernels are too narrow for so large an image.
        MissingDependencyError: The reference was asked for and is not installed.
    """
    config = config or CRFConfig()
    if backend == "torch":
        return DenseCRF(config)(probability, image)
    if backend == "pydensecrf":
        _check(probability, image)
        pairs = zip(probability, image, strict=True)
        return torch.stack([_pydensecrf(p, volume, config) for p, (volume,) in pairs])
    message = f"unknown CRF back-end {backend!r}: choose 'torch' or 'pydensecrf'"
    raise InputError(message)


def _check(probability: Tensor, image: Tensor) -> None:
    if probability.ndim != 5 or probability.shape[1] < 2:
        message = (
            "the CRF needs probabilities of shape (batch, classes >= 2, k, j, i), "
            f"got {tuple(probability.shape)}"
        )
        raise InputError(message)
    wanted = (probability.shape[0], 1, *probability.shape[2:])
    if tuple(image.shape) != wanted:
        message = f"the CRF's image must have shape {wanted}, got {tuple(image.shape)}"
        raise InputError(message)
    if probability.numel() == 0 or not bool(torch.isfinite(image).all()):
        message = "the CRF's image is empty or has values that are not finite"
        raise InputError(message)


def _mean_field(probability: Tensor, kernels: tuple[_Kernel, _Kernel], iterations: int) -> Tensor:
    """Run mean-field inference on one (classes, k, j, i) volume."""
    dtype = torch.promote_types(probability.dtype, torch.float32)
    log_unary = probability.flatten(1).to(dtype).clamp_min(MIN_PROBABILITY).log()
    marginals = torch.softmax(log_unary, 0)
    spatial, bilateral = kernels
    total = spatial.of_ones + bilateral.of_ones
    for _ in range(iterations):
        messages = [spatial(q) + bilateral(q) for q in marginals[:-1]]
        # Q sums to one over the classes, hence the messages sum to the filtered ones
        messages.append(functools.reduce(torch.sub, messages, total))
        marginals = torch.softmax(log_unary + torch.stack(messages), 0)
    return marginals.view_as(probability).to(probability.dtype)


@dataclass(frozen=True)
class _Features:
    """Position and, optionally, intensity of each voxel, in units of the kernel's widths."""

    axes: list[Tensor]
    intensity: Tensor | None = None

    def blocks(self, voxels: int) -> Iterator[Tensor]:
        """Yield the features (features, voxels) of successive slabs of about ``voxels`` voxels."""
        k, j, i = (len(axis) for axis in self.axes)
        planes = max(1, voxels // (j * i))
        for start in range(0, k, planes):
            slab = self.axes[0][start : start + planes]
            rows = list(torch.meshgrid(slab, *self.axes[1:], indexing="ij"))
            if self.intensity is not None:
                rows.append(self.intensity[start : start + planes])
            yield torch.stack(rows).flatten(1)

    def ends(self) -> tuple[list[float], list[float]]:
        """Return the lowest and the highest value of each feature."""
        pairs = [(axis[0], axis[-1]) for axis in self.axes]
        if self.intensity is not None:
            pairs.append((self.intensity.min(), self.intensity.max()))
        low, high = torch.stack([torch.stack(pair) for pair in pairs]).T.tolist()
        return low, high


class _Kernel:
    """A symmetrically normalised, weighted Gaussian kernel: w D^-1/2 K D^-1/2, self included.

    Attributes:
        of_ones: What the kernel makes of a volume of ones, (voxels,).
    """

    def __init__(self, features: _Features, weight: float, dtype: torch.dtype) -> None:
        lattice = _Lattice(features, dtype)
        count = sum(len(w[0]) for _, w in lattice.blocks)
        ones = torch.ones(count, dtype=dtype, device=lattice.neighbours.device)
        norm = lattice(ones).add_(1e-20).rsqrt_().mul_(math.sqrt(weight))
        for (_, weights), part in zip(lattice.blocks, lattice.split(norm), strict=True):
            weights.mul_(part)  # both ends of the filter then carry the norm for free
        self._lattice = lattice
        self.of_ones = lattice(ones)

    def __call__(self, values: Tensor) -> Tensor:
        return self._lattice(values)


class _Lattice:
    """Permutohedral lattice: splat the voxels to its vertices, blur there, slice back.

    Attributes:
        blocks: For each slab of voxels the vertices that enclose a voxel, (d + 1, voxels) int64,
            and its barycentric weights there, (d + 1, voxels).
        neighbours: (d + 1, 2, vertices + 1) int64; the two neighbours of each vertex along each
            lattice axis. The last vertex stands for all that no voxel touches; it stays zero.
    """

    def __init__(self, features: _Features, dtype: torch.dtype) -> None:
        table = _VertexTable(*features.ends())
        size = _BLOCK_VOXELS.get(features.axes[0].device.type, 1 << 20)
        # half of the scale of the whole filter goes to each of its ends
        scale = 1.0 / math.sqrt(1.0 + 2.0 ** -(table.step - 1))
        places, weights = [], []
        for block in features.blocks(size):
            place, weight = table.enclosing(block)
            places.append(place)
            weights.append(weight.mul_(scale).to(dtype))
        number, self.neighbours = table.connect(places)
        vertices = (number.index_select(0, p.flatten()).view_as(p) for p in places)
        self.blocks = list(zip(vertices, weights, strict=True))

    def split(self, values: Tensor) -> tuple[Tensor, ...]:
        """Cut (voxels,) into the parts that belong to the blocks."""
        return values.split([weights.shape[1] for _, weights in self.blocks])

    def __call__(self, values: Tensor) -> Tensor:
        """Filter (voxels,); linear, and differentiable in ``values``."""
        rows, _, size = self.neighbours.shape
        # one row for each corner of the simplices: rows are independent, so they run in parallel
        sums = values.new_zeros((rows, size))
        for (vertex, weight), part in zip(self.blocks, self.split(values), strict=True):
            sums = sums.scatter_add_(1, vertex, weight * part)
        field = sums.sum(0)
        for one, other in self.neighbours:
            field = field + 0.5 * (field.index_select(0, one) + field.index_select(0, other))
        spread = field.expand(rows, -1)
        return torch.cat([(spread.gather(1, v) * w).sum(0) for v, w in self.blocks])


class _VertexTable:
    """Lattice coordinates of features, and their numbering by arithmetic.

    The lattice lives in d + 1 coordinates that sum to zero, of which d suffice. All coordinates of
    a vertex leave the same remainder modulo d + 1 (Adams et al., p. 4), so that a vertex is d cells
    plus one remainder, and these index a table over the box that the features fill.
    """

    def __init__(self, low: list[float], high: list[float]) -> None:
        self.dimension = len(low)
        self.step = self.dimension + 1
        # variance of splatting, blurring and slicing together: 2 / 3 (d + 1)^2 (p. 6)
        width = _float32(math.sqrt(2.0 / 3.0) * self.step)
        self.scale = [_float32(width / math.sqrt((n + 1) * (n + 2))) for n in range(len(low))]
        ends = [self._coordinate_range(n, low, high) for n in range(self.dimension)]
        # two cells of margin: one for enclosing vertices, one for their neighbours
        self.first = [math.floor(a / self.step) - 2 for a, _ in ends]
        extent = [
            math.ceil(b / self.step) + 3 - a for a, (_, b) in zip(self.first, ends, strict=True)
        ]
        self.stride = [math.prod(extent[n + 1 :]) * self.step for n in range(self.dimension)]
        self.size = math.prod(extent) * self.step
        if self.size > _MAX_TABLE:
            message = (
                "the CRF's kernels are too narrow for so large an image: "
                "widen them or cut the image into chunks"
            )
            raise InputError(message)

    def _coordinate_range(self, n: int, low: list[float], high: list[float]) -> tuple[float, float]:
        terms = [
            sorted(factor * self.scale[m] * end for end in (low[m], high[m]))
            for m in range(max(n - 1, 0), self.dimension)
            for factor in [-n if m == n - 1 else 1]
        ]
        return sum(t[0] for t in terms), sum(t[1] for t in terms)

    def enclosing(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the places in the table and the weights of the vertices around each feature.

        Args:
            features: (d, voxels) float32.

        Returns:
            Places, (d + 1, voxels) int32, and barycentric weights, (d + 1, voxels) float32.
        """
        step = self.step
        rest = self._elevate(features)
        cell = (rest * _float32(1.0 / step)).round_()
        rest.sub_(cell, alpha=step)
        rank = _ranks(rest)
        # rounding may have left the plane of zero sum: go back by whole simplices
        rank -= cell.sum(0).to(torch.int8)
        wrap = (rank >= step).view(torch.int8) - (rank < 0).view(torch.int8)
        rank.sub_(wrap, alpha=step)
        shift = wrap.float()
        cell += shift
        rest.sub_(shift, alpha=step)
        order = rank.long()
        return self._places(cell, order), _barycentric(rest.mul_(_float32(1.0 / step)), order)

    def _elevate(self, features: Tensor) -> Tensor:
        """Embed features into the plane of d + 1 coordinates that sum to zero (p. 5)."""
        elevated = features.new_empty((self.step, features.shape[1]))
        total = torch.zeros_like(features[0])
        for n in range(self.dimension, 0, -1):
            scaled = features[n - 1] * self.scale[n - 1]
            # not as one fused operation: a last bit can decide which simplex encloses a voxel
            torch.sub(total, scaled * n, out=elevated[n])
            total += scaled
        elevated[0] = total
        return elevated

    def _places(self, cell: Tensor, order: Tensor) -> Tensor:
        cell = cell.int()
        place = torch.empty_like(cell)
        place[0] = 0
        for n, stride in enumerate(self.stride):
            place[0].add_(cell[n] - self.first[n], alpha=stride)
        # the next vertex has the next remainder, and one coordinate wraps to the cell below
        change = torch.tensor([*self.stride, 0], dtype=torch.int32, device=cell.device) - 1
        change = torch.empty_like(cell).scatter_(0, order, change[:, None].expand_as(cell))
        for m in range(self.dimension):
            torch.sub(place[m], change[m], out=place[m + 1])
        return place

    def connect(self, places: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Number the vertices in use and link them to their neighbours.

        Args:
            places: Places of all voxels' vertices in the table.

        Returns:
            Number of each place in the table, (size,) int64; places not in use get the number of
            vertices. Neighbours as :class:`_Lattice` wants them.
        """
        used = torch.zeros(self.size, dtype=torch.bool, device=places[0].device)
        for place in places:
            used.index_fill_(0, place.flatten().long(), True)
        at = used.nonzero().squeeze(1)
        number = torch.full((self.size,), len(at), device=at.device)
        number[at] = torch.arange(len(at), device=at.device)
        remainder = at % self.step
        # along a lattice axis one coordinate goes d up and all others one down, or the reverse
        borrow = sum(self.stride) - self.step
        below = at - 1 - borrow * (remainder == 0)
        above = at + 1 + borrow * (remainder == self.dimension)
        neighbours = torch.full((self.step, 2, len(at) + 1), len(at), device=at.device)
        for n, stride in enumerate([*self.stride, 0]):
            neighbours[n, 0, :-1] = number[below + stride]
            neighbours[n, 1, :-1] = number[above - stride]
        return number, neighbours


def _ranks(rest: Tensor) -> Tensor:
    """Return each coordinate's place in ascending order, (d + 1, voxels) int8; ties reversed."""
    count, voxels = rest.shape
    last_first = torch.arange(count - 1, -1, -1, dtype=torch.int8, device=rest.device)
    rank = last_first[:, None].repeat(1, voxels)
    for a in range(count):
        for b in range(a + 1, count):
            behind = (rest[a] < rest[b]).view(torch.int8)
            rank[a] -= behind
            rank[b] += behind
    return rank


def _barycentric(rest: Tensor, order: Tensor) -> Tensor:
    """Return weights from the remainders, in units of d + 1, and their order (p. 10)."""
    ordered = torch.empty_like(rest).scatter_(0, order, rest)
    weight = torch.empty_like(rest)
    torch.sub(ordered[0] + 1.0, ordered[-1], out=weight[0])
    torch.sub(ordered[1:], ordered[:-1], out=weight[1:])
    return weight


def _float32(value: float) -> float:
    """Round to float32, in which the reference computes."""
    return torch.tensor(value, dtype=torch.float32).item()


def _pydensecrf(probability: Tensor, image: Tensor, config: CRFConfig) -> Tensor:
    """Run the reference implementation on one (classes, k, j, i) volume."""
    try:
        import pydensecrf.densecrf as reference
        from pydensecrf.utils import create_pairwise_bilateral, create_pairwise_gaussian
    except ImportError as error:
        message = "the reference CRF needs pydensecrf2: pip install dramlesion[crf-reference]"
        raise MissingDependencyError(message) from error
    classes, shape = len(probability), tuple(image.shape)
    config = config.for_image(shape)
    unary = -probability.detach().float().clamp_min(MIN_PROBABILITY).log().flatten(1)
    crf = reference.DenseCRF(image.numel(), classes)
    crf.setUnaryEnergy(unary.cpu().numpy())
    spatial = create_pairwise_gaussian((config.spatial_sigma,) * 3, shape)
    crf.addPairwiseEnergy(spatial, compat=config.spatial_weight)
    bilateral = create_pairwise_bilateral(
        (config.bilateral_sigma,) * 3,
        (config.bilateral_intensity_sigma,),
        image.cpu().numpy(),
    )
    crf.addPairwiseEnergy(bilateral, compat=config.bilateral_weight)
    marginals = torch.from_numpy(np.array(crf.inference(config.iterations)))
    return marginals.view_as(probability).to(probability)
