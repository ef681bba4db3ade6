"""Time and memory of two ways to do the same, for the benchmarks of the CRF and the attention."""

from __future__ import annotations

import multiprocessing
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil
import torch


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds that ``work`` took, and its result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def timings(
    ours: Callable[[], Any], peer: Callable[[], Any], peer_name: str, rounds: int, target: float
) -> dict[str, Any]:
    """Time the two in turn and return the timing part of a row."""
    ours(), peer()
    pairs = [(timed(ours)[0], timed(peer)[0]) for _ in range(rounds)]
    mine, theirs = zip(*pairs, strict=True)
    ratio = statistics.median(theirs) / statistics.median(mine)
    return {
        "ours_s": round(statistics.median(mine), 4),
        "ours_spread_s": round(max(mine) - min(mine), 4),
        "peer": peer_name,
        "peer_s": round(statistics.median(theirs), 4),
        "peer_spread_s": round(max(theirs) - min(theirs), 4),
        "ratio": round(ratio, 2),
        "target": target,
        "met": ratio >= target,
    }


def peak_mb(work: Callable[..., Any], *arguments: Any) -> float:
    """Return by how many MB ``work`` raises the peak memory of a fresh process.

    Args:
        work: A function of a module; it returns the function to measure, so that what it prepares
            does not count.
        arguments: For ``work``.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_rise, (work, arguments))


def _rise(work: Callable[..., Any], arguments: tuple[Any, ...]) -> float:
    step = work(*arguments)
    process = psutil.Process()
    before = peak = process.memory_info().rss
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        step()
    finally:
        done.set()
        watcher.join()
    return (peak - before) / 1e6


def copy_rate() -> float:
    """Return the bytes that a large copy reads and writes in a second."""
    source = torch.rand(1 << 25)
    target = torch.empty_like(source)
    return 8.0 * len(source) / min(timed(lambda: target.copy_(source))[0] for _ in range(5))


def product_rate() -> float:
    """Return the operations of a large matrix product in a second."""
    size = 2048
    a = torch.rand(size, size)
    return 2.0 * size**3 / min(timed(lambda: a @ a)[0] for _ in range(5))
