"""Cases are worked on side by side, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_workers(
    function: Callable[[T], R], tasks: Sequence[T], workers: int
) -> Iterator[tuple[T, R]]:
    """Yield each task with its result, as they get done.

    Args:
        function: A module-level function.
        tasks: Its arguments; must be picklable.
        workers: Processes; 1 works in this one, in order.

    Yields:
        Pairs of task and result; the first exception of a worker ends it all.
    """
    if workers <= 1 or len(tasks) <= 1:
        for task in tasks:
            yield task, function(task)
        return
    # not forked: a copy of a process with running threads may never finish
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_one_thread)
    try:
        futures = {pool.submit(function, task): task for task in tasks}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _one_thread() -> None:
    """Keep the libraries of a worker from starting as many threads as there are cores."""
    # read when the libraries load, which a spawned process has not done yet
    os.environ["OMP_NUM_THREADS"] = "1"
    import SimpleITK as sitk
    import torch

    torch.set_num_threads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
