"""Losses of the methods for slices, against values worked out by hand."""

import math

import pytest
import torch

from Training.learning.slice_losses import (
    distance,
    focal_loss,
    fusion_loss,
    gradient_penalty,
    mean_of,
    tversky_index,
)


def _plane(*values):
    return torch.tensor(values, dtype=torch.float64).reshape(1, 1, 1, -1)


def test_tversky_index_by_hand():
    p, y = _plane(0.8, 0.4, 0.1, 0.9), _plane(1, 0, 1, 0) > 0
    known = _plane(1, 1, 1, 0) > 0
    # TP .8 + .1, FP .4, FN .2 + .9; the last pixel is unknown
    assert tversky_index(p, y, known, 0.7).item() == pytest.approx(0.9 / (0.9 + 0.12 + 0.77))
    assert tversky_index(p, y, known, 0.5).item() == pytest.approx(2 * 0.9 / (1.3 + 2.0))


def test_tversky_index_of_nothing_is_one():
    nothing, known = _plane(0, 0), _plane(1, 1) > 0
    assert tversky_index(nothing, nothing > 0, known, 0.7).item() == 1.0
    assert tversky_index(nothing + 0.5, nothing > 0, known, 0.7).item() < 1e-6


def test_focal_loss_by_hand():
    p = _plane(0.8, 0.4, 0.3)
    logits, y, known = torch.log(p / (1 - p)), _plane(1, 0, 1) > 0, _plane(1, 1, 0) > 0
    wanted = (0.25 * 0.2**2 * -math.log(0.8) + 0.75 * 0.4**2 * -math.log(0.6)) / 2
    assert focal_loss(logits, y, known, 2.0, 0.25).item() == pytest.approx(wanted)
    # without γ and with equal weights it is half the cross-entropy
    half = 0.5 * (-math.log(0.8) - math.log(0.6)) / 2
    assert focal_loss(logits, y, known, 0.0, 0.5).item() == pytest.approx(half)


def test_fusion_loss_is_the_sum_of_its_terms():
    p = _plane(0.8, 0.4)
    logits, y, known = torch.log(p / (1 - p)), _plane(1, 0) > 0, _plane(1, 1) > 0
    settings = {"missed": 0.7, "gamma": 2.0, "alpha": 0.25, "epsilon": 1e-6}
    index = 0.8 / (0.8 + 0.3 * 0.4 + 0.7 * 0.2)
    focal = focal_loss(logits, y, known, 2.0, 0.25).item()
    for weight in (0.0, 1.0, 3.0):
        found = fusion_loss(logits, y, known, focal_weight=weight, **settings).item()
        assert found == pytest.approx(-math.log(index + 1e-6) + weight * focal)


def test_unknown_pixels_send_no_gradient():
    logits = torch.zeros(1, 1, 1, 3, requires_grad=True)
    known = torch.tensor([True, True, False]).reshape(1, 1, 1, 3)
    y = torch.tensor([True, False, True]).reshape(1, 1, 1, 3)
    settings = {"missed": 0.7, "gamma": 2.0, "alpha": 0.25, "epsilon": 1e-6, "focal_weight": 1.0}
    fusion_loss(logits, y, known, **settings).backward()
    assert logits.grad[..., 2].item() == 0
    assert logits.grad[..., 0].item() < 0 < logits.grad[..., 1].item()


def test_distance_and_mean_of_some():
    a = torch.tensor([[0.0, 1.0, 5.0], [1.0, 1.0, 1.0]]).reshape(2, 1, 1, 3)
    b = torch.tensor([[1.0, 1.5, 0.0], [1.0, 0.0, 3.0]]).reshape(2, 1, 1, 3)
    lungs = torch.tensor([[1, 1, 0], [1, 1, 1]]).reshape(2, 1, 1, 3) > 0
    assert distance(a, b, lungs).tolist() == pytest.approx([0.75, 1.0])
    values = torch.tensor([2.0, 4.0, 9.0])
    assert mean_of(values, torch.tensor([True, True, False])).item() == 3.0
    assert mean_of(values, torch.zeros(3, dtype=torch.bool)).item() == 0.0


def test_penalty_of_a_linear_critic_by_hand():
    # D(x) = 3 x_1 + 4 x_2 has a gradient of norm 5 everywhere
    weights = torch.tensor([3.0, 4.0])
    real, fake = torch.rand(4, 1, 1, 2), torch.rand(4, 1, 1, 2)
    penalty = gradient_penalty(lambda x: (x[:, 0, 0] * weights).sum(1), real, fake, torch.rand(4))
    assert penalty.item() == pytest.approx(16.0, rel=1e-5)


def test_penalty_is_taken_between_real_and_made():
    # D(x) = x² / 2 has the gradient x
    real, fake = torch.full((1, 1, 1, 1), 4.0), torch.full((1, 1, 1, 1), 2.0)
    for place, at in ((0.0, 2.0), (0.5, 3.0), (1.0, 4.0)):
        found = gradient_penalty(
            lambda x: x[:, 0, 0, 0] ** 2 / 2, real, fake, torch.tensor([place])
        )
        assert found.item() == pytest.approx((at - 1) ** 2, rel=1e-5)


def test_penalty_and_its_gradient_are_finite_where_the_critic_sees_nothing():
    weight = torch.zeros((), requires_grad=True)
    x = -torch.ones(2, 1, 4, 4)  # outside of the lungs all is -1

    def critic(x):
        return (weight * torch.relu(x)).sum(dim=(1, 2, 3))

    penalty = gradient_penalty(critic, x, x, torch.rand(2))
    penalty.backward()
    assert penalty.item() == pytest.approx(1.0, abs=1e-4)
    assert torch.isfinite(weight.grad)


def test_penalty_stays_in_single_precision_under_mixed_precision():
    critic = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 1))
    x = torch.randn(2, 1, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = gradient_penalty(lambda y: critic(y)[:, 0], x, -x, torch.rand(2))
    plain = gradient_penalty(lambda y: critic(y)[:, 0], x, -x, torch.rand(2))
    assert mixed.dtype == torch.float32
    assert mixed.item() == pytest.approx(plain.item(), rel=1e-6)
