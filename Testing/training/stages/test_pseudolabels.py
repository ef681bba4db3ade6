"""From maps to labels: what is done with vessels, scores, and files that a person edited."""

import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.lesions.chunks import ChunkConfig
from DRAMLesionLib.lobes import Lobe
from Training.config import AugmentationConfig, Config, RegressionConfig, SegmentationTrainingConfig
from Training.dataset.cache import BACKGROUND, LESION, VESSEL, CachedCase
from Training.dataset.sampling import LobeChunks, ScanPatches
from Training.dataset.scores import read_scores
from Training.dataset.verify import label_on
from Training.learning.losses import bootstrapping_loss
from Training.stages.pseudolabels import (
    _matched,
    _most_likely,
    _vessels_in_lesions,
    clipped_shares,
    compute_label,
    ranked_shares,
)


def _tube(size=24):
    labels = np.full((size, size, size), BACKGROUND, dtype=np.uint8)
    labels[:, 11:13, 11:13] = VESSEL
    return labels, np.ones_like(labels)


def test_a_vessel_with_lesion_all_around_becomes_lesion_and_its_continuation_does_not():
    labels, lobes = _tube()
    labels[:12][labels[:12] == BACKGROUND] = LESION
    filled = _vessels_in_lesions(labels, lobes)
    assert filled[:9, 11:13, 11:13].all()
    assert not filled[15:].any()
    assert not filled[labels != VESSEL].any()


def test_a_vessel_beside_a_lesion_stays_a_vessel():
    labels, lobes = _tube()
    labels[:, :, :9][labels[:, :, :9] == BACKGROUND] = LESION
    assert not _vessels_in_lesions(labels, lobes).any()


def test_without_lesions_and_outside_of_the_lobes_nothing_is_filled():
    labels, lobes = _tube()
    assert not _vessels_in_lesions(labels, lobes).any()
    labels[labels == BACKGROUND] = LESION
    assert not _vessels_in_lesions(labels, np.zeros_like(lobes)).any()
    # the share is that of the lung alone: at the pleura, half of the cube lies outside
    lobes[:, :10] = 0
    labels[:, :10] = BACKGROUND
    assert _vessels_in_lesions(labels, lobes)[:, 11:13, 11:13].all()


def _case(tmp_path, scores, labels, lobes, boxes=None):
    """Write a prepared case by hand: 24 voxels of 1.5 mm, two lobes, the image a ramp."""
    folder = tmp_path / "cache" / "a"
    folder.mkdir(parents=True)
    case = CachedCase("a", folder, validation=False)
    shape = lobes.shape
    image = np.linspace(0.0, 1.0, lobes.size, dtype=np.float16).reshape(shape)
    for kind in ("regression", "segmentation"):
        case.save(f"{kind}/image", image)
        case.save(f"{kind}/lobes", lobes)
    case.save("segmentation/labels", labels)
    present = [lobe for lobe in Lobe if (lobes == lobe).any()]
    box = [[0, n] for n in shape]
    grid = {"size": list(shape[::-1]), "spacing": [1.5] * 3, "origin": [0.0] * 3}
    meta = {
        "scores": {lobe.name: scores.get(lobe) for lobe in Lobe},
        "boxes": {lobe.name: box for lobe in (present if boxes is None else boxes)},
        "grids": {"regression": grid, "segmentation": grid},
    }
    (folder / "meta.json").write_text(json.dumps(meta))
    return case


def _halves(size=24):
    lobes = np.full((size,) * 3, Lobe.LUL, dtype=np.uint8)
    lobes[size // 2 :] = Lobe.LLL
    return lobes


def _settings(**more):
    return SegmentationTrainingConfig(
        patch=12, augmentation=AugmentationConfig((), 0.0, 0.0), **more
    )


@pytest.mark.parametrize("region", ["patch", "lungs"])
def test_voxels_of_unscored_lobes_never_count(tmp_path, region):
    lobes = _halves()
    labels = np.where(lobes == Lobe.LLL, LESION, BACKGROUND).astype(np.uint8)
    scores = dict.fromkeys(Lobe, 2) | {Lobe.LLL: None}
    case = _case(tmp_path, scores, labels, lobes, boxes=list(Lobe))
    patches = ScanPatches([case], _settings(region=region, lesion_centres=1.0), 0, augment=False)
    counted = 0
    for n in range(12):
        sample = patches[n]
        # the labels of the unscored lobe are lesion, all others background
        assert not (sample["region"] & (sample["labels"] == LESION)).any()
        counted += int(sample["region"].sum())
    # centres are drawn in the scored lobe although all lesion lies in the other one
    assert counted > 12 * 12**3 / 4


def test_the_loss_does_not_hear_of_unscored_lobes(tmp_path):
    lobes = _halves()
    scores = dict.fromkeys(Lobe, 2) | {Lobe.LLL: None}
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 12, 12, 12, requires_grad=True)
    losses_seen = []
    for n, kind in enumerate((BACKGROUND, LESION)):
        labels = np.where(lobes == Lobe.LLL, kind, BACKGROUND).astype(np.uint8)
        case = _case(tmp_path / str(n), scores, labels, lobes)
        sample = ScanPatches([case], _settings(centres="patch"), 3, augment=False)[1]
        region = sample["region"]
        assert 0 < int(region.sum()) < region.numel()
        loss = bootstrapping_loss(logits, sample["labels"][None], region[None])
        losses_seen.append(loss)
    assert losses_seen[0].item() == losses_seen[1].item()
    (gradient,) = torch.autograd.grad(losses_seen[1], logits)
    assert (gradient[0, :, ~region] == 0).all()


