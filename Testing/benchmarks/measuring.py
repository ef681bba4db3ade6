"""Time and memory of our way and the peer's, and what this machine reaches at best."""

from __future__ import annotations

import contextlib
import multiprocessing
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import psutil
import torch
from torch.utils.flop_counter import FlopCounterMode


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds that ``work`` took, and its result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def timings(
    ours: Callable[[], Any],
    peer: Callable[[], Any],
    peer_name: str,
    rounds: int,
    target: float,
    warm: bool = True,
) -> dict[str, Any]:
    """Time the two in turn and return the timing part of a row.

    Args:
        ours: Our way.
        peer: The peer's.
        peer_name: Who that is.
        rounds: How often; medians count.
        target: The ratio to reach, the peer's time over ours.
        warm: Whether both run once before; not where a run takes minutes.
    """
    if warm:
        ours(), peer()
    pairs = [(timed(ours)[0], timed(peer)[0]) for _ in range(rounds)]
    mine, theirs = zip(*pairs, strict=True)
    ratio = statistics.median(theirs) / statistics.median(mine)
    return {
        **alone(mine),
        "peer": peer_name,
        "peer_s": round(statistics.median(theirs), 4),
        "peer_spread_s": round(max(theirs) - min(theirs), 4),
        "ratio": round(ratio, 2),
        "agreement": None,
        "peak_mb": None,
        "limit_share": None,
        "target": f"ratio >= {target:g}",
        "met": ratio >= target,
    }


def within(seconds: Sequence[float], limit: float) -> dict[str, Any]:
    """Return the timing part of a row without a peer that has to stay within ``limit`` seconds."""
    return {
        **alone(seconds),
        "peer": None,
        "peer_s": None,
        "ratio": None,
        "agreement": None,
        "peak_mb": None,
        "limit_share": None,
        "target": f"<= {limit:g} s",
        "met": statistics.median(seconds) <= limit,
    }


def alone(seconds: Sequence[float]) -> dict[str, Any]:
    """Return our own times of a row."""
    return {
        "ours_s": round(statistics.median(seconds), 4),
        "ours_spread_s": round(max(seconds) - min(seconds), 4),
        "threads": torch.get_num_threads(),
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


def command(*arguments: str) -> tuple[float, float]:
    """Run a Python command and return its seconds and the peak of its resident memory in MB.

    Raises:
        RuntimeError: If it fails.
    """
    start = time.perf_counter()
    process = subprocess.Popen(  # noqa: S603 - our own commands
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    peak = 0.0
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):
            peak = max(peak, watched.memory_info().rss / 1e6)
        time.sleep(0.01)
    seconds = time.perf_counter() - start
    assert process.stdout is not None
    output = process.stdout.read()
    if process.returncode != 0:
        raise RuntimeError(output)
    return seconds, peak


def operations(work: Callable[[], Any]) -> float:
    """Return the multiplications and additions of the convolutions and products in ``work``."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


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
