"""The table of paper 003 on slices: folds, points, rows, and that a stopped command goes on."""

import json

import numpy as np
import pytest
from PIL import Image

from DRAMLesionLib.errors import InputError
from Training.__main__ import main
from Training.config import PointsConfig
from Training.slices.pictures import Slice
from Training.slices.points import SlicePictures, points_of
from Training.studies import slice_folds


def _slices(count=4):
    """Draw dark pictures with a bright disc each, which is the lesion."""
    rows, columns = np.mgrid[:40, :48]
    slices = []
    for n in range(count):
        truth = (rows - 12 - 3 * n) ** 2 + (columns - 14 - 4 * n) ** 2 < 30
        slices.append(Slice(f"{n:03}", np.where(truth, 200, 40).astype(np.uint8), truth))
    return slices


@pytest.fixture
def folders(tmp_path):
    for one in _slices():
        for kind, values in (("images", one.grey), ("masks", one.truth.astype(np.uint8) * 255)):
            (tmp_path / "set" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(tmp_path / "set" / kind / f"{one.name}.png")
    return tmp_path


def _command(folders, *more):
    words = ["slices-folds", "--images", str(folders / "set" / "images"), "--masks"]
    words += [str(folders / "set" / "masks"), "--output", str(folders / "out"), "--folds", "2"]
    words += ["--set", "points.size=32", "--set", "points.base_channels=1"]
    words += ["--set", "points.levels=1", "--set", "points.loop.steps=2"]
    return main([*words, *more])


def test_every_slice_is_held_out_once():
    parts = slice_folds.part(50, 5, 0)
    assert [len(one) for one in parts] == [10] * 5
    assert sorted(n for one in parts for n in one) == list(range(50))
    assert parts == slice_folds.part(50, 5, 0)
    assert parts != slice_folds.part(50, 5, 1)


def test_points_hang_on_name_and_seed_alone_and_masks_label_everything():
    one = _slices()[2]
    points = points_of(one, 32, 0)
    assert (points == 1).sum() == (points == 0).sum() == 1
    np.testing.assert_array_equal(points, points_of(one, 32, 0))
    assert (points != points_of(one, 32, 1)).any()
    full = SlicePictures([one], PointsConfig(size=32, loss="masks"), 0)[0]
    assert set(full["labels"].unique().tolist()) == {0, 1}
    assert full["image"][full["labels"] == 1].mean() > 0.6


def test_one_command_makes_the_table_and_goes_on_where_it_was(folders, capsys):
    rows = ["PL", "CB flip + rotation", "CB LCFCN", "supervised"]
    assert _command(folders, "--rows", *rows) == 0
    content = json.loads((folders / "out" / "folds.json").read_text())
    assert list(content["rows"]) == rows
    assert content["folds"] == "2 of 2"
    for row in content["rows"].values():
        assert row["slices"] == 4
        assert set(row["counting"]) == {"MAE", "GAME(4)"}
        assert set(row["dice_by_slice"]) == {"000", "001", "002", "003"}
    printed = capsys.readouterr().out
    assert "| CB flip + rotation |" in printed
    assert _command(folders, "--rows", *rows) == 0
    again = json.loads((folders / "out" / "folds.json").read_text())
    assert again == content
    assert _command(folders, "--set", "points.loop.steps=3", "--rows", "PL") == 1
    assert "holds a run with other settings" in capsys.readouterr().err


def test_unknown_rows_and_too_many_folds_are_refused(folders):
    config = slice_folds.Config()
    paths = [folders / "set" / "images", folders / "set" / "masks", folders / "out", config]
    with pytest.raises(InputError, match="there is no row 'CAM'; known: PL, CB flip"):
        slice_folds.run_folds(*paths, rows=["CAM"])
    with pytest.raises(InputError, match="4 slices cannot be parted into 5 folds"):
        slice_folds.run_folds(*paths)


def test_figures_of_a_row_by_hand():
    slices = _slices(2)
    everywhere = np.ones(slices[0].truth.shape, dtype=bool)
    nothing = np.zeros_like(everywhere)
    found = {
        0: slice_folds.Found(slices[0].truth, slices[0].truth.astype(np.float32), everywhere),
        1: slice_folds.Found(nothing, nothing.astype(np.float32), everywhere),
    }
    row = slice_folds.measure(slices, found)
    size = [int(one.truth.sum()) for one in slices]
    assert row["all_pixels"]["dice"] == pytest.approx(2 * size[0] / (2 * size[0] + size[1]))
    assert row["mean_of_slices"]["dice"] == 0.5
    assert row["counting"] == {"MAE": 0.5, "GAME(4)": 0.5}
    text = slice_folds.table({"PL": row}).splitlines()
    assert text[2].startswith(f"| PL | {row['all_pixels']['dice']:.3f} (0.500)")
    assert text[2].endswith("| 0.50 | 0.50 | 2 |")
