"""Samples with labels of all kinds, their losses by hand, and what a network learns from them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import Training as training_package
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.networks.regression import RegressionOutput
from Testing.training.small_cache import SHAPE, write_small_cache
from Training.config import load_config
from Training.dataset.cache import LESION, VOXELS, VOXELS_OF_SCAN, CachedCase, read_cache
from Training.dataset.labelled import DISEASED, VOXELS_ALONE, LabelledChunks, find_items
from Training.dataset.regions import fit_shares
from Training.dataset.sampling import LobeChunks, ScanPatches, clear_lobes
from Training.learning import losses
from Training.learning.engine import make_fabric, train
from Training.stages.export import describe_labels
from Training.stages.pseudolabels import _clear_planes, _matched, _with_seen
from Training.stages.regression import RegressionExperiment, _chunks_of, _shares, _wanted

TINY = Path(training_package.__file__).with_name("configs") / "tiny.yaml"
FRANGI = ["regression.vessels=frangi", "regression.sizes=[]", "regression.freeze_norm=1.0"]


def _relabelled(case, scores=None, regions=(), voxels=None, counts=None):
    """Give a case of the small cache other labels."""
    path = case.folder / "meta.json"
    meta = json.loads(path.read_text())
    meta["scores"] = {lobe.name: (scores or {}).get(lobe) for lobe in Lobe}
    meta["regions"] = [
        {"region": name, "lower": low, "upper": high, "lobes": lobes, "planes": planes}
        for name, low, high, lobes, planes in regions
    ]
    if voxels is not None:
        lobes = np.asarray(case.load("regression/lobes"))
        there = np.unique(lobes[voxels != 255])
        meta["outlined"] = [Lobe(n).name for n in there if n]
        meta["counts"] = counts or {"masks": 1}
        case.save(VOXELS, voxels)
        case.save(VOXELS_OF_SCAN, voxels)
    path.write_text(json.dumps(meta))
    return CachedCase(case.name, case.folder, case.validation)


BOTH = ["LUL", "LLL"]
LEFT = ("left", 0.25, 0.35, BOTH, None)
SLICES = [("slice:3", 0.001, 1.0, ["LUL"], [3, 5]), ("slice:15", 0.0, 0.0, ["LLL"], [15, 16])]


@pytest.fixture
def cases(tmp_path):
    return read_cache(write_small_cache(tmp_path / "cache"))


def test_scores_alone_give_the_samples_that_they_always_gave(cases):
    for balance in ("loss", "sampling"):
        config = load_config(TINY, [*FRANGI, f"regression.balance={balance}"]).regression
        before = LobeChunks(cases, config, 5, augment=True)
        now = LabelledChunks(cases, config, 5, augment=True)
        assert len(before) == len(now) == 6
        for n in range(12):
            old, new = before[n], now[n]
            for name in ("image", "mask", "vessels"):
                torch.testing.assert_close(new[name], old[name], rtol=0, atol=0)
            torch.testing.assert_close(new["affine"][0], old["affine"], rtol=0, atol=0)
            for name in ("lower", "upper", "weight"):
                assert new[name].tolist() == [float(np.float32(old[name]))]
            assert new["whole"].tolist() == [[1.0]]
            assert bool(new["clear"][0]) == (old["score"] == 0)


def test_the_losses_of_scores_alone_are_those_of_the_paper_bit_for_bit(cases):
    config = load_config(TINY, [*FRANGI, "regression.balance=loss", "regression.refine_after=9"])
    experiment = RegressionExperiment(cases, config)
    torch.manual_seed(1)
    network = experiment.build_network()
    old = next(iter(DataLoader(LobeChunks(cases, config.regression, 0, True), 4)))
    new = next(iter(DataLoader(experiment.samples(), 4)))
    found = experiment.losses(network, new, 0)
    dram = network(old["image"]).dram
    fraction = losses.masked_mean(torch.sigmoid(dram), old["mask"])
    bounds = (old[name].float() for name in ("lower", "upper", "weight"))
    assert found["regression"].item() == losses.interval_regression_loss(fraction, *bounds).item()
    assert found["entropy"].item() == losses.entropy(dram, old["mask"]).item()
    assert "voxels" not in found


def test_labels_tie_lobes_together_and_others_stay_alone(cases):
    first = _relabelled(cases[0], {Lobe.LUL: 3}, [LEFT])
    second = _relabelled(cases[1], {Lobe.LUL: 3}, SLICES)
    seen = np.full(SHAPE, 255, dtype=np.uint8)
    seen[2, 3, 4] = 1
    third = _relabelled(cases[2], voxels=seen)
    items = [[(i.lobes, len(i.regions), i.group) for i in find_items(c)] for c in (first, second)]
    assert items[0] == [((Lobe.LUL, Lobe.LLL), 2, 3)]
    assert items[1] == [((Lobe.LUL,), 2, 3), ((Lobe.LLL,), 1, 0)]
    assert [(i.lobes, i.group) for i in find_items(third)] == [((Lobe.LUL,), VOXELS_ALONE)]
    assert first.known == second.known == {Lobe.LUL, Lobe.LLL}
    assert third.known == third.outlined == {Lobe.LUL}
    sure = _relabelled(cases[0], {}, [("lungs", 0.001, 1.0, BOTH, None)])
    assert [i.group for i in find_items(sure)] == [DISEASED]
    free = _relabelled(cases[0], {}, [("lungs", 0.0, 0.0, BOTH, None)])
    assert free.clear == {Lobe.LUL, Lobe.LLL}
    assert clear_lobes(free, "lobes") == [Lobe.LUL, Lobe.LLL]
    assert clear_lobes(second, "lobes") == []


def _settings(*changes):
    return load_config(TINY, [*FRANGI, "regression.balance=loss", *changes])


def test_a_region_of_two_lobes_has_the_share_of_both_by_voxels(cases):
    """LUL has 12 planes and LLL 12, of which 4 are made another lobe's: 2 to 1."""
    lobes = np.asarray(cases[0].load("regression/lobes")).copy()
    lobes[16:20] = Lobe.RUL
    lobes[20:] = 0
    cases[0].save("regression/lobes", lobes)
    case = _relabelled(cases[0], {}, [LEFT])
    sample = LabelledChunks([case], _settings().regression, 0, augment=False)[0]
    # 12 planes of LUL, 4 of LLL
    assert sample["whole"].tolist() == [[0.75, 0.25]]
    batch = _chunks_of({name: x[None] for name, x in sample.items()})
    assert batch["image"].shape[:2] == (2, 1)
    probability = torch.zeros_like(batch["image"])
    probability[0], probability[1] = 0.2, 0.6
    fractions, shares = _shares(probability, batch)
    assert fractions.tolist() == pytest.approx([0.2, 0.6])
    assert shares.tolist() == [pytest.approx([0.75 * 0.2 + 0.25 * 0.6])]
    # 0.3 lies within 25 to 35 %: nothing to change; with 0.5 of it wanted, both are scaled
    assert _wanted(fractions, shares, batch).tolist() == pytest.approx([0.2, 0.6])
    more = {**batch, "lower": torch.tensor([[0.5]]), "upper": torch.tensor([[0.6]])}
    expected = [0.2 * 0.5 / 0.3, 1.0]
    assert _wanted(fractions, shares, more).tolist() == pytest.approx(expected)
    loss = losses.region_loss(shares, more["lower"], more["upper"], torch.tensor([[2.0]]))
    assert loss.item() == pytest.approx(2.0 * ((0.3 - 0.55) ** 2 - 0.05**2))


