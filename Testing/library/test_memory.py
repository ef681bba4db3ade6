import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from DRAMLesionLib.devices import free_memory
from DRAMLesionLib.memory import free_bytes, is_out_of_memory

ROOT = Path(__file__).resolve().parents[2]
GB = 2**30


def _system(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


MEMINFO = {"proc/meminfo": f"MemTotal: 999 kB\nMemAvailable: {8 * 2**20} kB\n"}
V2 = "sys/fs/cgroup/"
V1 = "sys/fs/cgroup/memory/"


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 8 * GB),
        # a limit, less what is used and would not go
        (
            {
                "proc/self/cgroup": "0::/box\n",
                f"{V2}box/memory.max": f"{4 * GB}\n",
                f"{V2}box/memory.current": f"{3 * GB}\n",
                f"{V2}box/memory.stat": f"anon 5\ninactive_file {GB}\n",
            },
            2 * GB,
        ),
        # the group around it is narrower, that of all has no limit
        (
            {
                "proc/self/cgroup": "0::/jobs/one\n",
                f"{V2}jobs/one/memory.max": "max\n",
                f"{V2}jobs/one/memory.current": f"{GB}\n",
                f"{V2}jobs/memory.max": f"{2 * GB}\n",
                f"{V2}jobs/memory.current": f"{1.5 * GB:.0f}\n",
            },
            GB / 2,
        ),
        # version 1; in a container the path is the host's
        (
            {
                "proc/self/cgroup": "9:cpu:/x\n4:memory:/docker/12ab\n0::/\n",
                f"{V1}memory.limit_in_bytes": f"{3 * GB}\n",
                f"{V1}memory.usage_in_bytes": f"{2 * GB}\n",
                f"{V1}memory.stat": "cache 7\ntotal_inactive_file 1024\n",
            },
            GB + 1024,
        ),
        # no limit in version 1
        (
            {
                "proc/self/cgroup": "4:memory:/\n",
                f"{V1}memory.limit_in_bytes": "9223372036854771712\n",
                f"{V1}memory.usage_in_bytes": f"{2 * GB}\n",
            },
            8 * GB,
        ),
        # more is used than allowed
        (
            {
                "proc/self/cgroup": "0::/\n",
                f"{V2}memory.max": "1000\n",
                f"{V2}memory.current": "2000\n",
            },
            0,
        ),
    ],
)
def test_what_limits_leave(tmp_path, files, free):
    assert free_bytes(_system(tmp_path, MEMINFO | files)) == free


def test_the_address_space(tmp_path, monkeypatch):
    pages = (GB // 2) // resource.getpagesize()
    root = _system(tmp_path, MEMINFO | {"proc/self/statm": f"{pages} 1 1 1 0 1 0\n"})
    monkeypatch.setattr(resource, "getrlimit", lambda _: (GB, GB))
    assert free_bytes(root) == GB // 2


def test_nobody_tells(tmp_path):
    assert free_bytes(tmp_path) is None


def test_this_computer():
    found = free_memory(torch.device("cpu"))
    assert found == pytest.approx(free_bytes(), rel=0.2)


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("Exception: std::bad_alloc"), True),
        (RuntimeError("ITK ERROR: Failed to allocate memory for image."), True),
        (RuntimeError("shapes differ"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_errors_of_memory_are_known(error, is_one):
    assert is_out_of_memory(error) is is_one


@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
@pytest.mark.parametrize(
    "code",
    ["sitk.Image(4000, 4000, 4000, sitk.sitkInt16)", "torch.empty(2**36)", "np.ones(2**36)"],
)
def test_what_is_really_raised_is_known(code):
    whole = (
        "import resource, numpy as np, SimpleITK as sitk, torch\n"
        "from DRAMLesionLib.memory import is_out_of_memory\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**35, 2**35))\n"
        f"try:\n    {code}\n"
        "except BaseException as error:\n    print(is_out_of_memory(error))\n"
    )
    out = subprocess.run(  # noqa: S603
        [sys.executable, "-c", whole], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert out.stdout == "True\n"
