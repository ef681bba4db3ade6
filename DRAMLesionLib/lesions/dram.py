"""Dense regression activation maps and their refinement (paper, sections III-A 1 and 4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor

from DRAMLesionLib.devices import single_threaded_pool
from DRAMLesionLib.images import geometry, intensity
from DRAMLesionLib.lesions import chunks
from DRAMLesionLib.lesions.chunks import ChunkConfig, Scale
from DRAMLesionLib.lesions.crf import CRFConfig, DenseCRF
from DRAMLesionLib.lesions.levels import steepen
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.networks.regression import RegressionNetwork
from DRAMLesionLib.networks.unet import STRIDE
from DRAMLesionLib.typed import Between, Filled

Progress = Callable[[float], None]

_SIDE_BY_SIDE = 1500.0 * 72**3
"""Voxels of a chunk, times the root of the network's parameters, which grows as its width, up to
which several lobes fit into the memory at a time."""


@dataclass(frozen=True)
class DRAMConfig:
    """Settings of the dRAM stage.

    Attributes:
        chunk: Grid and size of the lobe chunks.
        scales: Chunk sizes, relative to ``chunk.size``, whose maps are averaged.
        crf: Parameters of the dense CRF.
        threshold: The refined map means lesion above this value.
        gain: How much the map is steepened about its level before the CRF, see
            :func:`at_its_level`; 0 leaves it as it is.
        least_level: A map whose dRAM has a lower level than this is not steepened.
        refined_by: How the refined map is made: the ``attention`` alone, as in the paper, or after
            it steepening, vessel suppression and the dense ``crf`` as well.
    """

    chunk: ChunkConfig = field(default_factory=ChunkConfig)
    scales: Annotated[tuple[Scale, ...], Filled()] = (0.8, 1.0, 1.2, 1.5)
    crf: CRFConfig = field(default_factory=CRFConfig)
    threshold: Annotated[float, Between(0, 1)] = 0.5
    gain: Annotated[float, Between(0)] = 12.0
    least_level: Annotated[float, Between(0, 1)] = 0.25
    refined_by: Literal["crf", "attention"] = "crf"


CARD_SETTINGS = ("chunk", "scales", "crf", "threshold")
"""What the card of a regression network has to say of its use; older ones say no more."""


@dataclass(frozen=True)
class FineScan:
    """A scan on the working grid of vessels and dRAM, around its lungs.

    Attributes:
        ct: HU.
        lobes: Lobe labels.
    """

    ct: sitk.Image
    lobes: sitk.Image

    @property
    def lungs(self) -> sitk.Image:
        """Mask of all lobes."""
        return sitk.Cast(self.lobes > 0, sitk.sitkUInt8)


@dataclass(frozen=True)
class DRAM:
    """The maps of a scan.

    Attributes:
        dram: Multi-scale dRAM pasted back to the scan, float32 in [0, 1], 0 outside the lobes.
        refined: The same after attention and what else ``DRAMConfig.refined_by`` says.
        fractions: Predicted lesion fraction of each lobe, the mean of its dRAM (equation 1).
    """

    dram: sitk.Image
    refined: sitk.Image
    fractions: dict[Lobe, float]


def fine_scan(ct: sitk.Image, lobes: sitk.Image, spacing: float) -> FineScan:
    """Bring a scan to the working grid around its lungs, a bit of chest wall included.

    Args:
        ct: HU, any orientation.
        lobes: Lobe labels on the same grid, at least one voxel.
        spacing: Edge of a voxel of the working grid in mm.
    """
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.ComputePerimeterOff()
    shape.Execute(sitk.Cast(lobes > 0, sitk.sitkUInt8))
    box = shape.GetBoundingBox(1)
    region = sitk.RegionOfInterest(lobes, box[3:], box[:3])
    grid = geometry.working_grid(region, spacing, margin=3 * spacing)
    return FineScan(
        geometry.resample(ct, grid, fill=geometry.AIR_HU, antialias=True),
        geometry.resample(lobes, grid, "nearest"),
    )


def compute_dram(
    network: RegressionNetwork,
    ct: sitk.Image,
    lobes: sitk.Image,
    vessels: sitk.Image | None,
    config: DRAMConfig,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> DRAM:
    """Map the lesions of each lobe of a scan.

    Args:
        network: The regression network in evaluation mode, on ``device``.
        ct: HU on a working grid of ``config.chunk.spacing``.
        lobes: Lobe labels on the same grid.
        vessels: Mask on the same grid, suppressed in the refined map; None to leave that out.
        config: Settings.
        device: Where the network is.
        progress: Called with the share done, 0 to 1.

    Returns:
        Maps on the grid of ``ct``.
    """
    device = device or torch.device("cpu")
    image = intensity.window(geometry.array(ct))
    labels = geometry.array(lobes)
    vessel_mask = geometry.array(vessels) > 0 if vessels is not None else None
    raw = np.zeros(image.shape, dtype=np.float32)
    refined = np.zeros_like(raw)
    fractions: dict[Lobe, float] = {}
    crf = DenseCRF(config.crf)

    def one(lobe: Lobe, box: chunks.Slices) -> None:
        chunk = chunks.cut_chunk(image, labels, lobe, box, config.chunk.size)
        inside = labels[box] == lobe
        dram, attended = multiscale_dram(network, image, labels, chunk, config.scales, device)
        mask = chunk.mask.to(device)
        if config.refined_by == "crf":
            suppressed = None
            if vessel_mask is not None:
                suppressed = vessel_share(vessel_mask, box, config.chunk.size).to(device)
            if config.gain > 0:
                attended = at_its_level(dram, attended, mask, config)
            attended = refine(attended, chunk.image.to(device), mask, suppressed, crf)
        # lobes do not overlap, though their boxes do
        chunks.paste_chunk(dram, box, inside, raw)
        chunks.paste_chunk(attended, box, inside, refined)
        if vessel_mask is not None and config.refined_by == "crf":
            refined[box][inside & vessel_mask[box]] = 0.0
        fractions[lobe] = float(dram[mask].mean())

    boxes = chunks.lobe_boxes(labels)
    edge = config.chunk.size * max(config.scales)
    width = sum(p.numel() for p in network.parameters()) ** 0.5
    side_by_side = device.type == "cpu" and edge**3 * width <= _SIDE_BY_SIDE
    for done, _ in enumerate(_lobe_by_lobe(one, boxes, side_by_side), 1):
        if progress is not None:
            progress(done / len(boxes))
    fractions = {lobe: fractions[lobe] for lobe in boxes}
    return DRAM(geometry.image_like(raw, ct), geometry.image_like(refined, ct), fractions)


def _lobe_by_lobe(
    work: Callable[[Lobe, chunks.Slices], None],
    boxes: dict[Lobe, chunks.Slices],
    side_by_side: bool,
) -> Iterator[None]:
    """Do the lobes one by one or, where they are small, side by side on one thread each."""
    if not side_by_side or torch.get_num_threads() == 1:
        for lobe, box in boxes.items():
            work(lobe, box)
            yield
        return
    with single_threaded_pool() as pool:
        futures = [pool.submit(work, lobe, box) for lobe, box in boxes.items()]
        try:
            for future in as_completed(futures):
                future.result()
                yield
        finally:
            for future in futures:
                future.cancel()


@torch.no_grad()
def multiscale_dram(
    network: RegressionNetwork,
    image: np.ndarray,
    labels: np.ndarray,
    chunk: chunks.LobeChunk,
    scales: tuple[float, ...],
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Average the dRAMs of one lobe over several chunk sizes.

    Args:
        network: The regression network.
        image: (k, j, i) windowed volume.
        labels: (k, j, i) lobe labels.
        chunk: The lobe at scale 1.
        scales: Relative chunk sizes; each is rounded to the network's multiple of 8.
        device: Where to compute.

    Returns:
        dRAM and attended dRAM, each (1, 1, size, size, size) in [0, 1], 0 outside the lobe.
    """
    size = chunk.image.shape[-1]
    sums = [torch.zeros(chunk.image.shape, device=device) for _ in range(2)]
    for scale in scales:
        scaled_size = max(1, round(size * scale / STRIDE)) * STRIDE
        scaled = chunk
        if scaled_size != size:
            scaled = chunks.cut_chunk(image, labels, chunk.lobe, chunk.box, scaled_size)
        mask = scaled.mask.to(device)
        for total, logit in zip(sums, network(scaled.image.to(device)), strict=True):
            total += chunks.resize(torch.sigmoid(logit.float()) * mask, (size,) * 3)
    mask = chunk.mask.to(device)
    dram, attended = (total / len(scales) * mask for total in sums)
    return dram, attended