def test_where_an_unscored_lobe_is_not_outlined_only_lobes_count(tmp_path):
    lobes = _halves()
    lobes[:, :4] = 0
    scores = {Lobe.LUL: 2, Lobe.LLL: 1}
    case = _case(tmp_path, scores, np.zeros_like(lobes), lobes)
    config = _settings(region="patch", centres="patch", lesion_centres=0.0)
    patches = ScanPatches([case], config, 0, augment=False)
    assert not patches._region(case, torch.zeros(2, 2, 2, dtype=torch.uint8)).any()
    whole = _case(tmp_path / "b", dict.fromkeys(Lobe, 1), np.zeros_like(lobes), lobes)
    assert patches._region(whole, torch.zeros(2, 2, 2, dtype=torch.uint8)).all()


def test_the_regression_leaves_unscored_lobes_out(tmp_path):
    lobes = _halves()
    config = RegressionConfig(chunk=ChunkConfig(1.5, 16))
    case = _case(tmp_path, {Lobe.LUL: 3}, np.zeros_like(lobes), lobes)
    chunks = LobeChunks([case], config, 0, augment=False)
    assert [(item[1], item[3]) for item in chunks.items] == [(Lobe.LUL, 3)]
    assert chunks.weights == {3: 1.0}
    none = _case(tmp_path / "b", {}, np.zeros_like(lobes), lobes)
    with pytest.raises(InputError, match="no lobe of the prepared cases has a score"):
        LobeChunks([none], config, 0, augment=False)


def test_clipped_shares_follow_the_map_where_there_is_no_score():
    scores = {Lobe.LUL: 2, Lobe.LLL: None, Lobe.RUL: 0, Lobe.RML: 3}
    found = clipped_shares(scores, {Lobe.LUL: 0.9, Lobe.LLL: 0.4, Lobe.RUL: 0.3, Lobe.RML: 0.1})
    assert found == {Lobe.LUL: 0.25, Lobe.LLL: 0.4, Lobe.RUL: 0.0, Lobe.RML: 0.25}


def test_lobes_of_a_score_are_spread_over_its_interval_in_the_order_of_their_fractions():
    scores = {
        "a": {Lobe.LUL: 2, Lobe.LLL: 0, Lobe.RUL: None},
        "b": {Lobe.LUL: 2, Lobe.LLL: 2, Lobe.RUL: 4},
        "by hand": {Lobe.LUL: 2},
    }
    fractions = {
        "a": {Lobe.LUL: 0.02, Lobe.LLL: 0.3, Lobe.RUL: 0.4},
        "b": {Lobe.LUL: 0.01, Lobe.LLL: 0.03, Lobe.RUL: 0.2},
    }
    shares = ranked_shares(scores, fractions)
    # three lobes in [.05, .25]: the middles of its thirds, though all fractions are below it
    thirds = [0.05 + 0.2 * part for part in (1 / 6, 1 / 2, 5 / 6)]
    order = [shares["b"][Lobe.LUL], shares["a"][Lobe.LUL], shares["b"][Lobe.LLL]]
    assert order == pytest.approx(thirds)
    assert shares["a"][Lobe.LLL] == 0.0
    assert shares["a"][Lobe.RUL] == 0.4
    assert shares["b"][Lobe.RUL] == pytest.approx(0.625)
    assert set(shares) == {"a", "b"}


