import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional as F
from torch.utils.data import DataLoader

import Training as training_package
from DRAMLesionLib.lesions.levels import steepen
from Testing.training.small_cache import write_small_cache
from Training.config import OptimiserConfig, load_config
from Training.dataset.augmentation import draw_affine, warp, warp_inside
from Training.dataset.cache import read_cache
from Training.dataset.sampling import drawn_item
from Training.learning import losses
from Training.learning.engine import learning_rate
from Training.stages.regression import RegressionExperiment, _wanted


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


def test_the_scale_of_the_authors_is_a_sum_with_the_frequencies_themselves():
    # frequencies .6, .3 and .1: the last is held at .2
    weights = losses.inverse_frequency_weights([0] * 6 + [1] * 3 + [5], "sum")
    assert weights == pytest.approx({0: 1 / 0.6, 1: 1 / 0.3, 5: 1 / 0.2})
    assert losses.inverse_frequency_weights([0, 0], "sum") == {0: 1 / 0.8}
    y, low, high = torch.tensor([0.2, 0.3]), torch.zeros(2), torch.zeros(2)
    weight = torch.tensor([2.0, 3.0])
    found = losses.interval_regression_loss(y, low, high, weight, "sum")
    assert found.item() == pytest.approx(2 * 0.04 + 3 * 0.09)
    mean = losses.interval_regression_loss(y, low, high, weight)
    assert mean.item() == pytest.approx(found.item() / 2)


def test_the_target_comes_from_the_map_that_is_asked_for(experiment, monkeypatch):
    batch = _batch(experiment)
    batch["vessels"] = torch.zeros_like(batch["vessels"])
    raw, attended = torch.full_like(batch["image"], 4.0), torch.full_like(batch["image"], -4.0)
    monkeypatch.setattr(experiment, "config", replace(experiment.config, gain=0.0))
    for source, share in (("raw", 1.0), ("attended", 0.0)):
        config = replace(experiment.config, target=source)
        monkeypatch.setattr(experiment, "config", config)
        target = experiment._target(experiment._source(raw, attended), torch.zeros(6), batch)
        diseased = batch["mask"][:, 0] & (batch["score"] > 0)[:, None, None, None]
        assert target[diseased].float().mean() == share


@pytest.mark.parametrize(("highest", "share"), [(0.5, 0.8), (1.0, 0.25)])
def test_a_score_shrinks_a_target_only_where_the_level_may_be_above_one_half(highest, share):
    mask = torch.ones(1, 10, 10, 10, dtype=torch.bool)
    probability = torch.linspace(0.0, 1.0, 1000).reshape(1, 10, 10, 10)
    probability = torch.where(probability > 0.2, 0.6 + 0.4 * probability, 0.1)
    steep = steepen(probability, mask, 0.25, 12.0, highest)
    assert (steep > 0.5).float().mean().item() == pytest.approx(share, abs=0.01)


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
    with pytest.raises(InputError, match="there is no field 'stepps' here"):
        load_config(None, ["regression.loop.stepps=7"])
    path = tmp_path / "bad.yaml"
    path.write_text("segmentation: {patch: 40}")
    with pytest.raises(InputError, match=r"bad\.yaml.*4 \+ 8 n"):
        load_config(path)


def test_the_interval_loss_is_the_quadratic_formula_of_the_paper_in_batches():
    rng = np.random.default_rng(0)
    lower, upper = np.sort(rng.random((2, 50)), axis=0)
    fraction, weight = rng.random((2, 50))
    expected = 0.0
    for y, low, high, w in zip(fraction, lower, upper, weight, strict=True):
        expected += w * max(0.0, (y - 0.5 * (low + high)) ** 2 - (0.5 * (low - high)) ** 2)
    tensors = (torch.from_numpy(x) for x in (fraction, lower, upper, weight))
    found = losses.interval_regression_loss(*tensors)
    assert found.item() == pytest.approx(expected / 50, abs=1e-12)


def test_the_interval_loss_has_a_slope_outside_alone():
    y = torch.tensor([0.04, 0.10, 0.30], requires_grad=True)
    low, high = torch.full((3,), 0.05), torch.full((3,), 0.25)
    losses.interval_regression_loss(y, low, high).backward()
    # d/dy of (y - 0.15)^2, a third of the batch each
    torch.testing.assert_close(y.grad, torch.tensor([-0.22, 0.0, 0.30]) / 3)


def test_inverse_frequencies_by_hand():
    # 10 lobes, three scores: 10 / (3 * count)
    weights = losses.inverse_frequency_weights([0] * 6 + [2] * 3 + [5])
    assert weights == pytest.approx({0: 10 / 18, 2: 10 / 9, 5: 10 / 3})