@torch.no_grad()
def at_its_level(dram: Tensor, attended: Tensor, mask: Tensor, config: DRAMConfig) -> Tensor:
    """Steepen a lobe's map about the level above which as many voxels lie as its dRAM predicts.

    A map that learnt from fractions alone is right about the order of the voxels before it is
    right about their values: it stays below 0.5 where it is surely lesion, and a CRF would wipe it
    out. A map that has got there, of which the predicted fraction lies above 0.5, keeps that level.

    Args:
        dram: (1, 1, k, j, i) in [0, 1]; its mean over the lobe is the predicted fraction.
        attended: The same after the attention, which is steepened.
        mask: bool, the lobe.
        config: ``gain`` and ``least_level``.
    """
    values = dram[mask]
    if not values.numel():
        return attended
    share = float(values.mean())
    if torch.quantile(values, 1.0 - share) < config.least_level:
        return attended
    return steepen(attended, mask, share, config.gain)


@torch.no_grad()
def refine(
    probability: Tensor,
    image: Tensor,
    mask: Tensor,
    vessels: Tensor | None,
    crf: DenseCRF,
) -> Tensor:
    """Suppress vessels in a lobe's map and sharpen it with the dense CRF (section III-A 4).

    Args:
        probability: (batch, 1, k, j, i) attended dRAM in [0, 1].
        image: (batch, 1, k, j, i) chunk in [0, 1].
        mask: (batch, 1, k, j, i) bool, the lobe.
        vessels: (batch, 1, k, j, i) share of vessel in each voxel, or None.
        crf: The dense CRF; it serves chunks of one size best if it is the same for all.

    Returns:
        Refined map like ``probability``, 0 outside the lobe.
    """
    foreground = probability * mask
    if vessels is not None:
        foreground = foreground * (1.0 - vessels)
    marginals = crf(torch.cat((1.0 - foreground, foreground), dim=1), image)
    return marginals[:, 1:2] * mask


def vessel_share(vessels: np.ndarray, box: chunks.Slices, size: int) -> Tensor:
    """Return which share of each chunk voxel is vessel, (1, 1, size, size, size) in [0, 1].

    Args:
        vessels: (k, j, i) bool of the whole volume.
        box: The chunk's box.
        size: Edge of the chunk.
    """
    cut = torch.from_numpy(np.ascontiguousarray(vessels[box])).float()[None, None]
    return chunks.resize(cut, (size,) * 3)