def test_the_highest_values_are_taken_and_never_more_than_there_are():
    lobes = _halves()
    values = np.random.default_rng(0).random(lobes.shape, dtype=np.float32)
    lesion = _most_likely(values, lobes, {Lobe.LUL: 1000, Lobe.LLL: 10**6, Lobe.RUL: 5})
    assert lesion[lobes == Lobe.LUL].sum() == 1000
    assert values[lesion & (lobes == Lobe.LUL)].min() > values[~lesion & (lobes == Lobe.LUL)].max()
    assert lesion[lobes == Lobe.LLL].all()
    assert not _most_likely(values, lobes, {Lobe.LUL: -3}).any()


@pytest.mark.parametrize("fill", [False, True])
def test_a_share_is_one_of_the_whole_lobe_with_its_vessels(fill):
    labels, lobes = _tube(32)
    labels[:, 3:5, ::4] = VESSEL
    values = np.linspace(1.0, 0.0, lobes.size, dtype=np.float32).reshape(lobes.shape)
    found = _matched(values, labels, lobes, lobes * (labels != VESSEL), {Lobe.LUL: 0.4}, fill)
    assert (found == LESION).mean() == pytest.approx(0.4, abs=0.002)
    # vessels within the lesion are lesion only where they are filled
    assert (found[:8, 11:13, 11:13] == (LESION if fill else VESSEL)).all()
    assert (found[20:, 11:13, 11:13] == VESSEL).all()


def test_a_table_says_in_many_ways_that_a_lobe_has_no_score(tmp_path):
    rows = ["case,LUL,LLL,RUL,RML,RLL", "a,,n/a,Not assessable,-,3"]
    (tmp_path / "scores.csv").write_text("\n".join(rows))
    table, problems = read_scores(tmp_path / "scores.csv")
    assert table["a"] == {
        Lobe.LUL: None,
        Lobe.LLL: None,
        Lobe.RUL: None,
        Lobe.RML: None,
        Lobe.RLL: 3,
    }
    assert len(problems) == 4
    assert not any(problem.fatal for problem in problems)


def test_a_label_by_hand_is_brought_to_the_grid_and_its_mistakes_are_named():
    grid = sitk.Image(4, 4, 4, sitk.sitkUInt8)
    label = sitk.Image(2, 2, 2, sitk.sitkUInt8)
    label.SetSpacing((2.0, 2.0, 2.0))
    label.SetOrigin((0.5, 0.5, 0.5))
    label[1, 0, 0] = LESION
    found = label_on(label, grid, "it")
    expected = np.zeros((4, 4, 4))
    expected[:2, :2, 2:] = LESION
    np.testing.assert_array_equal(found, expected)
    label.SetOrigin((100.0, 0.0, 0.0))
    with pytest.raises(InputError, match="it lies outside of the CT"):
        label_on(label, grid, "it")
    label[0, 0, 0] = 7
    with pytest.raises(InputError, match="it has the values 7; a pseudo-label has 0"):
        label_on(label, grid, "it")


def test_patches_on_what_is_dense_in_lesion_free_lobes(tmp_path):
    lobes = _halves()
    labels = np.where(lobes == Lobe.LLL, LESION, BACKGROUND).astype(np.uint8)
    case = _case(tmp_path, {Lobe.LUL: 0, Lobe.LLL: 3}, labels, lobes)
    patches = ScanPatches([case], _settings(lesion_centres=0.0, dense_centres=1.0), 0, True)
    image = case.load("segmentation/image")
    rng = np.random.default_rng(0)
    for _ in range(20):
        centre = tuple(patches._centre(case, labels, lobes, rng))
        assert lobes[centre] == Lobe.LUL
        assert image[centre] > (-500 + 1200) / 1500
    # without a lesion-free lobe the centres are drawn as before
    diseased = _case(tmp_path / "b", dict.fromkeys(Lobe, 3), labels, lobes)
    assert lobes[tuple(patches._centre(diseased, labels, lobes, rng))] > 0


def test_of_a_scan_that_is_free_of_lesions_no_network_is_asked(tmp_path):
    lobes = _halves()
    case = _case(tmp_path, {Lobe.LUL: 0, Lobe.LLL: 0}, np.zeros_like(lobes), lobes)
    config = Config()
    config = replace(config, regression=replace(config.regression, vessels="none"))
    # there is no network in this folder
    labels, fractions = compute_label(case, tmp_path / "regression", config)
    assert not labels.any()
    assert fractions == {}
    scored = replace(config, pseudolabels=replace(config.pseudolabels, use_scores=False))
    with pytest.raises(InputError):
        compute_label(case, tmp_path / "regression", scored)
