"""A damaged cache: found, named, and made again by the stage that is said to do so."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import Training as training_package
from DRAMLesionLib import writing
from DRAMLesionLib.errors import InputError, OutputError
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.phantom import make_phantom
from Testing.training.small_cache import write_small_cache
from Training.config import load_config
from Training.dataset.cache import PREPARED, VESSELS, read_cache
from Training.dataset.folder import Case
from Training.stages.prepare import PrepareTask, prepare

TINY = Path(training_package.__file__).with_name("configs") / "tiny.yaml"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    made = make_phantom(5, 4.0)
    writing.write_image(made.ct, folder / "scans" / "a.nii.gz")
    writing.write_image(made.lobes, folder / "lobes" / "a.nii.gz")
    (folder / "scores.csv").write_text("case,LUL,LLL,RUL,RML,RLL\na,1,1,0,2,1\n")
    return folder


@pytest.fixture(scope="module")
def made(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("made")
    prepare([data], output, load_config(TINY))
    return output


def _flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 16
    path.write_bytes(content)


DAMAGE = {
    "a bit": lambda path: _flip(path, 3000),
    "the last voxel": lambda path: _flip(path, -41),
    "the checksum": lambda path: _flip(path, -1),
    "the header": lambda path: _flip(path, 20),
    "the end": lambda path: path.write_bytes(path.read_bytes()[:-1000]),
    "all": lambda path: path.unlink(),
}


def test_what_is_damaged_is_prepared_again_and_nothing_else(data, made, tmp_path):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    wanted = {name: np.array(read_cache(made / "cache")[0].load(name)) for name in PREPARED}
    names = [*PREPARED, VESSELS, PREPARED[0]]
    for (kind, damage), name in zip(DAMAGE.items(), names, strict=True):
        damage(tmp_path / "cache" / "a" / f"{name}.npy")
        lines: list[str] = []
        prepare([data], tmp_path, load_config(TINY), lines.append)
        assert f"{name} of a damaged or missing: the case is prepared again" in lines, kind
        case = read_cache(tmp_path / "cache")[0]
        for inner, values in wanted.items():
            np.testing.assert_array_equal(case.load(inner), values)
    lines = []
    prepare([data], tmp_path, load_config(TINY), lines.append)
    assert lines[0] == "1 of 1 cases are prepared already"


@pytest.mark.parametrize("content", ["", "[]", '{"origin": 1}', "a digit"])
def test_a_damaged_note_about_a_case_is_prepared_again(data, made, tmp_path, content):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "cache" / "a" / "meta.json"
    wanted = json.loads(path.read_text())
    if content == "a digit":
        content = path.read_text().replace('"RML": 2', '"RML": 3')
        assert content != path.read_text()
    path.write_text(content)
    if content != '{"origin": 1}':
        with pytest.raises(
            InputError, match=r"meta\.json is missing or damaged \(.*\): run .*'prepare'"
        ):
            assert read_cache(tmp_path / "cache")[0].meta
    prepare([data], tmp_path, load_config(TINY))
    assert json.loads(path.read_text()) == wanted


def test_a_case_without_its_note_is_prepared_again(data, made, tmp_path):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    (tmp_path / "cache" / "a" / "meta.json").unlink()
    prepare([data], tmp_path, load_config(TINY))
    assert read_cache(tmp_path / "cache")[0].scores[Lobe.RML] == 2


@pytest.mark.parametrize("kind", ["the header", "the end", "all"])
def test_who_meets_a_damaged_array_is_told_which_and_what_makes_it_again(tmp_path, kind):
    case = read_cache(write_small_cache(tmp_path / "cache"))[0]
    stages = {
        "regression/image": "prepare",
        "regression/vessels_network": "vessels",
        "segmentation/labels": "pseudolabels",
    }
    for name, stage in stages.items():
        case.save(name, np.zeros((8, 8, 8), dtype=np.float32))
        path = case.folder / f"{name}.npy"
        DAMAGE[kind](path)
        with pytest.raises(InputError, match=f"{name}.*npy is .*: run the stage '{stage}'"):
            case.load(name)


def test_names_of_dicom_files_do_not_leave_the_scan(tmp_path):
    scan = tmp_path / "a"
    scan.mkdir()
    for number in range(2):
        (scan / f"MUELLER_HANS_1950{number}.dcm").write_bytes(b"x" * 10)
    case = Case("a", scan, None, dict.fromkeys(Lobe, 1))
    task = PrepareTask(case, tmp_path, 1.0, 1.5, vessels=True, lobe_scheme="auto")
    first = task.origin()
    assert "MUELLER" not in json.dumps(first)
    assert task.origin() == first
    (scan / "MUELLER_HANS_19500.dcm").rename(scan / "MUELLER_HANS_19507.dcm")
    assert task.origin() != first


def test_caches_made_with_guards_stay_and_are_made_again_without_them(tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(b"x")
    case = Case("a", tmp_path / "a.nii.gz", None, dict.fromkeys(Lobe, 1))
    task = PrepareTask(case, tmp_path, 1.0, 1.5, vessels=True, lobe_scheme="auto")
    assert "vessel_guards" not in task.origin()
    assert replace(task, vessel_guards=False).origin() != task.origin()


def test_a_disk_without_room_is_told_before_the_work(data, tmp_path, monkeypatch):
    monkeypatch.setattr("Training.stages.prepare._prepare_case", None)
    monkeypatch.setattr("Training.stages.prepare._SMALL_CHEST_MM3", 1e21)
    with pytest.raises(OutputError, match=r"the results need about \d+ MB, and \d+ MB are free"):
        prepare([data], tmp_path, load_config(TINY))
