"""Which device the networks run on, how much memory it has left, and how work is shared out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

from DRAMLesionLib.errors import InputError, ScanWarning
from DRAMLesionLib.memory import free_bytes, is_out_of_memory

Module = TypeVar("Module", bound=torch.nn.Module)
Result = TypeVar("Result")


def pick_device(name: str = "auto") -> torch.device:
    """Return the device to compute on.

    Args:
        name: ``auto`` (CUDA, else MPS, else CPU), ``cpu``, ``cuda`` or ``mps``.

    Raises:
        InputError: If the device is unknown or not available here.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(kind for kind, there in available.items() if there))
    if not available.get(name, False):
        there = ", ".join(kind for kind, has in available.items() if has)
        message = f"device {name!r} is not available on this computer; available: {there}"
        raise InputError(message)
    return torch.device(name)


def free_memory(device: torch.device) -> float | None:
    """Return how many bytes can still be had on a device, or None if nobody knows."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    return free_bytes()


@contextmanager
def single_threaded_pool() -> Iterator[ThreadPoolExecutor]:
    """Yield as many threads as torch uses, in which torch itself uses one.

    An operation on little data split over cores mostly waits for its slowest part, badly so on a
    machine that does other things as well.
    """
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, initializer=lambda: torch.set_num_threads(1))
    try:
        with pool:
            yield pool
    finally:
        torch.set_num_threads(threads)


def on_device(
    network: Module,
    device: torch.device,
    work: Callable[[Module, torch.device], Result],
    warnings: list[ScanWarning],
) -> Result:
    """Do ``work`` on a device, or on the processor if the GPU's memory does not suffice.

    Args:
        network: On ``device``.
        device: Where to compute.
        work: Called with a network and the device on which it is.
        warnings: Gets a notice if the processor had to do it.
    """
    try:
        return work(network, device)
    except RuntimeError as error:
        if device.type == "cpu" or not is_out_of_memory(error):
            raise
    notice = ScanWarning(
        "gpu-memory",
        "The memory of the GPU did not suffice; a part was computed on the processor instead, "
        "with the same result in more time. Closing other programs that use the GPU helps.",
    )
    if notice not in warnings:
        warnings.append(notice)
    cpu = torch.device("cpu")
    return work(copy.deepcopy(network).to(cpu), cpu)
