import json

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from PIL import Image

from DRAMLesionLib.images.geometry import image_like
from DRAMLesionLib.lesions.segmentation import SegmentationConfig, segment
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.networks.unet import UNet3D
from Testing.library.realdata import DATA, needs_data
from Testing.library.small_weights import write_small_weights
from Training import metrics
from Training.__main__ import main
from Training.slices import measure as slices
from Training.slices import methods as slices_methods
from Training.slices.flat import flat_probabilities
from Training.slices.measure import Found
from Training.slices.methods import as_volume
from Training.slices.pictures import Slice, read_slices
from Training.slices.prepare import find_lungs, prepare_slice, to_hu

ROWS, COLUMNS = np.mgrid[:150, :200]


def _disc(row, column, height, width):
    return ((ROWS - row) / height) ** 2 + ((COLUMNS - column) / width) ** 2 < 1


LUNGS = _disc(75, 50, 60, 40) | _disc(75, 150, 60, 40)
CONSOLIDATION = LUNGS & (ROWS > 105) & (COLUMNS > 125) & (COLUMNS < 175)


def _grey(consolidation=False):
    """Draw a chest: soft tissue 200, lungs 60, trachea 20, a dense patch at the back."""
    grey = np.full(ROWS.shape, 200, dtype=np.uint8)
    grey[LUNGS] = 60
    grey[_disc(60, 100, 11, 9)] = 20
    if consolidation:
        grey[CONSOLIDATION] = 195
    noise = np.random.default_rng(0).integers(-4, 5, grey.shape)
    return (grey + noise).astype(np.uint8)


@pytest.fixture
def folders(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for name in ("a", "b"):
        Image.fromarray(_grey(True)).save(tmp_path / "images" / f"{name}.png")
        mask = CONSOLIDATION if name == "a" else np.zeros_like(LUNGS)
        Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "masks" / f"{name}.png")
    return tmp_path


def _run(folder, *more):
    words = ["--images", str(folder / "images"), "--masks", str(folder / "masks")]
    return main(["slices", *words, "--output", str(folder / "out"), *more])


def test_the_flat_network_is_the_deep_one_on_a_repeated_slice():
    torch.manual_seed(3)
    network = UNet3D(out_channels=3, base_channels=2, padding="valid", prior=0.4).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2.0)
    with torch.no_grad():
        network.head.weight.mul_(10)
    hu = np.random.default_rng(0).uniform(-1000, 100, (20, 27)).astype(np.float32)
    flat = flat_probabilities(network, hu, -1024.0)
    # as much air around it as the network sees
    around = np.pad(hu, 56, constant_values=-1024.0)
    grid = sitk.Image(139, 132, 124, sitk.sitkUInt8)
    volume = image_like(np.repeat(around[None], 124, axis=0), grid)
    inside = np.zeros((124, 132, 139), dtype=np.uint8)
    inside[56:64, 56:76, 56:83] = 1
    deep = segment(network, volume, image_like(inside, volume), SegmentationConfig(tile=32))
    assert flat.std(axis=(1, 2)).max() > 0.01
    np.testing.assert_allclose(flat, deep[:, 60, 56:76, 56:83], atol=2e-5)


def test_two_anchors_make_hu_of_any_greys():
    for grey in (_grey(), (_grey() * 0.8 + 30).astype(np.uint8)):
        hu = to_hu(grey)
        assert np.median(hu[~LUNGS & ~_disc(60, 100, 13, 11)]) == pytest.approx(40.0, abs=25.0)
        assert np.median(hu[LUNGS]) == pytest.approx(-710.0, abs=40.0)
        assert np.median(hu[_disc(60, 100, 8, 6)]) == pytest.approx(-950.0, abs=40.0)


def test_the_lungs_hold_a_consolidation_at_the_wall_but_not_the_airway():
    prepared = prepare_slice(_grey(True), 1.5)
    assert prepared.pixel_mm == pytest.approx(270.0 / 180.0, rel=0.02)
    hu = to_hu(_grey(True))
    lungs = find_lungs(hu, 1.5)
    assert metrics.sensitivity(lungs > 0, LUNGS) > 0.97
    assert metrics.ppv(lungs > 0, LUNGS) > 0.97
    assert metrics.sensitivity(lungs > 0, CONSOLIDATION) > 0.8
    assert not lungs[_disc(60, 100, 4, 4)].any()
    assert set(np.unique(lungs[:, 120:])) == {0, 1}
    assert set(np.unique(lungs[:, :80])) == {0, 2}


def test_figures_by_hand():
    truth = np.array([[True, True, False, False]])
    first = Found(truth & [[1, 0, 0, 0]] > 0, np.array([[0.9, 0.2, 0.4, 0.0]]), truth | True, 1.0)
    none = np.zeros_like(truth)
    second = Found(none, none.astype(float), none, None, "no lung was found")
    grey = np.zeros(truth.shape, dtype=np.uint8)
    content = slices.compare([Slice("a", grey, truth), Slice("b", grey, none)], [first, second])
    assert content["all_pixels"]["dice"] == pytest.approx(2 / 3, abs=1e-6)
    assert content["all_pixels"]["specificity"] == 1.0
    assert content["by_slice"]["a"]["sensitivity"] == 0.5
    assert content["by_slice"]["a"]["average_precision"] == pytest.approx((1 + 2 / 3) / 2, abs=1e-6)
    assert content["by_slice"]["b"]["dice"] == 1.0
    assert content["by_slice"]["b"]["ppv"] is None
    assert content["mean_of_slices"]["ppv"] == {"mean": 1.0, "slices": 1}


