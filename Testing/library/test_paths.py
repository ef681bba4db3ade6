"""What is read whole: files, never pipes."""

import os

import pytest

from DRAMLesionLib import tables, typed
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
