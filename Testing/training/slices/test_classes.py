"""Types of lesion on slices beside a reader's."""

import json

import numpy as np
import pytest
from PIL import Image

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.lesions.types import LesionType
from Testing.library.small_weights import write_small_weights
from Training.__main__ import main
from Training.slices.classes import agreement, read_classes, type_slice
from Training.slices.measure import CLASS_GREYS
from Training.slices.pictures import Slice
from Training.slices.prepare import PreparedSlice

GLASS, DENSE, MIXED = LesionType.GROUND_GLASS, LesionType.CONSOLIDATION, LesionType.MIXED


def test_agreement_and_kappa_are_those_worked_out_by_hand():
    read = np.array([[GLASS] * 6 + [DENSE] * 4, [0, GLASS, DENSE] + [0] * 7])
    found = np.array(
        [[GLASS] * 4 + [DENSE, MIXED] + [DENSE] * 3 + [GLASS], [GLASS, 0, 0] + [0] * 7]
    )
    result = agreement([read[:1], read[1:]], [found[:1], found[1:]])
    assert result["pixels"] == {
        "ground_glass": {"ground_glass": 4, "consolidation": 1, "mixed": 1},
        "consolidation": {"ground_glass": 1, "consolidation": 3, "mixed": 0},
    }
    assert result["mixed"] == pytest.approx(1 / 10)
    assert result["agreement"] == pytest.approx(7 / 9)
    chance = (5 * 5 + 4 * 4) / 81
    assert result["kappa"] == pytest.approx((7 / 9 - chance) / (1 - chance))


def test_where_nothing_is_called_by_both_there_is_no_agreement():
    nothing = np.zeros((3, 3), dtype=np.uint8)
    result = agreement([nothing], [nothing])
    assert result["agreement"] is result["kappa"] is result["mixed"] is None


def test_glass_and_consolidation_of_a_slice_are_told_apart():
    hu = np.full((60, 80), -860.0, dtype=np.float32)
    hu += np.random.default_rng(0).normal(0, 20, hu.shape).astype(np.float32)
    lesion = np.zeros(hu.shape, dtype=bool)
    lesion[15:45, 10:35] = lesion[15:45, 45:70] = True
    hu[15:45, 10:35] += 260
    hu[15:45, 45:70] += 880
    prepared = PreparedSlice(hu, np.ones(hu.shape, dtype=np.uint8), 1.5, 0.7)
    types = type_slice(prepared, lesion, np.zeros_like(lesion))
    assert ((types > 0) == lesion).all()
    assert (types[18:42, 14:31] == GLASS).all()
    assert (types[18:42, 49:66] == DENSE).all()


def _slice(tmp_path, values):
    Image.fromarray(values.astype(np.uint8)).save(tmp_path / "a.png")
    return [Slice("a", np.zeros((4, 6), dtype=np.uint8), np.zeros((4, 6), dtype=bool))]


def test_greys_become_types_and_what_has_no_meaning_is_refused(tmp_path):
    values = np.zeros((4, 6))
    values[0, :2], values[1, 3] = 38, 75
    (types,) = read_classes(tmp_path, _slice(tmp_path, values), CLASS_GREYS)
    assert types[0, 0] == types[0, 1] == GLASS
    assert types[1, 3] == DENSE
    assert np.count_nonzero(types) == 3
    values[2, 2] = 113
    with pytest.raises(InputError, match="113"):
        read_classes(tmp_path, _slice(tmp_path, values), CLASS_GREYS)
    with pytest.raises(InputError, match="size"):
        read_classes(tmp_path, _slice(tmp_path, np.zeros((6, 4))), CLASS_GREYS)


def test_the_command_counts_types_beside_a_readers(tmp_path, capsys):
    rows, columns = np.mgrid[:150, :200]
    lungs = np.zeros(rows.shape, dtype=bool)
    for column in (50, 150):
        lungs |= ((rows - 75) / 60) ** 2 + ((columns - column) / 40) ** 2 < 1
    grey = np.where(lungs, 60, 200) + np.random.default_rng(0).integers(-4, 5, rows.shape)
    pictures = {"images": grey, "masks": lungs * 255, "classes": lungs * 38}
    for name, values in pictures.items():
        (tmp_path / name).mkdir()
        Image.fromarray(values.astype(np.uint8)).save(tmp_path / name / "a.png")
    write_small_weights(tmp_path / "weights")
    words = [word for name in pictures for word in (f"--{name}", str(tmp_path / name))]
    words += ["--weights", str(tmp_path / "weights"), "--output", str(tmp_path / "out")]
    assert main(["slices", *words]) == 0
    types = json.loads((tmp_path / "out" / "slices.json").read_text())["types"]
    mask = np.asarray(Image.open(tmp_path / "out" / "masks" / "a.png")) > 0
    both = sum(types["pixels"]["ground_glass"].values())
    assert both == (mask & lungs).sum()
    assert not any(types["pixels"]["consolidation"].values())
    assert "types: " in capsys.readouterr().out
    assert main(["slices", *words, "--method", "cam"]) == 1
    assert "--classes" in capsys.readouterr().err
