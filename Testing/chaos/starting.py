"""Starts command lines in processes of their own, without the seconds that imports take.

A server process imports once and forks (``multiprocessing``'s fork server), so that a hundred kills
take minutes. What runs in the fork is what ``python -m`` runs, in a session of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TextIO

_LIBRARIES = [
    "DRAMLesionLib.__main__",
    "DRAMLesionLib.pipeline",
    "DRAMLesionLib.report.output",
    "Training.__main__",
    "Training.stages.export",
    "Training.stages.prepare",
    "Training.stages.rounds",
    "Testing.chaos.starting",
]


def start(words: list[str]) -> tuple[BaseProcess, TextIO]:
    """Start a command line.

    Args:
        words: Module or script, and its arguments.

    Returns:
        The process, and what it prints.
    """
    # one thread: results are the same each time, and forks are safe
    os.environ["OMP_NUM_THREADS"] = os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_LIBRARIES)
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_become, args=(words, theirs))
    process.start()
    theirs.close()
    stream = os.fdopen(os.dup(ours.fileno()), encoding="utf-8", errors="replace")
    ours.close()
    return process, stream


def _become(words: list[str], output: Connection) -> None:
    """Do in this process what ``python`` does with these words."""
    os.setsid()
    for stream in (1, 2):
        os.dup2(output.fileno(), stream)
    output.close()
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", closefd=False)
    sys.argv = words
    if words[0].endswith(".py"):
        runpy.run_path(words[0], run_name="__main__")
    else:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
