"""The embedded lobe estimate on a whole CT."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from DRAMLesionLib.lobes.estimate import LobeEstimate, estimate_lobes
from Testing.benchmarks.measuring import peak_mb, timed, within
from Testing.benchmarks.scans import whole_ct

LIMIT_S = 30.0


def run(rounds: int = 3) -> list[dict[str, Any]]:
    """Return the row of the benchmark table."""
    work = _single()
    times = [timed(work)[0] for _ in range(rounds)]
    memory = round(peak_mb(_single))
    return [{"name": "lobe estimate, whole CT", **within(times, LIMIT_S), "peak_mb": memory}]


def _single() -> Callable[[], LobeEstimate]:
    ct = whole_ct()
    return lambda: estimate_lobes(ct)