@pytest.mark.parametrize("size", [16, 24])
def test_a_slice_has_the_share_of_its_own_planes(cases, size):
    case = _relabelled(cases[0], {Lobe.LUL: 2}, SLICES)
    config = replace(_settings().regression, chunk=replace(_settings().regression.chunk, size=size))
    data = LabelledChunks([case], config, 0, augment=False)
    sample = data[0]
    # the slices of a sample weigh together what the score does
    assert sample["weight"].tolist() == pytest.approx([data.weights[2] / 2] * 2)
    assert data[1]["weight"].tolist() == pytest.approx([data.weights[0], 0.0])
    assert sample["planes"].sum((1, 2)).tolist() == pytest.approx([0, 2 * 30 * 28], rel=1e-5)
    batch = _chunks_of({name: x[None] for name, x in sample.items()})
    # a map that rises along k of the lobe's twelve planes, 0 at its lower edge and 1 at the upper
    ramp = ((torch.arange(size) + 0.5) / size).reshape(1, 1, -1, 1, 1)
    _, shares = _shares(ramp.expand(1, 1, size, size, size), batch)
    # planes 3 and 4 have their middle at 4 of 12
    assert shares[0].tolist() == pytest.approx([0.5, 4 / 12], abs=0.01)
    resized = RegressionExperiment([case], _settings("regression.sizes=[32]"))._resized(batch, 0)
    ramp = ((torch.arange(32) + 0.5) / 32).reshape(1, 1, -1, 1, 1)
    _, shares = _shares(ramp.expand(1, 1, 32, 32, 32), resized)
    assert shares[0].tolist() == pytest.approx([0.5, 4 / 12], abs=0.02)


