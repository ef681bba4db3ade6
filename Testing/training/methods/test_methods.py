"""Baselines and ceiling: each part by hand, and the whole table on three phantoms."""

import json
import os
import sys
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from DRAMLesionLib.__main__ import main as segment
from DRAMLesionLib.errors import InputError, MissingDependencyError
from DRAMLesionLib.images.geometry import image_like
from DRAMLesionLib.images.intensity import window
from DRAMLesionLib.lobes import Lobe
from Training.__main__ import main
from Training.config import load_config
from Training.dataset.cache import CaseWithTruth, read_cache
from Training.evaluation import run as evaluation_run
from Training.evaluation.run import Plan, prepare_workplace
from Training.evaluation.sets import SIZES
from Training.evaluation.sources import find_sources
from Training.learning.engine import read_checkpoint
from Training.methods import METHODS, cam, get_method, nnunet, supervised
from Training.methods.base import find_lobes

SETTINGS = [
    "prepare.workers=1",
    "prepare.lobe_scheme=dram",
    "regression.chunk.size=16",
    "regression.chunk.spacing=4.0",
    "regression.base_channels=2",
    "regression.scales=[1.0,1.5]",
    "regression.loop.steps=2",
    "regression.loop.batch=2",
    "regression.loop.tensorboard=false",
    "pseudolabels.workers=1",
    "segmentation.spacing=4.0",
    "segmentation.padding=zero",
    "segmentation.patch=20",
    "segmentation.border=2",
    "segmentation.base_channels=2",
    "segmentation.loop.steps=1",
    "segmentation.loop.tensorboard=false",
]
SETS = [word for setting in SETTINGS for word in ("--set", setting)]


def _phantoms(folder, first, count=1, healthy="0"):
    words = ["phantoms", "--output", str(folder), "--count", str(count), "--spacing", "4"]
    words += ["--first-seed", str(first), "--healthy-share", healthy, "--workers", "1"]
    assert main(words) == 0
    return folder


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    seeds = {"train": 40, "validation": 44, "test": 42}
    return {part: _phantoms(folder / part, first) for part, first in seeds.items()}


def _words(sets, output, *more):
    words = ["evaluate", "--data", str(sets["test"]), "--train", str(sets["train"])]
    words += ["--validation", str(sets["validation"]), "--output", str(output)]
    return [*words, "--workers", "1", *SETS, *more]


@pytest.fixture(scope="module")
def run(sets, tmp_path_factory):
    output = tmp_path_factory.mktemp("run")
    assert main(_words(sets, output)) == 0
    return output


def test_one_command_makes_the_whole_table(run):
    content = json.loads((run / "report" / "evaluation.json").read_text())
    assert list(content["methods"]) == [
        "CAM raw",
        "CAM refined",
        "dRAM",
        "dRAM refined",
        "dRAM refined + context",
        "U-Net supervised",
    ]
    assert content["main"] == "dRAM refined + context"
    assert "3 optimiser steps for each method (ours: 2 + 1)" in content["about"]["budget"]
    assert content["about"]["training scans"] == 1
    assert {test["second"] for test in content["paired_tests_iou"]} == set(content["methods"]) - {
        "dRAM refined + context"
    }
    page = (run / "report" / "evaluation.html").read_text()
    assert all(name in page for name in content["methods"])


def test_all_methods_take_as_many_steps_and_the_same_cases(run):
    training = run / "training"
    steps = {path.parent.name: read_checkpoint(path.parent)["step"]
             for path in training.rglob("checkpoint.pt")}  # fmt: skip
    assert steps == {"cam": 3, "regression": 2, "segmentation": 1, "supervised": 3}
    cases = read_cache(training / "cache")
    assert {case.name: case.validation for case in cases} == {
        "phantom-000040": False,
        "phantom-000044": True,
    }


def test_run_again_nothing_is_trained_or_measured_again(run, sets, capsys):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("checkpoint.pt")}
    assert main(_words(sets, run, "--methods", "cam")) == 0
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("checkpoint.pt")}
    content = json.loads((run / "report" / "evaluation.json").read_text())
    assert list(content["methods"]) == ["CAM raw", "CAM refined"]
    assert "1 of 1 results are there already" in capsys.readouterr().out


