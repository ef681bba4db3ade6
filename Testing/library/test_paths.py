"""What files are called, and what is read whole: files, never pipes."""

import os
from pathlib import Path

import pytest

from DRAMLesionLib import paths, tables, typed
from DRAMLesionLib.errors import InputError
from Training.config import load_config


@pytest.mark.parametrize(
    "read",
    [typed.load_json, load_config, lambda path: tables.read_table(path, ("case",))],
    ids=["JSON", "YAML", "table"],
)
def test_a_pipe_is_not_waited_for(read, tmp_path):
    path = tmp_path / "file"
    os.mkfifo(path)
    with pytest.raises(InputError, match=r"file.*: it is a pipe or a device"):
        read(path)


@pytest.mark.parametrize(
    ("name", "scan", "mask"),
    [
        ("a.nii.gz", "a", "a"),
        ("a.seg.NRRD", "a", "a"),
        ("a.dcm", None, "a"),
        ("A.1.DCM", None, "A.1"),
        (".a.dcm", None, None),
        (".dcm", None, None),
        ("a.txt", None, None),
        ("u\u0308.dcm", None, "\u00fc"),
    ],
)
def test_the_case_of_a_file(name, scan, mask):
    assert paths.case_name(Path(name)) == scan
    assert paths.mask_name(Path(name)) == mask


def test_a_folder_of_any_name_holds_a_case(tmp_path):
    (tmp_path / "a.dcm").mkdir()
    assert paths.mask_name(tmp_path / "a.dcm") == "a.dcm"
