"""The training loop: several processes, kills, seeds, and what it writes down."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.lobes import Lobe
from Testing.training.small_cache import write_small_cache
from Training.config import load_config
from Training.dataset.cache import read_cache
from Training.learning.engine import _difference, _sound_state, make_fabric, read_checkpoint, train
from Training.stages.regression import RegressionExperiment
from Training.stages.segmentation import SegmentationExperiment

ROOT = Path(__file__).resolve().parents[3]
TINY = ROOT / "Training" / "configs" / "tiny.yaml"
SETTINGS = [
    "regression.vessels=frangi",
    "regression.optimiser.name=sgd",
    "regression.optimiser.learning_rate=0.05",
    "regression.loop.batch=4",
    "regression.loop.checkpoint_every=1",
    "regression.loop.pictures_every=3",
    "segmentation.start=scratch",
]


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return write_small_cache(tmp_path_factory.mktemp("run") / "cache").parent


def _train(folder, output, *more):
    config = load_config(TINY, [*SETTINGS, *more])
    experiment = RegressionExperiment(read_cache(output / "cache"), config)
    train(experiment, folder, config, make_fabric(config))
    return folder


@pytest.fixture(scope="module")
def alone(output, tmp_path_factory):
    return _train(tmp_path_factory.mktemp("alone") / "regression", output)


def _entries(folder):
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def _assert_same_tensors(a, b, tolerance=0.0):
    first, second = (read_checkpoint(folder)["network"] for folder in (a, b))
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], atol=tolerance, rtol=0, msg=name)


def _command(*words):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(  # noqa: S603
        [sys.executable, *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_two_processes_have_the_losses_of_one(output, alone, tmp_path):
    (tmp_path / "cache").symlink_to(output / "cache")
    sets = [word for setting in SETTINGS for word in ("--set", setting)]
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = ["-m", "Training", "regression", "--config", str(TINY), *sets]
    done = _command(*start, *words, "--data", str(output), "--output", str(tmp_path))
    assert done.returncode == 0, done.stderr
    one, two = _entries(alone), _entries(tmp_path / "regression")
    assert [entry["step"] for entry in one] == [entry["step"] for entry in two]
    for first, second in zip(one, two, strict=True):
        for name in first.keys() - {"seconds", "kind"}:
            assert first[name] == pytest.approx(second[name], abs=2e-5), name
    _assert_same_tensors(alone, tmp_path / "regression", 2e-4)


def test_the_same_seed_gives_the_same_and_another_does_not(output, alone, tmp_path):
    again = _train(tmp_path / "a", output)
    _assert_same_tensors(alone, again)
    other = _train(tmp_path / "b", output, "seed=1")
    with pytest.raises(AssertionError):
        _assert_same_tensors(alone, other, 1e-3)


KILLED = """
import os, signal, sys
from pathlib import Path
from Testing.training.learning.test_engine import _train
from Training.stages.regression import RegressionExperiment

honest = RegressionExperiment._equivariance

def killing(self, network, batch, probability):
    if len(Path(sys.argv[1], "log.jsonl").read_text().splitlines()) > 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return honest(self, network, batch, probability)

