"""Cases are worked on side by side, each in a process of its own.

No process outlives the one that started it, however that ends; and what a process wrote until then
is whole or not there (:mod:`DRAMLesionLib.writing`), so the next run goes on where this one was.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from typing import IO, TypeVar

from DRAMLesionLib.errors import OutOfMemory
from DRAMLesionLib.memory import is_out_of_memory

T = TypeVar("T")
R = TypeVar("R")

# loaded here: between fork and exec as little as possible may happen
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1
"""Option of Linux' ``prctl``: which signal a process gets when its parent ends."""


def in_workers(
    function: Callable[[T], R],
    tasks: Sequence[T],
    workers: int,
    *,
    case: Callable[[T], str],
    setting: str,
) -> Iterator[tuple[T, R]]:
    """Yield each task with its result, as they get done.

    Args:
        function: A module-level function.
        tasks: Its arguments; must be picklable.
        workers: Processes; 1 works in this one, in order.
        case: What a task is about, for messages.
        setting: What the user calls ``workers``.

    Yields:
        Pairs of task and result; the first exception of a worker ends it all.

    Raises:
        OutOfMemory: If the memory did not do, or the system has killed a worker.
    """
    if workers <= 1 or len(tasks) <= 1:
        for task in tasks:
            with _memory_told(case(task), 1, setting):
                result = function(task)
            yield task, result
        return
    # not forked: a copy of a process with running threads may never finish
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, context, initializer=_start)
    try:
        futures = {pool.submit(function, task): task for task in tasks}
        for future in as_completed(futures):
            try:
                with _memory_told(case(futures[future]), workers, setting):
                    result = future.result()
            except BrokenProcessPool as error:
                # they are taken in turn: those that were being worked on stand first
                lost = [case(task) for f, task in futures.items() if f.exception() is not None]
                message = (
                    "the system has ended a worker, most likely since the memory did not do, at "
                    f"{' or '.join(lost[:workers])}: {_remedy(workers, setting)}"
                )
                raise OutOfMemory(message) from error
            yield futures[future], result
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.kill()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _memory_told(case: str, workers: int, setting: str) -> Iterator[None]:
    """Turn an error that is about memory into a clear line."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        message = f"the memory did not do for {case}: {_remedy(workers, setting)}"
        raise OutOfMemory(message) from error


def _remedy(workers: int, setting: str) -> str:
    if workers > 1:
        return (
            f"run it again with fewer workers than {workers} ({setting}); it goes on where it was"
        )
    return "close other programs or use a computer with more; the next run goes on where it was"


def run_command(words: Sequence[str], said: IO[str], environment: Mapping[str, str]) -> int:
    """Run a program to its end; when this process is stopped, so are it and all it has started.

    Args:
        words: The program and its arguments.
        said: Where what it says goes.
        environment: Its environment.

    Returns:
        Its exit status.
    """
    own_group = os.name == "posix"
    process = subprocess.Popen(  # noqa: S603  (the caller knows the program)
        words,
        stdout=said,
        stderr=said,
        env=environment,
        start_new_session=own_group,
        preexec_fn=_die_with_parent if sys.platform == "linux" else None,
    )
    try:
        return process.wait()
    except BaseException:
        if own_group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()
        raise


def _start() -> None:
    """Make a new process one that computes on one thread, and ends with its parent."""
    # Ctrl-C reaches the whole group: the parent decides what becomes of its workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent()
    # read when the libraries load, which a spawned process has not done yet
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)
    # a machine that trains on a prepared cache alone may be without it
    with suppress(ImportError):
        import SimpleITK as sitk

        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def _end_with_parent() -> None:
    """See to it that this process ends when its parent does, killed or not."""
    if sys.platform == "linux":
        # at once, even in the middle of a long call into C++, which the thread below waits for
        _die_with_parent()
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _die_with_parent() -> None:
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _watch(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)
