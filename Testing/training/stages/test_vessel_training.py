"""The vessel network learns from lungs without lesions alone, and is asked about all scans."""

import json
from dataclasses import replace

import numpy as np
import pytest

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.lobes import Lobe
from Training.config import (
    AugmentationConfig,
    Config,
    LoopConfig,
    OptimiserConfig,
    RegressionConfig,
    VesselTrainingConfig,
)
from Training.dataset.cache import CachedCase, for_lesions
from Training.dataset.sampling import LobeChunks, VesselPatches, clear_lobes
from Training.learning.engine import last_logged, make_fabric, train
from Training.stages.regression import RegressionExperiment
from Training.stages.vessels import VesselExperiment, find_vessels

CONFIG = VesselTrainingConfig(
    patch=24,
    border=4,
    base_channels=2,
    workers=1,
    augmentation=AugmentationConfig(("k", "j", "i"), 0.0, 0.0),
    optimiser=OptimiserConfig(learning_rate=0.02, warmup=0),
    loop=LoopConfig(steps=40, batch=2, log_every=5, tensorboard=False, validate_every=0),
)


def _case(folder, name, scores, seed=0, validation=False):
    """Write a prepared scan: two lobes, bright straight tubes along i, noise."""
    rng = np.random.default_rng(seed)
    case = CachedCase(name, folder / name, validation)
    shape = (24, 30, 28)
    vessels = np.zeros(shape, dtype=np.uint8)
    for k, j in rng.integers(3, 21, size=(5, 2)):
        vessels[k : k + 2, j : j + 2] = 1
    lobes = np.full(shape, Lobe.LUL, dtype=np.uint8)
    lobes[12:] = Lobe.LLL
    image = 0.2 + 0.5 * vessels + 0.03 * rng.normal(size=shape)
    case.save("regression/image", image.clip(0, 1).astype(np.float16))
    case.save("regression/lobes", lobes)
    case.save("regression/vessels", vessels)
    box = [[0, n] for n in shape]
    grid = {"size": list(shape[::-1]), "spacing": [4.0] * 3, "origin": [0.0] * 3}
    meta = {
        "grids": {"regression": grid, "segmentation": grid},
        "scores": {lobe.name: scores.get(lobe) for lobe in Lobe},
        "boxes": {"LUL": [[0, 12], *box[1:]], "LLL": [[12, 24], *box[1:]]},
    }
    (case.folder / "meta.json").write_text(json.dumps(meta))
    return case


def test_only_lobes_with_score_0_are_learnt_from(tmp_path):
    ill = _case(tmp_path, "ill", {Lobe.LUL: 0, Lobe.LLL: 3})
    clear = _case(tmp_path, "clear", dict.fromkeys(Lobe, 0))
    unknown = _case(tmp_path, "unknown", {Lobe.LUL: 0})
    assert clear_lobes(ill, "lobes") == [Lobe.LUL]
    assert clear_lobes(ill, "scans") == clear_lobes(unknown, "scans") == []
    assert clear_lobes(clear, "scans") == [Lobe.LUL, Lobe.LLL]
    patches = VesselPatches([ill, unknown], CONFIG, 0, augment=False)
    for n in range(6):
        sample = patches[n]
        assert sample["image"].shape == (1, 24, 24, 24)
        assert sample["labels"].shape == sample["region"].shape == (16, 16, 16)
        assert 0 < int(sample["region"].sum())
    # a cube in the middle of the scan sees both lobes; the upper half does not count
    centred = VesselPatches([ill], CONFIG, 0, augment=False)
    shares = [float(centred[n]["region"].float().mean()) for n in range(10)]
    assert max(shares) < 0.8
    with pytest.raises(InputError, match="no prepared case has a lobe with score 0"):
        VesselPatches([_case(tmp_path, "all ill", dict.fromkeys(Lobe, 2))], CONFIG, 0, False)


def test_it_learns_tubes_and_is_asked_once(tmp_path):
    cases = [_case(tmp_path, str(n), dict.fromkeys(Lobe, 0), n) for n in range(3)]
    cases.append(_case(tmp_path, "ill", dict.fromkeys(Lobe, 4), 9))
    config = Config(vessels=CONFIG, accelerator="cpu")
    train(VesselExperiment(cases, config), tmp_path / "vessels", config, make_fabric(config))
    assert last_logged(tmp_path / "vessels", "train")["dice"] > 0.8

    said: list[str] = []
    find_vessels(cases, tmp_path, config, said.append)
    assert said[0].startswith("0 of 4")
    ill = cases[-1]
    found, true = ill.load("regression/vessels_network"), ill.load("regression/vessels")
    assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.8
    find_vessels(cases, tmp_path, config, said.append)
    assert said[-1].startswith("4 of 4")


def test_the_regression_takes_the_vessels_that_it_is_told_to(tmp_path):
    case = _case(tmp_path, "a", {Lobe.LUL: 1, Lobe.LLL: 1})
    by_network = RegressionConfig(vessels="network")
    with pytest.raises(InputError, match="is missing: run the stage 'vessels'"):
        LobeChunks([case], by_network, 0, augment=False)[0]
    case.save("regression/vessels_network", np.ones((24, 30, 28), dtype=np.uint8))
    assert (LobeChunks([case], by_network, 0, augment=False)[0]["vessels"] == 1).all()
    frangi = LobeChunks([case], RegressionConfig(), 0, augment=False)[0]["vessels"]
    assert 0 < frangi.mean() < 0.5


def test_cubes_must_fit_the_poolings():
    with pytest.raises(InputError, match="multiple of 8"):
        VesselTrainingConfig(patch=44)


def test_scans_for_vessels_alone_teach_nothing_else(tmp_path):
    healthy = _case(tmp_path, "healthy-1", dict.fromkeys(Lobe, 0))
    ill = _case(tmp_path, "ill", {Lobe.LUL: 0, Lobe.LLL: 3}, seed=1)
    settings = replace(CONFIG, alone=("healthy-*",))
    config = Config(regression=RegressionConfig(), vessels=settings)
    assert for_lesions([healthy, ill], settings.alone) == [ill]
    assert for_lesions([healthy, ill], ()) == [healthy, ill]
    regression = RegressionExperiment([healthy, ill], config)
    assert {item.case.name for item in regression.samples().items} == {"ill"}
    vessels = VesselExperiment([healthy, ill], config)
    assert {item[0].name for item in vessels.samples().items} == {"healthy-1", "ill"}
