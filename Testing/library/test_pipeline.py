import itertools
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from DRAMLesionLib.errors import Cancelled, InputError, ScanWarning, WeightsError
from DRAMLesionLib.images import geometry
from DRAMLesionLib.lesions import dram, segmentation
from DRAMLesionLib.lesions.density import COMMON_HU, find_level
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.networks.unet import UNet3D
from DRAMLesionLib.phantom import make_phantom
from DRAMLesionLib.pipeline import STAGES, LesionPipeline
from DRAMLesionLib.weights import save_network
from Testing.library.overlap import dice
from Testing.library.small_weights import dense_voxels, write_small_weights


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(seed=3, spacing=3.0)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    made = LesionPipeline("cpu", write_small_weights(tmp_path_factory.mktemp("weights")))
    made._segmentation = dense_voxels()
    # that network is as sure of thin vessels and of the chest wall as of a lesion
    keeps_all = {"least_ml": 0.0, "sure": 0.0, "rim_share": 1.0}
    made.segmentation_config = replace(made.segmentation_config, **keeps_all)
    return made


@pytest.fixture(scope="module")
def result(pipeline, phantom):
    return pipeline.run(phantom.ct, phantom.lobes, lobe_scheme="dram")


@pytest.fixture(scope="module")
def smooth(phantom):
    """The phantom without detail that another grid would change.

    Blurred lungs are denser: they are brought to the level of inspiration as a whole, since gravity
    has another direction for a body on a turned bed.
    """
    blurred = sitk.DiscreteGaussian(sitk.Cast(phantom.ct, sitk.sitkFloat32), [40.0] * 3)
    level = find_level(blurred, sitk.Cast(phantom.lobes > 0, sitk.sitkUInt8)).hu
    values = geometry.array(blurred)
    scaled = np.maximum(np.where(values < 0, values * COMMON_HU / level, values), geometry.AIR_HU)
    return geometry.image_like(scaled.astype(np.float32), blurred)


@pytest.fixture(scope="module")
def smooth_result(pipeline, phantom, smooth):
    return pipeline.run(smooth, phantom.lobes, lobe_scheme="dram")


def test_everything_lies_on_the_grid_of_the_ct(result, phantom):
    for name in ("lobes", "lesions", "vessels", "dram", "dram_refined", "lesion_probability"):
        assert geometry.same_grid(getattr(result, name), phantom.ct), name
    lesions, lobes = geometry.array(result.lesions), geometry.array(result.lobes)
    assert set(np.unique(lesions)) <= {0, 1, 2, 3}
    assert (lobes[lesions > 0] > 0).all()
    assert not (geometry.array(result.vessels)[lesions > 0]).any()
    np.testing.assert_array_equal(lobes, geometry.array(phantom.lobes))


def test_the_lesions_are_those_of_the_network_and_the_table_counts_them(result, phantom):
    dense = geometry.array(phantom.ct) > -600
    lobes = geometry.array(phantom.lobes)
    found = geometry.array(result.lesions) > 0
    assert dice(found, dense & (lobes > 0)) > 0.95
    row = result.report.row("LLL")
    inside = lobes == Lobe.LLL
    assert row.lesion_percent == pytest.approx(100 * found[inside].mean(), abs=1e-6)
    assert row.volume_ml == pytest.approx(inside.sum() * 0.027, rel=1e-6)
    assert result.report.lobes_source == "given"
    assert [*result.report.timings_s, "scores"] == list(STAGES)


def _stored_otherwise(image, order, flips, rotation):
    """Store the same body with another axis order, other directions, on a turned bed."""
    axes = sitk.PermuteAxes(image, order)
    flipped = sitk.Flip(axes, flips)
    turned = sitk.Image(flipped)
    matrix = rotation @ np.array(flipped.GetDirection()).reshape(3, 3)
    turned.SetDirection(matrix.ravel().tolist())
    turned.SetOrigin((rotation @ np.array(flipped.GetOrigin())).tolist())
    return turned


def _turn(degrees, axis):
    angle = np.deg2rad(degrees)
    c, s = np.cos(angle), np.sin(angle)
    a, b = [n for n in range(3) if n != axis]
    matrix = np.eye(3)
    matrix[a, a] = matrix[b, b] = c
    matrix[a, b], matrix[b, a] = -s, s
    return matrix


STORED = [
    (order, flips, np.eye(3))
    for n, (order, flips) in enumerate(
        itertools.product(
            itertools.permutations(range(3)), itertools.product((False, True), repeat=3)
        )
    )
    if n % 4 == 1
] + [
    ((0, 1, 2), (False, False, False), _turn(12, 0)),
    ((2, 0, 1), (True, False, True), _turn(-20, 2)),
    ((1, 2, 0), (False, True, False), _turn(10, 1) @ _turn(15, 2)),
]


@pytest.mark.parametrize(("order", "flips", "rotation"), STORED)
def test_every_orientation_gives_the_same_result_the_right_way_round(
    pipeline, phantom, smooth, smooth_result, order, flips, rotation
):
    flips = tuple(bool(f) for f in flips)
    ct = _stored_otherwise(smooth, order, flips, rotation)
    lobes = _stored_otherwise(phantom.lobes, order, flips, rotation)
    got = pipeline.run(ct, lobes, lobe_scheme="dram")
    assert geometry.same_grid(got.lesions, ct)
    expected = _stored_otherwise(smooth_result.lesions, order, flips, rotation)
    assert dice(geometry.array(got.lesions) > 0, geometry.array(expected) > 0) > 0.95
    for lobe in Lobe:
        assert got.report.row(lobe.name).lesion_percent == pytest.approx(
            smooth_result.report.row(lobe.name).lesion_percent, abs=1.0
        )


