"""Runs that may not be built upon: damaged ones, and ones whose regression is another by now."""

from pathlib import Path

import pytest
import torch

import Training as training_package
from DRAMLesionLib.errors import InputError
from Training.config import load_config
from Training.learning import seals
from Training.stages.export import export
from Training.stages.segmentation import check_regression

TINY = Path(training_package.__file__).with_name("configs") / "tiny.yaml"


def _checkpoint(folder, value):
    folder.mkdir(exist_ok=True)
    path = folder / "checkpoint.pt"
    with path.open("wb") as file:
        torch.save({"step": 1, "network": {"a": torch.tensor(value)}, "optimiser": {}}, file)
    seals.seal(path)
    return path


def test_a_damaged_checkpoint_is_not_exported_and_the_weights_before_stay(tmp_path):
    path = _checkpoint(tmp_path / "regression", 1.0)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "segmentation.json").write_text("before")
    with pytest.raises(InputError, match=r"checkpoint\.pt is damaged: run the stage 'regression'"):
        export([], tmp_path, load_config(TINY, ["vessels.enabled=false"]))
    assert [p.name for p in (tmp_path / "weights").iterdir()] == ["segmentation.json"]
    assert (tmp_path / "weights" / "segmentation.json").read_text() == "before"


def test_a_final_network_does_not_go_on_with_another_regression(tmp_path):
    run, regression = tmp_path / "segmentation", tmp_path / "regression"
    _checkpoint(regression, 1.0)
    check_regression(run, regression)
    check_regression(run, regression)
    _checkpoint(regression, 2.0)
    with pytest.raises(InputError, match=r"regression has been trained again since .*: remove"):
        check_regression(run, regression)
