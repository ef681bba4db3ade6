"""Time and memory of ``segment`` as the CT grows: linear in the number of voxels.

One chest, sampled ever more finely. The plot goes to ``bench-growth.png``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from Testing.benchmarks.measuring import alone, command
from Testing.benchmarks.scans import of_size, whole_ct, write

SIZES = ((100, 100, 100), (256, 256, 150), (512, 512, 300), (512, 512, 600))
PLOT = Path("bench-growth.png")
STEEPEST = 1.1
"""Largest exponent of the number of voxels that still counts as linear."""


def run() -> list[dict[str, Any]]:
    """Return a row for each size; the last tells whether the growth is linear."""
    ct = whole_ct()
    voxels, seconds, memory = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for number, size in enumerate(SIZES):
            file = Path(folder) / f"{number}.nii.gz"
            write(of_size(ct, size), file)
            time, peak = command(
                "-m", "DRAMLesionLib", "segment", str(file), "-o", f"{folder}/out-{number}"
            )
            voxels.append(float(np.prod(size)))
            seconds.append(time)
            memory.append(peak)
    steepness = {"seconds": _exponent(voxels, seconds), "memory": _exponent(voxels, memory)}
    _plot(voxels, seconds, memory)
    rows = [
        {
            "name": f"segment, {'x'.join(map(str, size))}",
            **alone([time]),
            "peer": None,
            "peer_s": None,
            "ratio": None,
            "agreement": None,
            "peak_mb": round(peak),
            "limit_share": None,
            "target": None,
            "met": None,
        }
        for size, time, peak in zip(SIZES, seconds, memory, strict=True)
    ]
    rows[-1]["target"] = f"growth <= voxels^{STEEPEST:g}"
    rows[-1]["growth"] = {name: round(value, 2) for name, value in steepness.items()}
    rows[-1]["met"] = max(steepness.values()) <= STEEPEST
    return rows


def _exponent(voxels: list[float], cost: list[float]) -> float:
    """Return the steepest exponent between two neighbouring sizes."""
    return float(np.max(np.diff(np.log(cost)) / np.diff(np.log(voxels))))


def _plot(voxels: list[float], seconds: list[float], memory: list[float]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axis, cost, unit in zip(axes, (seconds, memory), ("s", "MB"), strict=True):
        millions = np.array(voxels) / 1e6
        axis.plot(millions, cost, "o-", color="#0072b2")
        axis.set_xlabel("million voxels")
        axis.set_ylabel(unit)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[0].set_title("time of segment, file to report")
    axes[1].set_title("peak of resident memory")
    part = PLOT.with_name(f"{PLOT.stem}.part.png")
    figure.savefig(part, dpi=110)
    part.replace(PLOT)
    pyplot.close(figure)
