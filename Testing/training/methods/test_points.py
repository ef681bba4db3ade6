"""The method ``points`` in volumes: cubes, training, resumption, weights that the library loads."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

import Training as training_package
from DRAMLesionLib import weights
from DRAMLesionLib.errors import Cancelled, InputError
from DRAMLesionLib.images import geometry
from DRAMLesionLib.networks.unet import UNet3D
from DRAMLesionLib.pipeline import LesionPipeline
from Testing.training.small_cache import SHAPE, write_small_cache
from Training.config import load_config
from Training.dataset.cache import VOXELS, VOXELS_OF_SCAN, read_cache
from Training.dataset.sampling import PointPatches
from Training.learning.engine import make_fabric, read_checkpoint, train
from Training.methods import get_method
from Training.methods.base import Workplace
from Training.methods.points import PointsExperiment, three_classes, variant

TINY = Path(training_package.__file__).with_name("configs") / "tiny.yaml"
SETTINGS = [
    "points={patch: 16, base_channels: 1, loop: {batch: 2, log_every: 1, tensorboard: false}}",
    "regression.loop.steps=2",
    "segmentation.loop.steps=1",
    "segmentation.spacing=4.0",
]


@pytest.fixture
def cases(tmp_path):
    cases = read_cache(write_small_cache(tmp_path / "cache"))
    for number, case in enumerate(cases[:2]):
        seen = np.full(SHAPE, 255, dtype=np.uint8)
        # in the middle, and in a corner, whose cube reaches beyond the scan
        seen[4, 9, 11], seen[0, 0, 27 * number] = 1, 0
        case.save(VOXELS_OF_SCAN, seen)
        case.save(VOXELS, seen)
    return cases


def test_cubes_lie_around_labelled_voxels_and_know_nothing_beyond_the_scan(cases):
    config = load_config(TINY, SETTINGS).points
    data = PointPatches(cases, config, 0)
    assert len(data) == 2
    quarters = set()
    for n in range(20):
        sample = data[n]
        assert sample["image"].shape == sample["labels"].shape == (1, 16, 16, 16)
        assert set(sample["labels"].unique().tolist()) <= {0, 1, 255}
        assert (sample["labels"] != 255).sum() in (1, 2)
        quarters.add(int(sample["quarters"]))
        again = data[n]
        assert all(torch.equal(sample[name], again[name]) for name in sample)
    assert quarters == {0, 1, 2, 3}
    assert {
        int(PointPatches(cases, replace(config, rotate=False), 0)[n]["quarters"]) for n in range(9)
    } == {0}
    with pytest.raises(InputError, match="no prepared case has a labelled voxel"):
        PointPatches(cases[2:], config, 0)


def test_rows_differ_from_the_settings_by_what_their_names_say():
    config = load_config(TINY, SETTINGS).points
    assert variant("points", config) == config
    assert variant("points_flip", config) == replace(config, rotate=False)
    assert variant("points_alone", config) == replace(config, consistency=0.0)
    assert variant("points_lcfcn", config) == replace(config, loss="lcfcn", rotate=False)


def test_one_logit_becomes_three_classes_of_the_same_probability():
    torch.manual_seed(0)
    one = UNet3D(base_channels=1).eval()
    three = UNet3D(base_channels=1, out_channels=3).eval()
    three.load_state_dict(three_classes(one.state_dict()))
    image = torch.rand(1, 1, 16, 16, 16)
    with torch.no_grad():
        logit, logits = one(image).logits, three(image).logits
    shares = torch.softmax(logits, dim=1)
    torch.testing.assert_close(shares[:, 2:], torch.sigmoid(logit), rtol=1e-4, atol=1e-6)
    assert shares[:, 1].max() < 1e-9


def test_trained_stopped_and_resumed_is_as_trained_at_once(cases, tmp_path):
    config = load_config(TINY, SETTINGS)

    class Interrupted(PointsExperiment):
        def losses(self, network, batch, step):
            found = super().losses(network, batch, step)
            if step == 1 and not (tmp_path / "killed").exists():
                (tmp_path / "killed").touch()
                raise Cancelled
            return found

    fabric = make_fabric(config)
    kept = replace(config.points.loop, checkpoint_every=1)
    config = replace(config, points=replace(config.points, loop=kept))
    train(PointsExperiment(cases, config, 3), tmp_path / "once", config, fabric)
    with pytest.raises(Cancelled):
        train(Interrupted(cases, config, 3), tmp_path / "twice", config, fabric)
    assert read_checkpoint(tmp_path / "twice")["step"] == 1
    train(Interrupted(cases, config, 3), tmp_path / "twice", config, fabric)
    once, twice = (read_checkpoint(tmp_path / name)["network"] for name in ("once", "twice"))
    assert all(torch.equal(once[name], twice[name]) for name in once)


@pytest.mark.parametrize("name", ["points", "points_alone", "points_lcfcn"])
def test_a_row_is_trained_and_exported_with_a_card_and_segments(cases, tmp_path, name):
    said = []
    work = Workplace([], cases, tmp_path / "out", load_config(TINY, SETTINGS), said.append)
    method = get_method(name)
    folder = method.train(work)
    network, card = weights.load_network(folder, "segmentation")
    assert card.metrics["steps"] == work.steps == 3
    assert card.config == {"spacing": 4.0}
    assert card.data[-1] == f"method: {method.rows[0]}"
    assert json.loads((tmp_path / "out" / name / "config.yaml").read_text())["patch"] == 16
    assert (folder / "segmentation.training.yaml").is_file()
    assert said[-1].endswith("segmentation.safetensors")
    assert network.head.out_channels == 3
    of_lobes, chunks = weights.load_network(folder, "regression")
    assert chunks.config["chunk"] == {"spacing": 4.0, "size": 32}
    image = torch.rand(1, 1, 16, 16, 16)
    with torch.no_grad():
        logit = of_lobes(image).dram
    plain = UNet3D(base_channels=1).eval()
    plain.load_state_dict(read_checkpoint(tmp_path / "out" / name)["network"])
    with torch.no_grad():
        torch.testing.assert_close(plain(image).logits, logit)
    pipeline = LesionPipeline("cpu", folder)
    assert pipeline.segmentation_config.spacing == pipeline.dram_config.chunk.spacing == 4.0
    ct = sitk.Image(28, 30, 24, sitk.sitkFloat32) - 850.0
    ct.SetSpacing((4.0, 4.0, 4.0))
    lungs = geometry.image_like(np.ones(SHAPE, dtype=np.uint8), ct)
    found, share = method.load(folder).segment(ct, lungs)
    assert found.GetSize() == share.GetSize() == ct.GetSize()
    values = geometry.array(share)
    assert 0.0 <= values.min() <= values.max() <= 1.0
    np.testing.assert_array_equal(geometry.array(found) > 0, values > 0.5)


def test_without_points_they_are_taken_from_the_truth_and_the_card_says_so(cases, tmp_path):
    for case in cases:
        for name in (VOXELS, VOXELS_OF_SCAN):
            (case.folder / f"{name}.npy").unlink(missing_ok=True)
    work = Workplace([tmp_path / "data"], cases, tmp_path / "out", load_config(TINY, SETTINGS))
    with pytest.raises(InputError, match="have no truth to learn from"):
        get_method("points").train(work)
    (tmp_path / "data" / "truth" / "lesions").mkdir(parents=True)
    for case in cases:
        lesion = (np.asarray(case.load("segmentation/labels")) == 2).astype(np.uint8)
        image = sitk.GetImageFromArray(lesion)
        image.SetSpacing((4.0, 4.0, 4.0))
        path = tmp_path / "data" / "truth" / "lesions" / f"{case.name}.nii.gz"
        sitk.WriteImage(image, str(path))
    folder = get_method("points").train(work)
    card = weights.read_card(folder, "segmentation")
    assert "points taken from the truth of 3 scans" in card.data
    labels = np.load(tmp_path / "out" / "points" / "labels" / "case-0.npy")
    assert (labels == 1).sum() == (labels == 0).sum() > 0
    assert not any(case.has(VOXELS_OF_SCAN) for case in cases)