@pytest.mark.parametrize("place", [1, 7])
def test_estimated_lobes_are_on_the_right_side_in_other_orientations(pipeline, phantom, place):
    order, flips, rotation = STORED[place]
    ct = _stored_otherwise(phantom.ct, order, tuple(bool(f) for f in flips), rotation)
    truth = _stored_otherwise(phantom.lobes, order, tuple(bool(f) for f in flips), rotation)
    got = pipeline.run(ct)
    left = np.isin(geometry.array(got.lobes), [Lobe.LUL, Lobe.LLL])
    assert dice(left, np.isin(geometry.array(truth), [Lobe.LUL, Lobe.LLL])) > 0.85
    assert got.report.lobes_source == "estimated"
    assert all(row.lobe_confidence is not None for row in got.report.rows)


def test_a_missing_lobe_is_not_assessable_and_the_others_go_on(pipeline, phantom):
    lobes = geometry.array(phantom.lobes)
    lobes[lobes == Lobe.RML] = 0
    got = pipeline.run(phantom.ct, geometry.image_like(lobes, phantom.lobes), lobe_scheme="dram")
    assert got.report.row("RML").status.startswith("not assessable")
    assert got.report.row("RUL").status == "assessed"
    assert got.report.total_score is None


def test_progress_grows_through_all_stages_to_one(pipeline, phantom):
    seen = []
    pipeline.run(phantom.ct, phantom.lobes, lambda *step: seen.append(step), lobe_scheme="dram")
    assert list(dict.fromkeys(stage for stage, _ in seen)) == list(STAGES)
    fractions = [fraction for _, fraction in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1.0)


@pytest.mark.parametrize("stage", list(STAGES))
def test_a_run_can_be_cancelled_in_every_stage(pipeline, phantom, stage):
    now = []
    with pytest.raises(Cancelled, match=f"during the stage '{stage}'"):
        pipeline.run(
            phantom.ct,
            phantom.lobes,
            lambda name, _: now.append(name),
            lambda: bool(now) and now[-1] == stage,
            lobe_scheme="dram",
        )


def test_warnings_of_the_reader_end_up_in_the_report(pipeline, phantom):
    warning = ScanWarning("gantry-tilt", "The gantry was tilted.")
    got = pipeline.run(phantom.ct, phantom.lobes, lobe_scheme="dram", warnings=[warning])
    assert warning in got.report.warnings


def test_bad_input_is_refused_before_anything_runs(pipeline, phantom):
    with pytest.raises(InputError):
        pipeline.run(phantom.ct + 1024)
    far = sitk.Image(phantom.lobes)
    far.SetOrigin((5000.0, 5000.0, 5000.0))
    with pytest.raises(InputError):
        pipeline.run(phantom.ct, far, lobe_scheme="dram")


def test_a_folder_without_weights_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"regression\.json is missing"):
        LesionPipeline("cpu", tmp_path)


def test_a_vessel_network_beside_the_others_is_used(tmp_path, phantom):
    folder = write_small_weights(tmp_path)
    arguments = {"base_channels": 1, "padding": "valid", "prior": 0.9}

    def save(spacing):
        save_network(
            UNet3D(**arguments),
            folder,
            "vessels",
            architecture={"type": "UNet3D", "arguments": arguments},
            config={"spacing": spacing, "threshold": 0.7},
            date="2026-01-01",
            data=["nothing: untrained"],
            licence="Apache-2.0",
            metrics={},
        )

    save(3.0)
    result = LesionPipeline("cpu", folder).run(phantom.ct, phantom.lobes, lobe_scheme="dram")
    assert result.report.parameters["vessels"] == "network"
    assert any(entry["name"] == "vessels.safetensors" for entry in result.report.weights)
    # untrained, with a prior of 0.9: it takes everything for vessel
    lungs = geometry.array(result.lobes) > 0
    rest = geometry.array(result.lesions)[lungs] == 0
    assert geometry.array(result.vessels)[lungs][rest].mean() > 0.9

    save(1.2)
    with pytest.raises(WeightsError, match=r"vessel network works at 1\.2 mm"):
        LesionPipeline("cpu", folder)


def test_where_the_gpu_runs_out_of_memory_the_processor_goes_on(
    pipeline, phantom, result, monkeypatch
):
    devices = []
    for module, name in ((dram, "compute_dram"), (segmentation, "segment")):
        real = getattr(module, name)

        def limited(*arguments, real=real, name=name):
            device = next(a for a in arguments if isinstance(a, torch.device))
            devices.append((name, device.type))
            if device.type == "cuda":
                message = "CUDA out of memory. Tried to allocate 2.00 GiB"
                raise torch.OutOfMemoryError(message)
            return real(*arguments)

        monkeypatch.setattr(module, name, limited)
    monkeypatch.setattr(pipeline, "device", torch.device("cuda"))
    again = pipeline.run(phantom.ct, phantom.lobes, lobe_scheme="dram")
    assert devices == [(n, d) for n in ("compute_dram", "segment") for d in ("cuda", "cpu")]
    assert [w.code for w in again.report.warnings].count("gpu-memory") == 1
    np.testing.assert_array_equal(geometry.array(again.lesions), geometry.array(result.lesions))


def test_other_errors_on_the_gpu_are_not_hidden(pipeline, phantom, monkeypatch):
    def broken(*_):
        message = "device-side assert triggered"
        raise RuntimeError(message)

    monkeypatch.setattr(dram, "compute_dram", broken)
    monkeypatch.setattr(pipeline, "device", torch.device("cuda"))
    with pytest.raises(RuntimeError, match="device-side assert"):
        pipeline.run(phantom.ct, phantom.lobes, lobe_scheme="dram")