def test_planes_and_voxels_are_flipped_with_their_chunk(cases):
    seen = np.full(SHAPE, 255, dtype=np.uint8)
    seen[0:2], seen[10:12] = 1, 0
    case = _relabelled(cases[0], {}, [("slice:0", 0.001, 1.0, ["LUL"], [0, 2])], seen)
    changes = ["regression.augmentation={flips: [k], spacing_jitter: 0.0, contrast: 0.0}"]
    data = LabelledChunks([case], _settings(*changes).regression, 0, augment=True)
    sides = set()
    for n in range(12):
        sample = data[n]
        planes, lesion = sample["planes"][0, 0], sample["lesion"][0].sum((1, 2))
        up = bool(planes[: len(planes) // 2].sum() > planes[len(planes) // 2 :].sum())
        sides.add(up)
        assert torch.argmax(lesion) < 4 if up else torch.argmax(lesion) >= len(lesion) - 4
        background = sample["background"][0].sum((1, 2))
        assert bool(torch.argmax(background) < 4) != up
    assert sides == {True, False}


def test_as_many_voxels_lie_in_a_chunk_as_were_labelled(cases):
    seen = np.full(SHAPE, 255, dtype=np.uint8)
    seen[4, 9, 11], seen[8, 20, 5], seen[9, 20, 5], seen[20, 3, 3] = 1, 0, 0, 1
    case = _relabelled(cases[0], {Lobe.LUL: 2}, voxels=seen)
    upper, lower = (
        LabelledChunks([case], _settings().regression, 0, augment=False)[n] for n in (0, 1)
    )
    assert upper["lesion"].sum().item() == pytest.approx(1.0, abs=0.35)
    assert upper["background"].sum().item() == pytest.approx(2.0, abs=0.7)
    assert lower["lesion"].sum() > 0
    assert lower["background"].sum() == 0
    assert lower["weight"].tolist() == [0.0]


def test_cross_entropy_on_voxels_by_hand():
    logits = torch.tensor([[2.0, -1.0, 5.0], [1.0, 1.0, 1.0]]).reshape(2, 1, 1, 1, 3)
    lesion = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]).reshape(2, 1, 1, 1, 3)
    background = torch.tensor([[0.0, 3.0, 0.0], [0.0, 0.0, 0.0]]).reshape(2, 1, 1, 1, 3)
    p = torch.sigmoid(torch.tensor([2.0, -1.0]))
    expected = -(p[0].log() + 3 * (1 - p[1]).log()) / 4 / 2
    found = losses.voxel_cross_entropy(logits, lesion, background)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_lobes_without_any_label_never_count_in_the_final_network(cases):
    seen = np.full(SHAPE, 255, dtype=np.uint8)
    seen[2, 3, 4] = 1
    case = _relabelled(cases[0], voxels=seen)
    config = load_config(TINY, ["segmentation.region=lungs"]).segmentation
    region = ScanPatches([case], config, 0, augment=False)._region
    assert region(case, torch.tensor([0, int(Lobe.LUL), int(Lobe.LLL)])).tolist() == [
        False,
        True,
        False,
    ]