def test_cases_in_training_and_test_are_refused(sets, tmp_path, capsys):
    words = ["evaluate", "--data", str(sets["test"]), "--train", str(sets["test"])]
    assert main([*words, "--output", str(tmp_path), *SETS]) == 1
    assert "1 cases are in training and in test" in capsys.readouterr().err
    assert main(_words(sets, tmp_path, "--methods", "cam,other")) == 1
    assert f"no method 'other'; known: {', '.join(METHODS)}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--size", "small", "--train", "a"], "brings its own data"),
        (["--data", "a", "--scans", "b"], "belong to --size"),
        (["--data", "a", "--methods", "cam"], "need --train"),
        (["--size", "large"], "no benchmark size 'large'; known: small"),
    ],
)
def test_options_that_would_be_ignored_are_refused(words, said, tmp_path, capsys):
    assert main(["evaluate", "--output", str(tmp_path), *words]) == 1
    assert said in capsys.readouterr().err


def test_a_method_from_raw_data_to_weights_that_segment(sets, tmp_path):
    words = ["slices.labels=truth_of_phantoms", "slices.size=32", "slices.least_lung=40"]
    words += ["prepare.validation_share=0.0", "segmentation.rounds=1"]
    words += ["decomposition.base_channels=2", "decomposition.critic_channels=2"]
    words += ["decomposition.loop={batch: 2, tensorboard: false}", "decomposition.levels=2"]
    settings = [w for word in words for w in ("--set", word)]
    data, output = sets["train"], tmp_path / "run"
    command = ["method", "decomposition", "--data", str(data), "--output", str(output)]
    assert main([*command, *SETS, *settings]) == 0
    scan = data / "scans" / "phantom-000040.nii.gz"
    masks = data / "lobes" / "phantom-000040.nii.gz"
    weights = output / "decomposition" / "weights"
    words = ["segment", str(scan), "-o", str(tmp_path / "out"), "--weights", str(weights)]
    assert segment([*words, "--lobes", str(masks), "--lobe-scheme", "dram", "--maps"]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["parameters"]["segmentation"]["method"] == "decomposition"
    assert (tmp_path / "out" / "dram.nii.gz").is_file()


def test_a_benchmark_brings_its_set_and_its_settings(tmp_path, monkeypatch):
    nothing = {"digest": "0" * 64, "cases": {}, "scans": {}, "same_lungs_in_all_parts": False}
    monkeypatch.setattr(evaluation_run, "make_benchmark", lambda *words: nothing)
    words = (tmp_path, [], {}, 1, None, ["regression.loop.steps=7"], print)
    for size in SIZES:
        plan = evaluation_run.benchmark_plan(size, *words)
        assert plan.config.regression.loop.steps == 7
        assert plan.config.prepare.validation_share == 0
        assert plan.train == (tmp_path / "set" / "train",)
        assert plan.about["real lungs"] == "none: phantoms alone"


def test_names_and_rows_of_the_methods():
    methods = [get_method(name) for name in METHODS]
    assert [method.name for method in methods] == list(METHODS)
    rows = [row for method in methods for row in method.rows]
    assert len(set(rows)) == len(rows)


def test_the_map_is_pooled_over_the_lobe_alone():
    logits = torch.tensor([2.0, 4.0, 6.0, 8.0]).reshape(1, 1, 1, 1, 4)
    mask = torch.zeros((1, 1, 8, 8, 32), dtype=torch.bool)
    mask[..., :8] = True
    mask[..., 8:12] = True
    assert cam.pooled(logits, mask).item() == pytest.approx((2.0 + 0.5 * 4.0) / 1.5)


def test_the_classifier_is_the_encoder_of_the_u_net():
    network = cam.CAMNetwork(2).eval()
    assert network(torch.zeros(1, 1, 16, 16, 24)).shape == (1, 1, 2, 2, 3)
    names = {name.split(".")[0] for name, _ in network.named_parameters()}
    assert names == {"encoder", "bottom", "linear"}


def test_the_map_is_rescaled_over_the_lungs():
    values = np.array([[[-9.0, 1.0, 3.0, 5.0]]], dtype=np.float32)
    inside = values > 0
    assert cam.rescaled(values, inside).ravel().tolist() == [0.0, 0.0, 0.5, 1.0]
    assert not cam.rescaled(np.ones_like(values), inside).any()


def test_the_lesion_proposal_is_dense_lung_without_vessels():
    hu = np.full((4, 10, 10), -850, dtype=np.int16)
    hu[:, :5] = -300
    hu[:, :, 8:] = 40
    grid = sitk.Image(10, 10, 4, sitk.sitkUInt8)
    lungs, vessels = np.ones(hu.shape, np.uint8), np.zeros(hu.shape, np.uint8)
    lungs[:, :, 8:] = 0
    vessels[:, 0] = 1
    found = cam.lesion_proposal(*(image_like(a, grid) for a in (hu, lungs, vessels)))
    assert sitk.GetArrayFromImage(found)[:, 1:5, :8].all()
    assert sitk.GetArrayFromImage(found).sum() == 4 * 4 * 8
    threshold = cam.otsu(window(hu[:, :, :8]))
    assert window(np.array(-850.0)) <= threshold < window(np.array(-300.0))


def test_vessels_do_not_raise_the_threshold_of_the_lesion_proposal():
    hu = np.full((4, 10, 10), -850, dtype=np.int16)
    hu[:, :2] = -650
    vessels = np.zeros(hu.shape, np.uint8)
    vessels[:, 6:], hu[:, 6:] = 1, 100
    grid = sitk.Image(10, 10, 4, sitk.sitkUInt8)
    found = cam.lesion_proposal(*(image_like(a, grid) for a in (hu, vessels * 0 + 1, vessels)))
    assert sitk.GetArrayFromImage(found)[:, :2].all()
    assert sitk.GetArrayFromImage(found).sum() == 4 * 2 * 10
    nothing = cam.lesion_proposal(*(image_like(a, grid) for a in (hu, vessels, vessels)))
    assert not sitk.GetArrayFromImage(nothing).any()


def test_two_classes_weigh_the_same(run):
    cases = read_cache(run / "training" / "cache")
    config = load_config(None, [*SETTINGS, "regression.balance=sampling"]).regression
    chunks = cam.DiseasedChunks(cases, config, 0, augment=False)
    scores = [item[3] for item in chunks.items]
    healthy = scores.count(0)
    assert 0 < healthy < len(scores)
    total = {kind: sum(chunks.weights[s] for s in scores if (s > 0) == kind) for kind in (0, 1)}
    assert total[0] == pytest.approx(total[1])
    drawn = cam.DiseasedChunks(cases, config, 0, augment=True)
    kinds = [scores[drawn._item(n)] > 0 for n in range(20)]
    assert sum(kinds) == 10


def test_the_ceiling_learns_the_truth_and_the_cache_never_sees_it(run, sets):
    training = run / "training"
    case = next(c for c in read_cache(training / "cache") if not c.validation)
    true = CaseWithTruth(
        case.name, case.folder, False, training / "supervised" / "labels", supervised.LABELS
    )
    labels = true.load("segmentation/labels")
    lesions = sitk.GetArrayFromImage(
        sitk.ReadImage(str(sets["train"] / "truth" / "lesions" / f"{case.name}.nii.gz"))
    )
    assert (labels == 2).sum() == pytest.approx((lesions > 0).sum(), rel=0.02)
    assert (labels == 1).any()
    assert true.load("segmentation/lobes").shape == labels.shape
    assert not (labels == case.load("segmentation/labels")).all()


def _workplace(sets, folder):
    config = load_config(None, SETTINGS)
    plan = Plan(
        sets["test"], folder, folder, (sets["train"],), (sets["validation"],), config=config
    )
    return prepare_workplace(plan, folder / "training", print)


FAKE = """#!{python}
import json, os, pathlib, sys
import numpy as np, SimpleITK as sitk
name, words = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
after = lambda word: words[words.index(word) + 1]
raw, pre, results = (pathlib.Path(os.environ["nnUNet_" + x]) for x in
                     ("raw", "preprocessed", "results"))
data = next(raw.iterdir()).name
print(name, *words)
if name.endswith("preprocess"):
    assert json.loads((raw / data / "dataset.json").read_text())["numTraining"] == 2
    (pre / data).mkdir()
elif name.endswith("train"):
    fold = results / data / (after("-tr") + "__nnUNetPlans__" + words[1]) / ("fold_" + words[2])
    fold.mkdir(parents=True, exist_ok=True)
    latest = fold / "checkpoint_latest.pth"
    if not latest.exists():
        latest.write_text("")
        sys.exit("out of memory")
    assert words[-1] == "--c"
    (fold / "checkpoint_final.pth").write_text("")
else:
    ct = sitk.ReadImage(after("-i") + "/scan_0000.nii.gz")
    share = (sitk.GetArrayFromImage(ct) > -600).astype(np.float32)
    out = pathlib.Path(after("-o"))
    out.mkdir()
    np.savez(out / "scan.npz", probabilities=np.stack([1 - share, share]))
    sitk.WriteImage(sitk.Cast(ct > -600, sitk.sitkUInt8), str(out / "scan.nii.gz"))
"""


@pytest.fixture
def fake_nnunet(tmp_path, monkeypatch):
    """Commands of nnU-Net's names that do what its own do, at no cost."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in (nnunet.PLAN, nnunet.TRAIN, nnunet.PREDICT):
        path = folder / name
        path.write_text(FAKE.replace("{python}", sys.executable))
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


def test_nnunet_is_converted_trained_resumed_and_read_back(sets, tmp_path, fake_nnunet):
    work = _workplace(sets, tmp_path)
    method = get_method("nnunet")
    with pytest.raises(InputError, match=r"nnUNetv2_train failed with status 1.*out of memory"):
        method.train(work)
    folder = method.train(work)
    assert method.train(work) == folder
    raw = folder / "raw" / nnunet.DATASET
    image = sitk.ReadImage(str(raw / "imagesTr" / "phantom-000040_0000.nii.gz"))
    label = sitk.GetArrayFromImage(sitk.ReadImage(str(raw / "labelsTr" / "phantom-000040.nii.gz")))
    lesions = sitk.ReadImage(str(sets["train"] / "truth" / "lesions" / "phantom-000040.nii.gz"))
    truth = sitk.GetArrayFromImage(sitk.DICOMOrient(lesions, "LPS")) > 0
    assert image.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    assert set(np.unique(label)) == {0, 1}
    assert ((label > 0) == truth).all()
    split = json.loads((folder / "preprocessed" / nnunet.DATASET / "splits_final.json").read_text())
    assert split == [{"train": ["phantom-000040"], "val": ["phantom-000044"]}]
    log = (folder / "nnunet.log").read_text()
    assert log.count("$ ") == 3
    scan = find_sources(sets["test"])[0].load()
    outcome = method.load(folder)(scan.ct, scan.lobes)
    found = sitk.GetArrayFromImage(outcome.predictions["nnU-Net"].lesions) > 0
    inside = sitk.GetArrayFromImage(scan.lobes) > 0
    assert (found == ((sitk.GetArrayFromImage(scan.ct) > -600) & inside)).all()


def test_without_nnunet_the_advice_is_to_install_it(sets, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependencyError, match=r"pip install nnunetv2.*leave the method"):
        get_method("nnunet").train(_workplace(sets, tmp_path))


@pytest.mark.parametrize(
    ("steps", "trainer"),
    [(3, "1epoch"), (1249, "1epoch"), (1250, "5epochs"), (249_999, "250epochs")],
)
def test_nnunet_gets_no_more_steps_than_the_others(steps, trainer):
    assert nnunet.trainer_for(steps) == f"nnUNetTrainer_{trainer}"
    assert nnunet.trainer_for(250_000) == "nnUNetTrainer"


def test_a_prediction_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(InputError, match="no usable prediction"):
        nnunet.read_prediction(tmp_path, "scan")
    sitk.WriteImage(sitk.Image(4, 4, 4, sitk.sitkUInt8), str(tmp_path / "scan.nii.gz"))
    np.savez(tmp_path / "scan.npz", probabilities=np.zeros((2, 4, 4, 5)))
    with pytest.raises(InputError, match="do not fit"):
        nnunet.read_prediction(tmp_path, "scan")


def test_without_a_truth_the_supervised_are_refused(sets, tmp_path, fake_nnunet):
    blind = replace(_workplace(sets, tmp_path), data=(tmp_path,))
    for name in ("supervised", "nnunet"):
        with pytest.raises(InputError, match="2 cases have no truth to learn from"):
            get_method(name).train(blind)


def test_lobes_too_small_are_left_out_by_every_method():
    lobes = np.zeros((40, 40, 40), dtype=np.uint8)
    lobes[:20], lobes[30:] = Lobe.RUL, Lobe.LUL
    lobes[0, 0, 0] = Lobe.RML
    ct = sitk.Image(40, 40, 40, sitk.sitkInt16)
    fitted, missing = find_lobes(ct, image_like(lobes, ct))
    assert missing == {Lobe.LLL, Lobe.RLL, Lobe.RML}
    assert set(np.unique(sitk.GetArrayFromImage(fitted))) == {0, Lobe.RUL, Lobe.LUL}
