"""Paper 003: each loss against values worked out by hand and against a plain implementation."""

import itertools
import math

import numpy as np
import pytest
import torch

from Training.config import PointsConfig
from Training.learning.point_losses import (
    Turn,
    consistency,
    each,
    find_blobs,
    lcfcn_loss,
    outlined_loss,
    point_loss,
    split_lines,
    total_loss,
)

TURNS = [Turn(flip, quarters) for flip, quarters in itertools.product((False, True), range(4))]


@pytest.mark.parametrize("shape", [(1, 5, 5), (1, 4, 5, 5)])
@pytest.mark.parametrize("turn", TURNS)
def test_a_turn_is_what_numpy_does_and_can_be_undone(turn, shape):
    x = torch.arange(math.prod(shape), dtype=torch.float32).reshape(shape)
    plain = x.numpy()
    if turn.flip:
        plain = plain[..., ::-1]
    plain = np.rot90(plain, turn.quarters, axes=(-2, -1))
    np.testing.assert_array_equal(turn.apply(x).numpy(), plain)
    assert torch.equal(turn.undo(turn.apply(x)), x)


def test_every_sample_has_its_own_turn():
    x = torch.rand(8, 1, 6, 6)
    turned = each(TURNS, x)
    for n, turn in enumerate(TURNS):
        assert torch.equal(turned[n], turn.apply(x[n]))
    assert torch.equal(each(TURNS, turned, undo=True), x)


def test_the_point_loss_is_the_mean_over_the_labelled_pixels_of_the_batch():
    logits = torch.tensor([[2.0, -1.0, 9.0], [0.5, 7.0, 7.0]]).reshape(2, 1, 1, 3)
    labels = torch.tensor([[1, 0, 255], [1, 255, 255]], dtype=torch.uint8).reshape(2, 1, 1, 3)
    p = [1 / (1 + math.exp(-z)) for z in (2.0, -1.0, 0.5)]
    expected = -(math.log(p[0]) + math.log(1 - p[1]) + math.log(p[2])) / 3
    assert point_loss(logits, labels).item() == pytest.approx(expected, rel=1e-6)
    assert point_loss(logits, torch.full_like(labels, 255)).item() == 0.0


def test_the_consistency_compares_logits_pixel_by_pixel_and_both_branches_learn():
    x = torch.tensor([[0.0, 1.0], [2.0, 3.0]]).reshape(1, 1, 2, 2).requires_grad_()
    flipped = torch.tensor([[1.0, 0.5], [3.0, 1.0]]).reshape(1, 1, 2, 2).requires_grad_()
    # flipped back: 0.5 1 / 1 3; differences 0.5, 0, 1, 0
    loss = consistency(x, flipped, [Turn(True)])
    assert loss.item() == pytest.approx(1.5 / 4)
    loss.backward()
    assert x.grad.flatten().tolist() == [-0.25, 0.0, 0.25, 0.0]
    assert flipped.grad.flatten().tolist() == [0.0, 0.25, 0.0, -0.25]


def test_a_network_that_knows_no_direction_is_consistent():
    image = torch.rand(8, 1, 8, 8)
    pointwise = 3.0 * image - 1.0
    assert consistency(pointwise, 3.0 * each(TURNS, image) - 1.0, TURNS).item() < 1e-6


def _batch():
    torch.manual_seed(0)
    labels = torch.full((2, 1, 6, 6), 255, dtype=torch.uint8)
    labels[0, 0, 1, 2], labels[0, 0, 4, 4], labels[1, 0, 0, 5] = 1, 0, 1
    return {
        "image": torch.rand(2, 1, 6, 6),
        "labels": labels,
        "flip": torch.tensor([True, True]),
        "quarters": torch.tensor([0, 3]),
    }


def test_the_total_is_equation_1_with_the_point_loss_on_both_branches():
    network, batch = torch.nn.Conv2d(1, 1, 3, padding=1), _batch()
    found = total_loss(network, batch, PointsConfig(consistency=0.7))
    turns = [Turn(True, 0), Turn(True, 3)]
    a, b = network(batch["image"]), network(each(turns, batch["image"]))
    points = point_loss(a, batch["labels"]) + point_loss(b, each(turns, batch["labels"]))
    agree = consistency(a, b, turns)
    torch.testing.assert_close(found["points"], points)
    torch.testing.assert_close(found["total"], points + 0.7 * agree)
    plain = total_loss(network, batch, PointsConfig(consistency=0.0))
    torch.testing.assert_close(plain["total"], point_loss(a, batch["labels"]))
    assert "consistency" not in plain


