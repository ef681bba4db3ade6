"""The final segmentation of a whole scan beside the paper's patches: 132 voxels in, 44 out.

No part of the volume is left out, although most of it is no lung: both do the same work. On a GPU,
MONAI's sliding window with the same network is timed, too, where MONAI is installed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor

from DRAMLesionLib import weights
from DRAMLesionLib.devices import pick_device
from DRAMLesionLib.images import geometry, intensity
from DRAMLesionLib.lesions.segmentation import CLASSES, SegmentationConfig, segment
from DRAMLesionLib.networks.unet import VALID_SHRINK, UNet3D
from DRAMLesionLib.phantom import make_phantom
from Testing.benchmarks.measuring import operations, peak_mb, product_rate, timings
from Testing.benchmarks.scans import of_size

SIZE = (240, 240, 220)
PATCH = 44
TARGET = 8.0
MONAI_TARGET = 3.0
DICE = 0.999


def run() -> list[dict[str, Any]]:
    """Return the rows of the benchmark table."""
    device = pick_device("auto")
    network, ct = _network(device), _volume()
    found: dict[str, np.ndarray] = {"ours": _ours(network, ct, device)}
    work = operations(lambda: _ours(network, ct, device))

    def peer() -> None:
        found["peer"] = _patch_by_patch(network, ct, device)

    row = {
        "name": "segmentation, 240x240x220",
        **timings(lambda: _ours(network, ct, device), peer, "132^3 patches", 1, TARGET, warm=False),
        "agreement": _dice(found["ours"], found["peer"]),
        "peak_mb": round(peak_mb(_single)),
    }
    row["limit_share"] = round(work / product_rate() / row["ours_s"], 3)
    row["met"] = row["met"] and row["agreement"] >= DICE
    rows = [row]
    if device.type == "cuda":
        rows += _beside_monai(network, ct, device)
    return rows


def _network(device: torch.device) -> UNet3D:
    network, _ = weights.load_network(weights.BUNDLED, "segmentation")
    assert isinstance(network, UNet3D)
    return network.eval().to(device)


def _volume() -> sitk.Image:
    """Return a phantom: a Dice wants lesions, of which few lie in the real lungs at hand."""
    ct = make_phantom(0, 1.5).ct
    return of_size(geometry.resample(ct, geometry.working_grid(ct, 1.5), antialias=True), SIZE)


def _ours(network: UNet3D, ct: sitk.Image, device: torch.device) -> np.ndarray:
    everywhere = geometry.image_like(np.ones(SIZE[::-1], dtype=np.uint8), ct)
    return segment(network, ct, everywhere, SegmentationConfig(), device)


def _single() -> Callable[[], np.ndarray]:
    device = torch.device("cpu")
    network, ct = _network(device), _volume()
    return lambda: _ours(network, ct, device)


@torch.no_grad()
def _patch_by_patch(network: UNet3D, ct: sitk.Image, device: torch.device) -> np.ndarray:
    """Return the probabilities as the paper computes them."""
    image, halo = intensity.window(geometry.array(ct)), VALID_SHRINK // 2
    counts = [-(-n // PATCH) for n in image.shape]
    around = [(halo, halo + c * PATCH - n) for n, c in zip(image.shape, counts, strict=True)]
    padded = torch.from_numpy(np.pad(image, around, mode="reflect"))
    result = np.zeros((CLASSES, *(c * PATCH for c in counts)), dtype=np.float32)
    for start in itertools.product(*(range(0, c * PATCH, PATCH) for c in counts)):
        seen = tuple(slice(s, s + PATCH + VALID_SHRINK) for s in start)
        logits = network(padded[seen][None, None].to(device)).logits[0]
        place = tuple(slice(s, s + PATCH) for s in start)
        result[(slice(None), *place)] = torch.softmax(logits, 0).cpu().numpy()
    return result[:, : image.shape[0], : image.shape[1], : image.shape[2]]


def _beside_monai(network: UNet3D, ct: sitk.Image, device: torch.device) -> list[dict[str, Any]]:
    from monai.inferers import sliding_window_inference

    image = torch.from_numpy(intensity.window(geometry.array(ct)))[None, None].to(device)
    edge = PATCH + VALID_SHRINK

    def predict(patch: Tensor) -> Tensor:
        # MONAI wants outputs as large as the patch; its own border is what valid padding loses
        return torch.nn.functional.pad(network(patch).logits, (VALID_SHRINK // 2,) * 6)

    def peer() -> Tensor:
        with torch.no_grad():
            return sliding_window_inference(
                image, (edge,) * 3, 4, predict, overlap=VALID_SHRINK / edge
            )

    name = "segmentation, 240x240x220, GPU"
    ours = timings(
        lambda: _ours(network, ct, device), peer, "MONAI sliding window", 3, MONAI_TARGET
    )
    return [{"name": name, **ours}]


def _dice(one: np.ndarray, other: np.ndarray) -> float:
    """Return the least Dice of vessel and lesion."""
    labels = one.argmax(axis=0), other.argmax(axis=0)
    scores = []
    for label in range(1, CLASSES):
        a, b = labels[0] == label, labels[1] == label
        if a.any() or b.any():
            scores.append(2.0 * (a & b).sum() / (a.sum() + b.sum()))
    return float(min(scores))
