import numpy as np
import pytest
import torch
from torch.nn import functional as F

from DRAMLesionLib.lesions.chunks import cut_chunk, lobe_boxes, paste_chunk, resize
from DRAMLesionLib.lobes import Lobe


def test_growing_equals_trilinear_interpolation():
    x = torch.rand(2, 3, 7, 8, 9)
    expected = F.interpolate(x, size=(10, 17, 9), mode="trilinear", align_corners=False)
    torch.testing.assert_close(resize(x, (10, 17, 9)), expected)


def test_halving_averages_with_the_triangle_filter():
    x = torch.tensor([0.0, 0.0, 0.0, 8.0, 0.0, 0.0, 0.0, 0.0]).reshape(1, 1, 1, 1, 8)
    # centres at 0.5, 2.5, 4.5, 6.5; triangle of half-width 2: the peak at 3 is 0.5 and 1.5 away
    expected = torch.tensor([0.0, 8 * 0.75 / 2, 8 * 0.25 / 2, 0.0])
    torch.testing.assert_close(resize(x, (1, 1, 4)).flatten(), expected)


def test_resizing_there_and_back_does_not_shift():
    line = torch.zeros(1, 1, 1, 1, 40)
    line[..., 14] = 1.0
    back = resize(resize(line, (1, 1, 16)), (1, 1, 40)).flatten()
    centre = float((back * torch.arange(40)).sum() / back.sum())
    assert centre == pytest.approx(14.0, abs=0.3)


@pytest.fixture
def scan():
    labels = np.zeros((30, 28, 26), dtype=np.uint8)
    labels[4:24, 5:21, 3:13] = Lobe.RLL
    labels[4:24, 5:21, 14:25] = Lobe.LLL
    labels[5, 5, 12] = 0
    image = np.random.default_rng(0).random(labels.shape).astype(np.float32)
    return image, labels


def test_boxes_hold_each_lobe_and_nothing_for_missing_ones(scan):
    boxes = lobe_boxes(scan[1])
    assert set(boxes) == {Lobe.RLL, Lobe.LLL}
    assert boxes[Lobe.RLL] == (slice(4, 24), slice(5, 21), slice(3, 13))


def test_a_chunk_is_dark_outside_its_lobe_and_keeps_the_mean_inside(scan):
    image, labels = scan
    box = lobe_boxes(labels)[Lobe.LLL]
    chunk = cut_chunk(np.full_like(image, 0.4), labels, Lobe.LLL, box, 16)
    assert chunk.image.shape == (1, 1, 16, 16, 16)
    assert chunk.mask.all()
    torch.testing.assert_close(chunk.image, torch.full_like(chunk.image, 0.4))
    rough = cut_chunk(np.full_like(image, 0.4), labels, Lobe.RLL, lobe_boxes(labels)[Lobe.RLL], 40)
    assert (rough.image[~rough.mask] == 0).all()
    assert not rough.mask.all()
    torch.testing.assert_close(rough.image[rough.mask].min(), torch.tensor(0.4))


def test_pasting_a_smooth_map_puts_it_where_it_was(scan):
    _, labels = scan
    k, j, i = np.meshgrid(*[np.arange(n) for n in labels.shape], indexing="ij")
    smooth = ((k / 30 + j / 28 + i / 26) / 3).astype(np.float32)
    box = lobe_boxes(labels)[Lobe.RLL]
    chunk = cut_chunk(smooth, labels, Lobe.RLL, box, 24)
    target = np.zeros(labels.shape, dtype=np.float32)
    paste_chunk(chunk.image, box, labels[box] == Lobe.RLL, target)
    inside = labels == Lobe.RLL
    core = np.zeros_like(inside)
    core[6:22, 7:19, 5:11] = True
    assert np.abs(target - smooth)[core].max() < 0.01
    assert (target[~inside] == 0).all()