def _bce(p, wanted):
    return -math.log(p if wanted else 1 - p)


def test_lcfcn_without_points_pushes_down_the_largest_and_every_blob():
    p = torch.tensor([[0.1, 0.2, 0.1, 0.7], [0.1, 0.1, 0.1, 0.8]]).double()
    points = torch.zeros(1, 1, 2, 4, dtype=torch.bool)
    found = lcfcn_loss(torch.logit(p)[None, None], points).item()
    blob = (_bce(0.7, 0) + _bce(0.8, 0)) / 2
    assert found == pytest.approx(_bce(0.8, 0) + _bce(0.1, 0) + blob, rel=1e-6)


def test_lcfcn_with_one_point_has_no_lines():
    p = torch.tensor([[0.05, 0.6, 0.9, 0.1, 0.7]]).double()
    points = torch.tensor([[False, True, False, False, False]])[None, None]
    found = lcfcn_loss(torch.logit(p)[None, None], points).item()
    # image, one point, and the blob at the right without any
    expected = _bce(0.9, 1) + _bce(0.05, 0) + 1 * _bce(0.6, 1) + _bce(0.7, 0)
    assert found == pytest.approx(expected, rel=1e-6)


def test_lcfcn_splits_a_blob_with_two_points_where_it_is_weakest():
    p = torch.tensor([[0.9, 0.8, 0.6, 0.7, 0.95]]).double()
    points = torch.tensor([[True, False, False, False, True]])[None, None]
    found = lcfcn_loss(torch.logit(p)[None, None], points).item()
    line = _bce(0.6, 0)
    # n = 2 points, n - 1 = 1 over all the image, and k - 1 = 1 within the blob
    expected = _bce(0.95, 1) + _bce(0.6, 0) + (_bce(0.9, 1) + _bce(0.95, 1)) + line + line
    assert found == pytest.approx(expected, rel=1e-6)


def test_lcfcn_is_the_mean_over_images_and_has_gradients_in_volumes():
    logits = torch.randn(2, 1, 4, 6, 6, requires_grad=True)
    points = torch.zeros(2, 1, 4, 6, 6, dtype=torch.bool)
    points[0, 0, 1, 2, 3] = points[0, 0, 3, 5, 1] = True
    loss = lcfcn_loss(logits, points)
    parts = [lcfcn_loss(logits[n : n + 1], points[n : n + 1]) for n in range(2)]
    torch.testing.assert_close(loss, sum(parts) / 2)
    loss.backward()
    assert bool(torch.isfinite(logits.grad).all())
    # more of the point is less loss
    assert logits.grad[0, 0, 1, 2, 3] < 0


def test_lines_lie_between_the_seeds_and_are_none():
    p = np.full((7, 9), 0.5)
    seeds = np.zeros((7, 9), dtype=np.int32)
    seeds[3, 1], seeds[3, 7] = 1, 2
    lines = split_lines(p, seeds, np.ones_like(p, dtype=bool))
    assert lines.any()
    assert not lines[seeds > 0].any()
    assert find_blobs(~lines)[1] >= 2 or (lines.sum(axis=1) >= 1).all()
    one = np.where(seeds == 1, 1, 0)
    assert not split_lines(p, one, np.ones_like(p, dtype=bool)).any()


def test_blobs_touch_at_corners():
    mask = np.eye(4, dtype=bool)
    mask[0, 3] = True
    assert find_blobs(mask)[1] == 2
    assert find_blobs(np.zeros((3, 3, 3), dtype=bool))[1] == 0


def test_full_supervision_by_a_plain_implementation():
    torch.manual_seed(2)
    logits, masks = torch.randn(2, 1, 12, 12), torch.rand(2, 1, 12, 12) > 0.6
    found = outlined_loss(logits, masks).item()
    total = 0.0
    for z, m in zip(logits[:, 0].numpy(), masks[:, 0].numpy(), strict=True):
        padded = np.pad(m.astype(float), 15)
        weight = np.zeros(m.shape)
        for j, i in np.ndindex(*m.shape):
            around = padded[j : j + 31, i : i + 31].sum() / 31**2
            weight[j, i] = 1 + 5 * abs(around - m[j, i])
        p = 1 / (1 + np.exp(-z))
        entropy = -np.where(m, np.log(p), np.log(1 - p))
        both, either = (weight * p * m).sum(), (weight * (p + m)).sum()
        total += (weight * entropy).sum() / weight.sum() + 1 - (both + 1) / (either - both + 1)
    assert found == pytest.approx(total / 2, rel=1e-4)
