"""The command line: a 512x512x300 CT from file to report, and how soon it answers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from Testing.benchmarks.measuring import command, timed, within
from Testing.benchmarks.scans import of_size, whole_ct, write

LIMIT_S = 90.0
MEMORY_MB = 4000.0
HELP_S = 0.3
SIZE = (512, 512, 300)


def run(rounds: int = 2, quick_rounds: int = 7) -> list[dict[str, Any]]:
    """Return the rows of the benchmark table."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ct.nii.gz"
        write(of_size(whole_ct(), SIZE), file)
        arguments = ("-m", "DRAMLesionLib", "segment", str(file), "-o", f"{folder}/out")
        runs = [command(*arguments) for _ in range(rounds)]
    memory = max(peak for _, peak in runs)
    row = {
        "name": "segment, 512x512x300, file to report",
        **within([seconds for seconds, _ in runs], LIMIT_S),
        "peak_mb": round(memory),
    }
    row["target"] = f"<= {LIMIT_S:g} s, <= {MEMORY_MB:g} MB"
    row["met"] = row["met"] and memory <= MEMORY_MB
    return [
        row,
        _answer("--help", quick_rounds, "-m", "DRAMLesionLib", "--help"),
        _answer("import DRAMLesionLib", quick_rounds, "-c", "import DRAMLesionLib"),
    ]


def _answer(name: str, rounds: int, *arguments: str) -> dict[str, Any]:
    command(*arguments)  # from here on the files are in the cache
    times = [timed(lambda: command(*arguments))[0] for _ in range(rounds)]
    return {"name": name, **within(times, HELP_S)}