def test_entropy_is_the_formula_inside_the_mask_of_each_sample():
    torch.manual_seed(1)
    logits = torch.randn(3, 1, 4, 5, 6, dtype=torch.float64)
    mask = torch.rand(3, 1, 4, 5, 6) > 0.4
    p = torch.sigmoid(logits)
    formula = -p * p.log() - (1 - p) * (1 - p).log()
    expected = torch.stack([formula[n][mask[n]].mean() for n in range(3)]).mean()
    torch.testing.assert_close(losses.entropy(logits, mask), expected)


def test_bootstrapping_by_hand_and_its_opinion_is_detached():
    # q = (0.2, 0.5, 0.3), the target is the last class: -(0.8 ln 0.3 + 0.2 ln 0.5)
    q = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    logits = q.log().reshape(1, 3, 1, 1, 1).requires_grad_()
    target = torch.full((1, 1, 1, 1), 2)
    loss = losses.bootstrapping_loss(logits, target)
    assert loss.item() == pytest.approx(-(0.8 * math.log(0.3) + 0.2 * math.log(0.5)))
    loss.backward()
    # of cross-entropy with soft targets: q - (0.8 t + 0.2 z), as if z were a constant
    expected = q - torch.tensor([0.0, 0.2, 0.8], dtype=torch.float64)
    torch.testing.assert_close(logits.grad.flatten(), expected)


def test_bootstrapping_counts_voxels_of_the_mask_of_each_sample():
    torch.manual_seed(2)
    logits, target = torch.randn(2, 3, 2, 3, 4), torch.randint(0, 3, (2, 2, 3, 4))
    mask = torch.rand(2, 2, 3, 4) > 0.5
    parts = []
    for n in range(2):
        chosen = logits[n][:, mask[n]].T
        given = F.cross_entropy(chosen, target[n][mask[n]])
        parts.append(0.8 * given + 0.2 * F.cross_entropy(chosen, chosen.argmax(1)))
    found = losses.bootstrapping_loss(logits, target, mask)
    torch.testing.assert_close(found, torch.stack(parts).mean())


@pytest.mark.parametrize("seed", range(4))
def test_rotations_and_scales_are_those_of_scipy(seed):
    matrix = draw_affine(np.random.default_rng(seed), 180.0, (0.8, 1.2))
    # smooth, so that two ways of linear interpolation cannot differ much, and wide of the border
    blobs = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(24, 24, 24)), 2.0)
    blobs = blobs.astype(np.float32)
    # ours takes (x, y, z) = (i, j, k); scipy takes (k, j, i), both from output to input
    flipped = matrix[::-1, ::-1].astype(np.float64)
    centre = np.full(3, 11.5)
    expected = ndimage.affine_transform(blobs, flipped, centre - flipped @ centre, order=1)
    found = warp(torch.from_numpy(blobs)[None, None], torch.from_numpy(matrix)[None])[0, 0]
    inner = (slice(6, 18),) * 3
    np.testing.assert_allclose(found.numpy()[inner], expected[inner], atol=2e-5)


def test_equivariance_is_zero_for_a_map_of_single_voxels_under_any_turn_and_scale():
    matrices = torch.from_numpy(draw_affine(np.random.default_rng(3), 180.0, (0.8, 1.2)))[None]
    x = torch.from_numpy(ndimage.gaussian_filter(np.random.default_rng(0).random((20,) * 3), 2))
    x = x.float()[None, None]
    mask = torch.zeros(1, 1, 20, 20, 20, dtype=torch.bool)
    mask[..., 4:16, 4:16, 4:16] = True

    def difference(network):
        image, inside = warp_inside(x, mask, matrices)
        reference, known = warp_inside(network(x), mask, matrices)
        return losses.equivariance(network(image), reference, inside & known).item()

    assert difference(lambda image: 2.0 * image + 0.1) < 1e-5
    # one that looks along an axis is found out
    assert difference(lambda image: 3.0 * (image - image.roll(2, dims=4))) > 1e-3