def test_labels_of_the_final_network_keep_to_the_labels_of_regions(cases):
    case = _relabelled(cases[0], {}, [LEFT, SLICES[1]])
    lobes = np.asarray(case.load("segmentation/lobes"))
    values = np.random.default_rng(0).random(lobes.shape)
    voxels = {lobe: int((lobes == lobe).sum()) for lobe in (Lobe.LUL, Lobe.LLL)}
    shares = fit_shares(dict.fromkeys(voxels, 0.1), voxels, case.regions)
    labels = _matched(values, np.zeros_like(lobes), lobes, lobes, shares, fill=False)
    assert (labels == LESION).mean() == pytest.approx(0.25, abs=0.001)
    assert np.flatnonzero(_clear_planes(case, len(lobes))).tolist() == [15]
    assert (labels[15] == LESION).any()
    seen = np.full(SHAPE, 255, dtype=np.uint8)
    seen[2, 3, 4:8], seen[3, 3, 4:8] = 1, 0
    case.save(VOXELS_OF_SCAN, seen)
    corrected = _with_seen(labels, case)
    assert (corrected[2, 3, 4:8] == LESION).all()
    assert not (corrected[3, 3, 4:8] == LESION).any()
    assert not (corrected[15] == LESION).any()


def test_cards_say_what_was_given(cases):
    words = "3 scans with lobe scores; no voxel of any lesion was given"
    assert describe_labels(cases) == words
    seen = np.full(SHAPE, 255, dtype=np.uint8)
    seen[2, 3, 4] = 1
    points = _relabelled(cases[1], voxels=seen, counts={"lesion points": 1})
    mixed = [_relabelled(cases[0], {}, [LEFT]), points, cases[2]]
    assert describe_labels(mixed) == (
        "3 scans: 1 with lobe scores, 1 with shares of regions, 1 with points"
    )


class Logistic(nn.Module):
    """A map that hangs on the density alone: two numbers to learn."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv3d(1, 1, 1)
        nn.init.zeros_(self.layer.weight)
        nn.init.constant_(self.layer.bias, -2.0)

    def forward(self, image):
        logits = self.layer(image)
        return RegressionOutput(logits, logits)


class OfTwoNumbers(RegressionExperiment):
    def build_network(self):
        return Logistic()


def _labels_of_one_kind(case, kind):
    """Label a case by its lesion in one way alone; no label names a lobe by itself."""
    lesion = np.asarray(case.load("segmentation/labels")) == 2

    def within(name, where, lobes, planes):
        share = float(lesion[where].mean())
        return (name, max(0.0, share - 0.02), share + 0.02, lobes, planes)

    if kind == "left":
        return _relabelled(case, {}, [within("left", slice(None), BOTH, None)])
    if kind == "slices":
        rows = [within(f"slice:{k}", k, [BOTH[k >= 12]], [k, k + 1]) for k in range(0, 24, 3)]
        return _relabelled(case, {}, rows)
    seen = np.full(SHAPE, 255, dtype=np.uint8)
    rng = np.random.default_rng(3)
    for value, there in ((1, lesion), (0, ~lesion)):
        seen.flat[rng.choice(np.flatnonzero(there), 8, replace=False)] = value
    return _relabelled(case, voxels=seen)


@pytest.mark.parametrize("kind", ["left", "slices", "points"])
def test_what_is_dense_is_learnt_from_each_kind_of_label_alone(cases, kind, tmp_path):
    labelled = [_labels_of_one_kind(case, kind) for case in cases]
    config = _settings(
        "regression.loop={steps: 150, batch: 3, log_every: 50, tensorboard: false}",
        "regression.optimiser={name: adam, learning_rate: 1.5, warmup: 0, clip: 0}",
        "regression.weights={regression: 2.0, equivariance: 0, entropy: 0, refinement: 0}",
        "regression.augmentation={flips: [i], spacing_jitter: 0.0, contrast: 0.0}",
    )
    experiment = OfTwoNumbers(labelled, config)
    network = train(experiment, tmp_path / "run", config, make_fabric(config))
    lit, dark = [], []
    for case in labelled:
        image = torch.from_numpy(case.load("regression/image").astype(np.float32))
        with torch.no_grad():
            p = torch.sigmoid(network(image[None, None]).dram)[0, 0].numpy()
        truth = np.asarray(case.load("segmentation/labels"))
        lit.append(p[truth == 2].mean())
        dark.append(p[truth == 0].mean())
    assert np.mean(lit) > 0.6
    assert np.mean(dark) < 0.2
    if kind == "left":
        batch = next(iter(DataLoader(LabelledChunks(labelled, config.regression, 0, False), 3)))
        batch = _chunks_of(batch)
        with torch.no_grad():
            _, shares = _shares(torch.sigmoid(network(batch["image"]).dram), batch)
        assert (shares - (batch["lower"] + batch["upper"]) / 2).abs().max() < 0.08
