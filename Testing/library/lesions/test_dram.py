from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch import nn

from DRAMLesionLib.images import geometry
from DRAMLesionLib.lesions.chunks import ChunkConfig
from DRAMLesionLib.lesions.crf import CRFConfig, DenseCRF
from DRAMLesionLib.lesions.dram import DRAMConfig, at_its_level, compute_dram, refine, vessel_share
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.networks.regression import RegressionOutput

CONFIG = DRAMConfig(ChunkConfig(size=24), scales=(0.8, 1.0, 1.5), crf=CRFConfig(iterations=2))


class Bright(nn.Module):
    """Takes the place of the regression network: lesion is what is bright."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def forward(self, image):
        self.sizes.append(image.shape[-1])
        logit = (image - 0.5) * 60.0
        return RegressionOutput(logit, logit)


@pytest.fixture
def scan():
    grid = sitk.Image(40, 36, 32, sitk.sitkUInt8)
    grid.SetSpacing((1.2,) * 3)
    lobes = np.zeros((32, 36, 40), dtype=np.uint8)
    lobes[4:28, 6:30, 4:18] = Lobe.RLL
    lobes[4:28, 6:30, 22:36] = Lobe.LLL
    hu = np.full(lobes.shape, -850.0, dtype=np.float32)
    hu[4:16, 6:30, 4:18] = -300.0
    hu[20:24, 10:14, 22:36] = 100.0
    return geometry.image_like(hu, grid), geometry.image_like(lobes, grid), hu, lobes


def test_the_map_marks_what_the_network_marks_and_nothing_outside_the_lobes(scan):
    ct, lobes, _, labels = scan
    network = Bright()
    result = compute_dram(network, ct, lobes, None, CONFIG)
    assert set(network.sizes) == {16, 24, 32}
    dram = geometry.array(result.dram)
    assert geometry.same_grid(result.dram, ct)
    assert (dram[labels == 0] == 0).all()
    inner = np.zeros_like(labels, dtype=bool)
    inner[6:14, 8:28, 6:16] = True
    assert dram[inner].min() > 0.9
    assert dram[22:27, 18:28, 6:16].max() < 0.1
    assert set(result.fractions) == {Lobe.RLL, Lobe.LLL}
    assert result.fractions[Lobe.RLL] == pytest.approx(0.5, abs=0.06)


def test_vessels_are_taken_out_of_the_refined_map_alone(scan):
    ct, lobes, hu, _ = scan
    vessels = geometry.image_like((hu > 0).astype(np.uint8), ct)
    result = compute_dram(Bright(), ct, lobes, vessels, CONFIG)
    on_vessel = hu > 0
    assert geometry.array(result.dram)[on_vessel].mean() > 0.5
    assert (geometry.array(result.refined)[on_vessel] == 0).all()
    assert geometry.array(result.refined)[6:14, 8:28, 6:16].min() > 0.9


def test_as_in_the_paper_the_refined_map_is_the_attentions_output(scan):
    ct, lobes, hu, _ = scan

    class Half(Bright):
        def forward(self, image):
            logit, _ = super().forward(image)
            return RegressionOutput(logit / 10.0, logit / 10.0 - 1.0)

    vessels = geometry.image_like((hu > 0).astype(np.uint8), ct)
    config = replace(CONFIG, refined_by="attention", scales=(1.0,))
    result = compute_dram(Half(), ct, lobes, vessels, config)
    raw, refined = (geometry.array(m) for m in (result.dram, result.refined))
    inside = raw > 0.1
    assert inside.mean() > 0.2
    # the sigmoid of a logit that is lower by 1; chunks are pasted back by interpolation
    expected = 1 / (1 + np.exp(1 - np.log(raw[inside] / (1 - raw[inside]))))
    assert np.abs(refined[inside] - expected).mean() < 0.02
    assert refined[hu > 0].mean() > 0.2


def test_refining_follows_the_edge_of_the_image():
    image = torch.full((1, 1, 12, 12, 12), 0.2)
    image[..., :6] = 0.8
    blurred = torch.full_like(image, 0.3)
    blurred[..., :5] = 0.9
    blurred[..., 5:7] = 0.55
    refined = refine(blurred, image, torch.ones_like(image, dtype=torch.bool), None, DenseCRF())
    assert (refined[..., :6] > 0.5).all()
    assert (refined[..., 6:] < 0.5).all()


def test_vessel_share_is_a_share():
    vessels = np.zeros((8, 8, 8), dtype=bool)
    vessels[:4] = True
    share = vessel_share(vessels, (slice(0, 8), slice(0, 8), slice(0, 8)), 4)
    assert share.shape == (1, 1, 4, 4, 4)
    assert share.mean().item() == pytest.approx(0.5)
    assert share[0, 0, 0].min() == 1.0


def test_progress_reaches_one_and_may_stop(scan):
    ct, lobes, *_ = scan
    seen = []
    compute_dram(Bright(), ct, lobes, None, CONFIG, progress=seen.append)
    assert seen == [0.5, 1.0]


def test_a_map_is_steepened_about_the_level_that_its_fraction_gives():
    # a lobe of 1000 voxels: dRAM 0.4 in a third and 0.02 elsewhere, attended a tenth of it
    dram = torch.full((1, 1, 10, 10, 10), 0.02)
    dram[..., :3, :, :] = 0.4
    dram[..., 3, :, :] = 0.3
    mask = torch.ones_like(dram, dtype=torch.bool)
    steep = at_its_level(dram, dram / 10, mask, DRAMConfig())
    # the mean is 0.162: the level lies within the voxels of the highest value
    assert (steep[..., :3, :, :] >= 0.5 - 1e-6).all()
    assert steep[..., 3, :, :].max() < 0.05
    assert steep[..., 4:, :, :].max() < 1e-6
    clear = torch.full_like(dram, 0.1)
    assert at_its_level(clear, clear, mask, DRAMConfig()) is clear
    # a map that has got to 0 and 1 is cut at 0.5 still
    sure = torch.where(dram > 0.2, 0.95, 0.01)
    steep = at_its_level(sure, sure, mask, DRAMConfig())
    assert ((steep > 0.5) == (sure > 0.5)).all()