def test_equivariance_by_hand_compares_voxels_of_the_mask_alone():
    a = torch.tensor([0.1, 0.5, 0.9, 0.3]).reshape(1, 1, 1, 1, 4)
    b = torch.tensor([0.2, 0.2, 0.9, 1.0]).reshape(1, 1, 1, 1, 4)
    mask = torch.tensor([True, True, True, False]).reshape(1, 1, 1, 1, 4)
    assert losses.equivariance(a, b, mask).item() == pytest.approx((0.1 + 0.3 + 0.0) / 3)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    folder = write_small_cache(tmp_path_factory.mktemp("cache"))
    changes = ["regression.vessels=frangi", "regression.sizes=[]", "regression.refine_after=0"]
    changes += ["regression.balance=loss", "regression.freeze_norm=1.0"]
    tiny = Path(training_package.__file__).with_name("configs") / "tiny.yaml"
    return RegressionExperiment(read_cache(folder), load_config(tiny, changes))


def _batch(experiment, count=6):
    samples = experiment.samples()
    batch = next(iter(DataLoader(samples, batch_size=count, sampler=range(count))))
    numbers = [drawn_item(n, samples._groups, samples.seed, "loss") for n in range(count)]
    return batch | {"score": torch.tensor([samples.items[n].group for n in numbers])}


def test_the_total_is_the_weighted_average_of_all_terms_as_written(experiment):
    batch = _batch(experiment)
    torch.manual_seed(0)
    network = experiment.build_network()
    found = experiment.losses(network, batch, 0)
    dram, attended = network(batch["image"])
    probability = torch.sigmoid(dram)
    fractions = torch.stack([p[m].mean() for p, m in zip(probability, batch["mask"], strict=True)])
    lower, upper, weight = (batch[name][:, 0] for name in ("lower", "upper", "weight"))
    middle, half = (lower + upper) / 2, (upper - lower) / 2
    regression = (weight * ((fractions - middle) ** 2 - half**2).clamp_min(0)).mean()
    torch.testing.assert_close(found["regression"], regression.float())
    wanted = torch.minimum(torch.maximum(fractions, lower), upper)
    target = experiment._target(attended, wanted, batch)
    q = torch.sigmoid(attended)[:, 0]
    q = torch.stack((1 - q, q), dim=1)
    own = F.one_hot(q.argmax(1), 2).movedim(-1, 1)
    given = F.one_hot(target, 2).movedim(-1, 1)
    each = -((0.8 * given + 0.2 * own) * q.log()).sum(1)
    refinement = torch.stack(
        [e[m[0]].mean() for e, m in zip(each, batch["mask"], strict=True)]
    ).mean()
    torch.testing.assert_close(found["refinement"], refinement)
    total = 2 * found["regression"] + sum(
        found[name] for name in ("equivariance", "entropy", "refinement")
    )
    torch.testing.assert_close(found["total"], total / 5)


def test_lobes_weigh_as_the_inverse_frequency_of_their_score(experiment):
    # the scores of the six lobes are 0, 2, 4, 0, 2, 4 in some order: all equally often
    batch = _batch(experiment)
    assert sorted(batch["score"].tolist()) == [0, 0, 2, 2, 4, 4]
    torch.testing.assert_close(batch["weight"], torch.ones(6, 1))


def test_the_target_is_empty_without_score_without_vessels_and_detached(experiment):
    batch = _batch(experiment)
    attended = torch.full_like(batch["image"], 4.0).requires_grad_()
    batch["vessels"] = torch.zeros_like(batch["vessels"])
    batch["vessels"][:, :, 4:9] = 1.0
    target = experiment._target(attended, torch.zeros(6), batch)
    assert not target.requires_grad
    for found, mask, score in zip(target, batch["mask"][:, 0], batch["score"], strict=True):
        assert not found[~mask].any()
        assert bool(found.any()) == bool(score > 0)
        if score > 0:
            assert found[5:8].float().mean() < found[10:][mask[10:]].float().mean()


@pytest.mark.parametrize("gain", [0.0, 12.0])
def test_the_target_of_a_map_below_one_half_has_as_much_lesion_as_the_score_with_gain(
    experiment, gain, monkeypatch
):
    monkeypatch.setattr(experiment, "config", replace(experiment.config, gain=gain))
    batch = _batch(experiment)
    batch["vessels"] = torch.zeros_like(batch["vessels"])
    # a map that follows the image, yet is 0.3 at most; the score decides how much is lesion
    attended = torch.logit(0.3 * batch["image"].clamp(0.01, 0.99))
    wanted = _wanted(torch.zeros(6), torch.zeros(6, 1), batch)
    target = experiment._target(attended, wanted, batch)
    shares = [t[m].float().mean() for t, m in zip(target, batch["mask"][:, 0], strict=True)]
    for share, score, lower in zip(shares, batch["score"], batch["lower"], strict=True):
        expected = lower.item() if gain and score > 0 else 0.0
        assert share.item() == pytest.approx(expected, abs=0.12)