RegressionExperiment._equivariance = killing
_train(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_killed_in_the_middle_of_a_step_and_resumed_equals_uninterrupted(output, alone, tmp_path):
    folder = tmp_path / "regression"
    done = _command("-c", KILLED, str(folder), str(output))
    assert done.returncode == -9, done.stderr
    assert 0 < read_checkpoint(folder)["step"] < 6
    # killed again, while it wrote
    (folder / ".dramlesion-0-0-0.part.pt").write_bytes(b"half of a checkpoint")
    with (folder / "log.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')
    _train(folder, output)
    _assert_same_tensors(alone, folder)
    without_time = [
        [{k: v for k, v in entry.items() if k != "seconds"} for entry in _entries(f)]
        for f in (alone, folder)
    ]
    assert without_time[0] == without_time[1]


def _flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 2
    path.write_bytes(content)


def test_from_a_damaged_checkpoint_the_one_before_takes_over(output, alone, tmp_path, capsys):
    folder = shutil.copytree(alone, tmp_path / "regression")
    path, previous = folder / "checkpoint.pt", folder / "checkpoint.pt.previous"
    assert (read_checkpoint(folder)["step"], _sound_state(previous)["step"]) == (6, 5)
    _flip(path, path.stat().st_size // 2)
    with pytest.raises(
        InputError, match=r"checkpoint\.pt is damaged: .*'regression' again, it goes"
    ):
        read_checkpoint(folder)
    _train(folder, output)
    assert f"{path} damaged: the run goes on from step 5" in capsys.readouterr().err
    _assert_same_tensors(alone, folder)
    for damaged in (path, previous):
        _flip(damaged, 1000)
    with pytest.raises(InputError, match="it starts from the beginning"):
        read_checkpoint(folder)
    _train(folder, output)
    assert "damaged: the run starts from the beginning" in capsys.readouterr().err
    _assert_same_tensors(alone, folder)


def test_flipped_bits_of_a_checkpoint_are_always_found(alone, tmp_path):
    folder = shutil.copytree(alone, tmp_path / "regression")
    path = folder / "checkpoint.pt"
    whole = path.read_bytes()
    for place in np.random.default_rng(0).integers(0, len(whole) - 40, 100):
        _flip(path, place)
        with pytest.raises(InputError, match="is damaged"):
            read_checkpoint(folder)
        path.write_bytes(whole)
    # one of an earlier version has the checksums of its archive alone
    path.write_bytes(whole[:-40])
    _assert_same_tensors(alone, folder)
    names = {info.filename: info for info in zipfile.ZipFile(path).infolist()}
    _flip(path, names["archive/data/0"].header_offset + 200)
    with pytest.raises(InputError, match="is damaged"):
        read_checkpoint(folder)


def test_tensorboard_shows_losses_vessel_share_entropy_and_pictures(alone, output, tmp_path):
    events = EventAccumulator(str(alone / "tensorboard")).Reload()
    tags = events.Tags()
    names = ("regression", "equivariance", "entropy", "refinement", "total", "vessel_share")
    assert {f"train/{name}" for name in names} <= set(tags["scalars"])
    assert [e.step for e in events.Scalars("train/total")] == [1, 2, 3, 4, 5, 6]
    assert tags["images"] == ["image, dRAM, refined, target"]
    assert [e.step for e in events.Images(tags["images"][0])] == [3, 6]
    # four slices of 16 voxels with two columns between them
    assert (events.Images(tags["images"][0])[0].width) == 4 * 16 + 3 * 2

    config = load_config(TINY, SETTINGS)
    experiment = SegmentationExperiment(read_cache(output / "cache"), config, tmp_path)
    train(experiment, tmp_path / "segmentation", config, make_fabric(config))
    events = EventAccumulator(str(tmp_path / "segmentation" / "tensorboard")).Reload()
    assert events.Tags()["images"] == ["image, pseudo-label, prediction"]


def test_the_bar_tells_throughput_and_time_left(output, tmp_path, capsys):
    _train(tmp_path / "regression", output)
    said = capsys.readouterr().err
    assert "24/24 [" in said
    assert "sample" in said
    assert "<00:00" in said


def test_the_settings_of_a_run_lie_in_its_folder(alone):
    kept = json.loads((alone / "config.yaml").read_text())
    assert kept["loop"]["batch"] == 4
    assert kept["optimiser"]["name"] == "sgd"


def test_a_setting_that_is_younger_than_a_run_had_its_default(alone, tmp_path):
    settings = load_config(TINY, SETTINGS).regression
    kept = json.loads((alone / "config.yaml").read_text())
    del kept["beta"]
    (tmp_path / "config.yaml").write_text(json.dumps(kept))
    assert _difference(tmp_path, settings) == ""
    del kept["chunk"]
    (tmp_path / "config.yaml").write_text(json.dumps(kept))
    assert "chunk.size: 64 → 16" in _difference(tmp_path, settings)


def test_torchrun_is_refused_where_it_makes_no_sense(monkeypatch, tmp_path, capsys):
    from Training.__main__ import main

    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["prepare", "--data", str(tmp_path), "--output", str(tmp_path)]) == 1
    assert "run the others in a single process" in capsys.readouterr().err


def test_the_cache_of_these_tests_has_all_kinds_of_lobes(output):
    scores = [score for case in read_cache(output / "cache") for score in case.scores.values()]
    assert {0, 2, 4} <= set(scores)
    assert len(scores) == 3 * len(Lobe)


@pytest.mark.parametrize(
    "content", [[1, 2], torch.zeros(3), {"step": 3}, {"step": "3", "network": {}, "optimiser": {}}]
)
def test_a_file_that_holds_something_else_is_no_checkpoint(content, tmp_path):
    torch.save(content, tmp_path / "checkpoint.pt")
    with pytest.raises(InputError, match=r"checkpoint\.pt is damaged"):
        read_checkpoint(tmp_path)
