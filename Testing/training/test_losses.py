import math

import pytest
import torch
from torch.nn import functional as F

from Training import losses
from Training.augmentation import draw_affine, warp, warp_inside
from Training.config import OptimiserConfig, load_config
from Training.engine import learning_rate


@pytest.mark.parametrize(
    ("fraction", "interval", "loss"),
    [
        (0.10, (0.05, 0.25), 0.0),
        (0.05, (0.05, 0.25), 0.0),
        (0.30, (0.05, 0.25), 0.15**2 - 0.1**2),
        (0.00, (0.50, 0.75), 0.625**2 - 0.125**2),
        (0.20, (0.0, 0.0), 0.04),
    ],
)
def test_interval_loss_by_hand(fraction, interval, loss):
    y, low, high = (torch.tensor([x]) for x in (fraction, *interval))
    assert losses.interval_regression_loss(y, low, high).item() == pytest.approx(loss, abs=1e-6)
    weighted = losses.interval_regression_loss(y, low, high, torch.tensor([3.0]))
    assert weighted.item() == pytest.approx(3 * loss, abs=1e-6)


def test_inverse_frequencies_have_mean_one_over_the_training_set():
    scores = [0] * 6 + [1] * 3 + [5]
    weights = losses.inverse_frequency_weights(scores)
    assert weights[0] * 6 == pytest.approx(weights[1] * 3)
    assert sum(weights[s] for s in scores) / len(scores) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="no score"):
        losses.inverse_frequency_weights([])


def test_entropy_is_that_of_a_coin_and_finite_far_out():
    mask = torch.ones(1, 1, 1, 1, 2, dtype=torch.bool)
    coin = losses.entropy(torch.zeros(1, 1, 1, 1, 2), mask)
    assert coin.item() == pytest.approx(math.log(2))
    sure = losses.entropy(torch.tensor([-200.0, 200.0]).reshape(1, 1, 1, 1, 2), mask)
    assert sure.item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("classes", [2, 3])
def test_bootstrapping_loss_is_cross_entropy_at_beta_one_and_by_hand_below(classes):
    torch.manual_seed(0)
    logits = torch.randn(2, classes, 2, 3, 4)
    target = torch.randint(0, classes, (2, 2, 3, 4))
    plain = losses.bootstrapping_loss(logits, target, beta=1.0)
    torch.testing.assert_close(plain, F.cross_entropy(logits, target))
    own = F.cross_entropy(logits, logits.argmax(1))
    mixed = losses.bootstrapping_loss(logits, target, beta=0.8)
    torch.testing.assert_close(mixed, 0.8 * plain + 0.2 * own)


def test_masked_mean_counts_the_mask_alone_and_survives_an_empty_one():
    values = torch.tensor([[1.0, 2.0, 9.0], [4.0, 5.0, 6.0]])
    mask = torch.tensor([[True, True, False], [False, False, False]])
    torch.testing.assert_close(losses.masked_mean(values, mask), torch.tensor([1.5, 0.0]))


def test_weighted_average_leaves_out_terms_without_weight():
    terms = {"a": torch.tensor(1.0), "b": torch.tensor(4.0), "c": torch.tensor(float("nan"))}
    total = losses.weighted_average(terms, {"a": 2.0, "b": 1.0, "c": 0.0})
    assert total.item() == pytest.approx(2.0)


def test_two_class_logits_are_the_sigmoid():
    logit = torch.tensor([[0.3]])
    softmax = torch.softmax(losses.two_class_logits(logit), dim=1)
    torch.testing.assert_close(softmax[0, 1], torch.sigmoid(logit[0, 0]))


def test_a_quarter_turn_is_exact_and_equivariance_of_it_is_zero():
    turn = torch.tensor([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])
    x = torch.rand(1, 1, 6, 6, 6)
    torch.testing.assert_close(warp(x, turn), torch.rot90(x, 1, dims=(3, 4)), atol=1e-5, rtol=0)
    mask = torch.zeros(1, 1, 6, 6, 6, dtype=torch.bool)
    mask[..., 1:5, 1:4, 2:5] = True
    squared, inside = warp_inside(x**2, mask, turn)
    reference, known = warp_inside(x, mask, turn)
    assert losses.equivariance(squared, reference**2, inside & known).item() < 1e-5
    assert int(inside.sum()) == int(mask.sum())


def test_drawn_affines_are_rotations_times_a_scale_in_range():
    import numpy as np

    for seed in range(5):
        matrix = draw_affine(np.random.default_rng(seed), 180.0, (0.8, 1.2))
        scale = 1.0 / np.linalg.norm(matrix[:, 0])
        assert 0.8 - 1e-5 <= scale <= 1.2 + 1e-5
        np.testing.assert_allclose(matrix @ matrix.T * scale**2, np.eye(3), atol=1e-5)


def test_the_rate_warms_up_and_ends_near_zero():
    settings = OptimiserConfig(learning_rate=1.0, warmup=10)
    assert learning_rate(settings, 0, 100) == pytest.approx(0.1)
    assert learning_rate(settings, 50, 100) == pytest.approx(0.5)
    assert learning_rate(settings, 99, 100) < 0.001


def test_settings_are_checked(tmp_path):
    from DRAMLesionLib.errors import InputError

    assert load_config(None, ["regression.loop.steps=7"]).regression.loop.steps == 7
    with pytest.raises(InputError, match="no setting 'stepps'"):
        load_config(None, ["regression.loop.stepps=7"])
    path = tmp_path / "bad.yaml"
    path.write_text("segmentation: {patch: 40}")
    with pytest.raises(InputError, match=r"bad\.yaml.*4 \+ 8 n"):
        load_config(path)
