"""Rounds of the final network: who makes the labels of each, and that a stop loses nothing."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import Training as training_package
from DRAMLesionLib.errors import InputError
from DRAMLesionLib.lesions.severity import score_to_interval
from Testing.training.small_cache import write_small_cache
from Training.config import load_config
from Training.dataset.cache import LESION, read_cache
from Training.learning.engine import make_fabric, read_checkpoint, train
from Training.stages import rounds
from Training.stages.regression import RegressionExperiment

TINY = Path(training_package.__file__).with_name("configs") / "tiny.yaml"
SETTINGS = (
    "vessels.enabled=false",
    "regression.vessels=frangi",
    "segmentation.rounds=2",
    "segmentation.loop.steps=5",
)


@pytest.fixture
def config():
    return load_config(TINY, SETTINGS)


@pytest.fixture
def output(tmp_path, config):
    """A training with a finished regression and the labels of the first round."""
    cases = read_cache(write_small_cache(tmp_path / "cache"))
    run = tmp_path / "regression"
    train(RegressionExperiment(cases, config), run, config, make_fabric(config))
    rounds.label(cases, tmp_path, config)
    return tmp_path


def _labels(output):
    return {c.name: np.array(c.load("segmentation/labels")) for c in read_cache(output / "cache")}


def _final(output, config):
    lines: list[str] = []
    cases = read_cache(output / "cache")
    rounds.train_final(cases, output, config, make_fabric(config), lines.append)
    return lines


def test_the_steps_are_shared_out_and_the_second_round_goes_on_from_the_first(output, config):
    first_labels = _labels(output)
    _final(output, config)
    first, last = (read_checkpoint(output / n) for n in ("segmentation-1", "segmentation"))
    assert (first["step"], last["step"]) == (2, 3)
    untrained = rounds._experiment([], output / "segmentation", output, config).build_network()
    for key, value in untrained.state_dict().items():
        assert (value == first["network"][key]).all(), key
    assert any((first_labels[name] != x).any() for name, x in _labels(output).items())


def test_labels_of_the_second_round_keep_to_the_scores(output, config):
    _final(output, config)
    for case in read_cache(output / "cache"):
        labels, lobes = case.load("segmentation/labels"), case.load("segmentation/lobes")
        for lobe in case.boxes:
            low, high = score_to_interval(case.scores[lobe])
            assert low - 0.01 <= (labels[lobes == lobe] == LESION).mean() <= high + 0.01


def test_what_is_done_is_left_alone(output, config):
    _final(output, config)
    before = (output / "segmentation" / "checkpoint.pt").read_bytes()
    assert all(line.endswith("there already") for line in _final(output, config))
    rounds.label(read_cache(output / "cache"), output, config)  # not those of the regression again
    assert all(line.endswith("there already") for line in _final(output, config))
    assert (output / "segmentation" / "checkpoint.pt").read_bytes() == before


def test_stopped_between_the_rounds_equals_uninterrupted(output, config, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rounds, "_labeller", stop)
        with pytest.raises(KeyboardInterrupt):
            _final(output, config)
    assert not (output / "segmentation").exists()
    _final(output, config)
    resumed = read_checkpoint(output / "segmentation")["network"]
    for folder in ("segmentation-1", "segmentation"):
        (output / folder).rename(output / f"{folder}-resumed")
    rounds.label(read_cache(output / "cache"), output, config)
    _final(output, config)
    for key, value in read_checkpoint(output / "segmentation")["network"].items():
        assert (value == resumed[key]).all(), key


def test_a_label_by_hand_stays_in_every_round(output, config):
    path = output / "pseudolabels" / "case-1.nii.gz"
    edited = sitk.Cast(sitk.ReadImage(str(path)) * 0 + LESION, sitk.sitkUInt8)
    sitk.WriteImage(edited, str(path))
    rounds.label(read_cache(output / "cache"), output, config)
    lines = _final(output, config)
    assert "case-1: edited by hand, kept" in " ".join(lines)
    assert (_labels(output)["case-1"] == LESION).all()


def test_more_rounds_than_steps_are_refused():
    with pytest.raises(InputError, match=r"segmentation\.rounds is at least 1"):
        load_config(TINY, ("segmentation.rounds=7",))