def test_the_command_writes_everything_and_replaces_its_own_results(folders, capsys):
    weights = write_small_weights(folders / "weights")
    for _ in range(2):
        assert _run(folders, "--weights", str(weights), "--threshold", "0.05") == 0
    out = folders / "out"
    content = json.loads((out / "slices.json").read_text())
    assert content["settings"]["lesion"] == "probability > 0.05"
    assert set(content["by_slice"]) == {"a", "b"}
    truth = CONSOLIDATION
    found = np.asarray(Image.open(out / "masks" / "a.png")) > 0
    assert content["by_slice"]["a"]["dice"] == pytest.approx(metrics.dice(found, truth), abs=1e-6)
    assert np.asarray(Image.open(out / "maps" / "a.png")).shape == truth.shape
    assert np.asarray(Image.open(out / "outlines" / "a.png")).shape == (*truth.shape, 3)
    assert "all pixels: dice" in capsys.readouterr().out
    assert sorted(p.name for p in folders.iterdir()) == ["images", "masks", "out", "weights"]


def test_any_method_reads_a_slice_as_a_volume(folders, capsys, monkeypatch):
    monkeypatch.setattr(slices_methods, "SPACING_MM", 3.0)
    (folders / "images" / "b.png").unlink()
    weights = write_small_weights(folders / "weights")
    words = ["--method", "dram", "--weights", str(weights), "--lungs-mm", "120"]
    assert _run(folders, *words, "--row", "dRAM") == 0
    content = json.loads((folders / "out" / "slices.json").read_text())
    assert content["settings"]["method"].startswith("dRAM, in the middle")
    assert content["slices"] == 1
    assert content["notes"] == [f"left out: the mask b.png has no picture in {folders / 'images'}"]
    assert _run(folders, *words, "--row", "CAM") == 1
    assert "no row 'CAM'; known: dRAM, dRAM refined" in capsys.readouterr().err
    assert _run(folders, *words, "--threshold", "0.4") == 1


def test_a_slice_as_a_volume_is_the_slice_everywhere():
    prepared = prepare_slice(_grey(True), 2.0)
    ct, lobes = as_volume(prepared, 100.0)
    assert ct.GetSize() == (*prepared.hu.shape[::-1], 50)
    labels = sitk.GetArrayFromImage(lobes)
    assert (labels == labels[:1]).all()
    # the patient's left is on the right of the picture
    assert set(np.unique(labels[0][:, -20:])) <= {0, Lobe.LUL}
    assert (labels == Lobe.RUL).any()
    assert np.abs(sitk.GetArrayFromImage(ct)[7] - prepared.hu).max() <= 0.5


def test_every_bad_slice_is_named_and_nothing_is_written(folders, capsys):
    (folders / "masks" / "a.png").unlink()
    Image.fromarray(np.zeros((3, 4), dtype=np.uint8)).save(folders / "masks" / "b.png")
    (folders / "images" / "c.png").write_bytes(b"no picture")
    colours = np.random.default_rng(0).integers(0, 255, (9, 9, 3)).astype(np.uint8)
    Image.fromarray(colours).save(folders / "images" / "d.png")
    assert _run(folders) == 1
    said = capsys.readouterr().err
    for text in (
        "a.png has no mask",
        "b.png: picture",
        "c.png cannot be read",
        "d.png has colours",
    ):
        assert text in said
    assert not (folders / "out").exists()


def test_a_slice_without_lung_is_noted_and_other_files_are_left_alone(folders, capsys):
    Image.fromarray(np.full((60, 80), 180, dtype=np.uint8)).save(folders / "images" / "a.png")
    Image.fromarray(np.zeros((60, 80), dtype=np.uint8)).save(folders / "masks" / "a.png")
    weights = write_small_weights(folders / "weights")
    assert _run(folders, "--weights", str(weights)) == 0
    content = json.loads((folders / "out" / "slices.json").read_text())
    assert content["by_slice"]["a"]["note"]
    (folders / "out" / "slices.json").unlink()
    assert _run(folders, "--weights", str(weights)) == 1
    assert "holds other files" in capsys.readouterr().err
    assert (folders / "out" / "masks" / "b.png").exists()


@needs_data
def test_real_slices_have_most_of_their_lesions_inside_the_lungs():
    folder = DATA / "covid19-a"
    for name, least in (("013", 0.95), ("014", 0.85), ("057", 0.95)):
        every = read_slices(folder / "images", folder / "lesions")
        one = next(s for s in every if s.name == name)
        prepared = prepare_slice(one.grey, 1.5)
        lungs = np.asarray(
            Image.fromarray((prepared.lungs > 0).astype(np.uint8)).resize(one.grey.shape[::-1], 0)
        )
        assert metrics.sensitivity(lungs > 0, one.truth) > least
