"""The training loop that all networks share, on Lightning Fabric.

One process on a CPU or a GPU, or several under ``torchrun``: the samples of a step are numbered,
and each process takes its share of the numbers. All randomness hangs on these numbers (see
:mod:`Training.dataset.sampling`), so a checkpoint is nothing but tensors and a step, and a run that
was killed goes on to the same result as one that was not.

A run's folder holds ``checkpoint.pt`` and the one before it, ``config.yaml`` (all settings of the
run), ``log.jsonl`` (one line an entry) and ``tensorboard/``. Checkpoints end with their checksum
(:mod:`Training.learning.seals`); where the last is damaged, the run goes on from the one before.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import shutil
import signal
import sys
import time
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from DRAMLesionLib.errors import Cancelled, InputError
from DRAMLesionLib.memory import is_out_of_memory
from DRAMLesionLib.typed import build, parse_json
from DRAMLesionLib.writing import append_text, check_writable, whole_file, write_text
from Training.config import Config, LoopConfig, OptimiserConfig, read_yaml, to_plain
from Training.learning import seals
from Training.learning.distributed import average_gradients, share_statistics

CHECKPOINT, LOG, SETTINGS = "checkpoint.pt", "log.jsonl", "config.yaml"
PREVIOUS = "checkpoint.pt.previous"

T = TypeVar("T")


class Experiment(ABC):
    """What is trained: a network, its samples and its losses.

    Attributes:
        name: Name of the stage.
        settings: All that the result depends on, with ``optimiser`` and ``loop``; a run goes on
            only with the same.
    """

    name: str
    settings: Any

    @property
    def optimiser(self) -> OptimiserConfig:
        """How the tensors are moved."""
        return self.settings.optimiser

    @property
    def loop(self) -> LoopConfig:
        """How long the training is, and how much it sees at a time."""
        return self.settings.loop

    @abstractmethod
    def build_network(self) -> nn.Module:
        """Return the untrained network; called after the random seed is set."""

    def parameters(self, network: nn.Module) -> list[dict[str, Any]]:
        """Return the groups of tensors that the optimiser moves, each with settings of its own.

        A tensor without a gradient in a step stays where it is, and its moments, too: so one
        optimiser with two groups is as good as two, and its state is one.
        """
        return [{"params": list(network.parameters())}]

    @abstractmethod
    def samples(self) -> Dataset:
        """Return the training samples, indexed by their number from 0 without end."""

    @abstractmethod
    def losses(self, network: nn.Module, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """Return the loss to minimise as ``"total"``, and what else is to be logged, as means."""

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Return figures on the validation cases; the network is in evaluation mode."""
        return {}

    def pictures(self, network: nn.Module, device: torch.device) -> dict[str, Tensor]:
        """Return pictures (3, height, width) in [0, 1] by name."""
        return {}


def make_fabric(config: Config) -> Fabric:
    """Return Fabric for the devices and processes that are there, launched.

    Under ``torchrun`` all of its processes take part. Mixed precision is for GPUs alone.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    accelerator = config.accelerator
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    world = int(os.environ.get("WORLD_SIZE", "1"))
    mixed = config.mixed_precision and accelerator == "cuda"
    fabric = Fabric(
        accelerator=accelerator,
        devices=local,
        num_nodes=max(1, world // local),
        strategy="ddp" if world > 1 else "auto",
        precision="16-mixed" if mixed else "32-true",
    )
    fabric.launch()
    return fabric


def train(
    experiment: Experiment,
    folder: Path,
    config: Config,
    fabric: Fabric,
    progress: Callable[[float], None] = lambda _: None,
) -> nn.Module:
    """Train, or go on training, until the last step.

    Args:
        experiment: What to train.
        folder: Folder of the run; made if it is missing.
        config: Seed and the like.
        fabric: From :func:`make_fabric`.
        progress: Called after each step with the share of the steps that is done.

    Returns:
        The trained network in evaluation mode.

    Raises:
        InputError: If the folder holds a run with other settings, or the batch cannot be shared
            out to the processes.
        Cancelled: If SIGINT or SIGTERM came; a checkpoint was written.
    """
    return _Run(experiment, folder, config, fabric).finish(progress)


def begin_from(network: nn.Module, folder: Path) -> None:
    """Write a network as the checkpoint of a run that has not made a step, for others to start at.

    Args:
        network: Such as one of exported weights.
        folder: Folder of the run; made if it is missing.

    Raises:
        OutputError: If it cannot be written.
    """
    with whole_file(folder / CHECKPOINT) as part:
        _write_state({"step": 0, "network": network.state_dict(), "optimiser": {}}, part)


def is_finished(folder: Path, experiment: Experiment) -> bool:
    """Tell whether a run has reached its last step with the settings of ``experiment``."""
    try:
        state = read_checkpoint(folder)
    except InputError:
        return False
    return state["step"] >= experiment.loop.steps and not _difference(folder, experiment.settings)


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """Read the checkpoint of a run: its step and the tensors of network and optimiser.

    Raises:
        InputError: If there is none or it is damaged.
    """
    path = folder / CHECKPOINT
    if not path.is_file() and not (folder / PREVIOUS).is_file():
        message = f"there is no {path}: run the stage {folder.name!r} first"
        raise InputError(message)
    state = _sound_state(path)
    if state is None:
        there = seals.is_sound(folder / PREVIOUS)
        remedy = (
            "it goes on from the checkpoint before" if there else "it starts from the beginning"
        )
        message = f"{path} is damaged: run the stage {folder.name!r} again, {remedy}"
        raise InputError(message)
    return state


def checkpoint_sum(folder: Path) -> str:
    """Return the checksum of a run's checkpoint, by which what was computed from it is known.

    Raises:
        InputError: If there is none or it is damaged.
    """
    read_checkpoint(folder)
    return seals.checksum(folder / CHECKPOINT)


def _sound_state(path: Path) -> dict[str, Any] | None:
    """Return the content of a checkpoint; None if it is missing or damaged."""
    # one of an earlier version has no seal, but the checksums of the archive that it is
    if not seals.is_sound(path) and not (_is_unsealed(path) and _is_sound_archive(path)):
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what another file by that name raises depends on what it is
        if is_out_of_memory(error):
            raise
        return None
    return state if _is_state(state) else None


def _is_state(state: Any) -> bool:
    """Tell whether something is what a run keeps."""
    return (
        isinstance(state, dict)
        and type(state.get("step")) is int
        and state["step"] >= 0
        and isinstance(state.get("network"), dict)
        and isinstance(state.get("optimiser"), dict)
    )


def _is_unsealed(path: Path) -> bool:
    return path.is_file() and seals.sealed_length(path) is None


def _is_sound_archive(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, zlib.error, ValueError, NotImplementedError, RuntimeError):
        return False


def read_run(folder: Path, kind: type[T]) -> tuple[T, dict[str, Tensor]]:
    """Read the settings of a run and the tensors of its network.

    Args:
        folder: Of the run.
        kind: Dataclass of the settings.

    Raises:
        InputError: If there is no checkpoint, or one of the two is damaged.
    """
    state = read_checkpoint(folder)
    path = folder / SETTINGS
    return build(kind, read_yaml(path), str(path)), state["network"]


def logged(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Return the entries of a kind (``train`` or ``validation``) in a run's log."""
    return [entry for entry in _read_log(folder / LOG) if entry["kind"] == kind]


def last_logged(folder: Path, kind: str) -> dict[str, Any]:
    """Return the last of these entries; an empty one if there is none."""
    return next(reversed(logged(folder, kind)), {})


class _Run:
    """One experiment in one folder."""

    def __init__(
        self, experiment: Experiment, folder: Path, config: Config, fabric: Fabric
    ) -> None:
        self.experiment, self.folder, self.config, self.fabric = experiment, folder, config, fabric
        self.loop = experiment.loop
        if self.loop.batch % fabric.world_size:
            message = (
                f"a batch of {self.loop.batch} cannot be shared out to {fabric.world_size} "
                "processes: choose a multiple"
            )
            raise InputError(message)
        folder.mkdir(parents=True, exist_ok=True)
        _keep_settings(folder, experiment.settings, fabric)
        torch.manual_seed(config.seed)
        network = _channels_last_network(experiment.build_network())
        if fabric.world_size > 1:
            network = share_statistics(network)
        optimiser = _build_optimiser(experiment.parameters(network), experiment.optimiser)
        self.step = 0
        if (state := self._last_state()) is not None:
            network.load_state_dict(state["network"])
            optimiser.load_state_dict(state["optimiser"])
            if "precision" in state:
                fabric.strategy.precision.load_state_dict(state["precision"])
            self.step = state["step"]
        self.bare = network
        # two checkpoints with network and optimiser, and a third while it is written
        values = sum(p.numel() for p in network.parameters())
        moments = 1 if experiment.optimiser.name == "sgd" else 2
        check_writable(folder, 3 * 4 * (1 + moments) * values)
        wrapped, wrapped_optimiser = fabric.setup(network, optimiser)
        self.network, self.optimiser = wrapped, cast(torch.optim.Optimizer, wrapped_optimiser)
        self.log = _Log(folder, self.step, self.loop.tensorboard) if fabric.is_global_zero else None

    def _last_state(self) -> dict[str, Any] | None:
        """Return the last sound checkpoint; None to start from the beginning."""
        damaged: list[Path] = []
        for path in (self.folder / CHECKPOINT, self.folder / PREVIOUS):
            if not path.is_file():
                continue
            if (state := _sound_state(path)) is not None:
                self._tell(damaged, f"goes on from step {state['step']}")
                return state
            damaged.append(path)
        self._tell(damaged, "starts from the beginning")
        return None

    def _tell(self, damaged: list[Path], what: str) -> None:
        if damaged and self.fabric.is_global_zero:
            names = " and ".join(map(str, damaged))
            print(f"{names} damaged: the run {what}", file=sys.stderr)  # noqa: T201

    def finish(self, progress: Callable[[float], None]) -> nn.Module:
        """Go on to the last step."""
        try:
            with _stop_signals() as stop, self._bar() as bar:
                batches = self._batches()
                while self.step < self.loop.steps:
                    self._one_step(next(batches), bar)
                    progress(self.step / self.loop.steps)
                    if self._anyone(stop):
                        self._save()
                        message = f"stopped at step {self.step}; the next run goes on from there"
                        raise Cancelled(message)
        finally:
            if self.log is not None:
                self.log.close()
        return self.bare.eval()

    def _one_step(self, batch: dict[str, Tensor], bar: tqdm) -> None:
        started = time.perf_counter()
        rate = learning_rate(self.experiment.optimiser, self.step, self.loop.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.network.train()
        losses = self._backward(batch)
        if self.experiment.optimiser.clip > 0:
            self.fabric.clip_gradients(
                self.network, self.optimiser, max_norm=self.experiment.optimiser.clip
            )
        self.optimiser.step()
        self.step += 1
        bar.update(self.loop.batch)
        self._after_step(losses, rate, time.perf_counter() - started, bar)

    def _backward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        self.optimiser.zero_grad()
        # gradients are averaged below and not on the way, see average_gradients
        with self.fabric.no_backward_sync(cast(Any, self.network)):
            losses = self.experiment.losses(self.network, batch, self.step)
            self.fabric.backward(losses["total"])
        if self.fabric.world_size > 1:
            average_gradients(self.bare)
        return losses

    def _after_step(
        self, losses: dict[str, Tensor], rate: float, seconds: float, bar: tqdm
    ) -> None:
        last = self.step == self.loop.steps
        if last or self.step % self.loop.log_every == 0:
            names = sorted(losses)
            stacked = torch.stack([losses[name].detach().float() for name in names])
            means = cast(Tensor, self.fabric.all_reduce(stacked, reduce_op="mean")).tolist()
            entry = dict(zip(names, means, strict=True))
            if not math.isfinite(entry["total"]):
                message = (
                    f"the loss is {entry['total']} at step {self.step}: lower the rate; should "
                    "the prepared data be damaged, 'prepare' finds it and makes it again"
                )
                raise InputError(message)
            bar.set_postfix(loss=f"{entry['total']:.4f}")
            self._write("train", {**entry, "rate": rate, "seconds": seconds})
        if _is_due(self.step, self.loop.validate_every, last) and self.log is not None:
            self.bare.eval()
            self._write("validation", self.experiment.validate(self.bare, self.fabric.device))
        if _is_due(self.step, self.loop.pictures_every, last) and self.log is not None:
            self.bare.eval()
            self.log.pictures(self.step, self.experiment.pictures(self.bare, self.fabric.device))
        if _is_due(self.step, self.loop.checkpoint_every, last):
            self._save()

    def _batches(self) -> Iterator[dict[str, Tensor]]:
        """Yield this process' share of each step's samples, from the current step on."""
        share = self.loop.batch // self.fabric.world_size
        numbers = [
            [step * self.loop.batch + self.fabric.global_rank * share + n for n in range(share)]
            for step in range(self.step, self.loop.steps)
        ]
        workers = self.loop.workers
        loader: DataLoader = DataLoader(
            self.experiment.samples(),
            batch_sampler=numbers,
            num_workers=workers,
            multiprocessing_context="spawn" if workers else None,
        )
        for batch in loader:
            moved = {name: value.to(self.fabric.device) for name, value in batch.items()}
            yield {
                name: _channels_last(value) if value.dim() == 5 else value
                for name, value in moved.items()
            }

    def _save(self) -> None:
        if not self.fabric.is_global_zero:
            return
        state = {
            "step": self.step,
            "network": self.bare.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        # the scale of 16-bit gradients on a GPU
        if precision := self.fabric.strategy.precision.state_dict():
            state["precision"] = precision
        path = self.folder / CHECKPOINT
        with whole_file(path) as part:
            _write_state(state, part)
            if path.is_file():
                with whole_file(self.folder / PREVIOUS) as kept:
                    _link(path, kept)

    def _write(self, kind: str, figures: dict[str, float]) -> None:
        if self.log is not None and figures:
            self.log.write(kind, self.step, figures)

    def _anyone(self, stop: list[int]) -> bool:
        """Tell whether a signal reached any of the processes; all of them must leave together."""
        if self.fabric.world_size == 1:
            return bool(stop)
        flag = torch.tensor(float(bool(stop)), device=self.fabric.device)
        return bool(cast(Tensor, self.fabric.all_reduce(flag, reduce_op="sum")) > 0)

    def _bar(self) -> tqdm:
        return tqdm(
            total=self.loop.steps * self.loop.batch,
            initial=self.step * self.loop.batch,
            desc=self.experiment.name,
            unit="sample",
            disable=not self.fabric.is_global_zero,
            # a log file wants few lines
            mininterval=0.5 if sys.stderr.isatty() else 60.0,
            smoothing=0.05,
        )


class _Log:
    """Writes figures to a file of JSON lines and to TensorBoard."""

    def __init__(self, folder: Path, step: int, tensorboard: bool) -> None:
        self._path = folder / LOG
        # what a killed run logged after its last checkpoint will be logged again
        kept = [entry for entry in _read_log(self._path) if entry["step"] <= step]
        write_text("".join(json.dumps(entry) + "\n" for entry in kept), self._path)
        self._writer: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, kind: str, step: int, figures: dict[str, float]) -> None:
        append_text(json.dumps({"kind": kind, "step": step, **figures}) + "\n", self._path)
        if self._writer is not None:
            for name, value in figures.items():
                self._writer.add_scalar(f"{kind}/{name}", value, step)

    def pictures(self, step: int, pictures: dict[str, Tensor]) -> None:
        if self._writer is not None:
            for name, picture in pictures.items():
                self._writer.add_image(name, picture, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _write_state(state: dict[str, Any], part: Path) -> None:
    """Write the content of a checkpoint with its checksum."""
    # by an open file: the name of the file would stand in what is written
    with part.open("wb") as file:
        torch.save(state, file)
    seals.seal(part)


def _link(path: Path, other: Path) -> None:
    """Give a file a second name, or copy it where the disk knows no second names."""
    with contextlib.suppress(OSError):
        os.link(path, other)
        return
    shutil.copyfile(path, other)


def learning_rate(optimiser: OptimiserConfig, step: int, steps: int) -> float:
    """Return the rate of a step, counted from 0."""
    rate = optimiser.learning_rate
    if optimiser.warmup and step < optimiser.warmup:
        return rate * (step + 1) / optimiser.warmup
    if optimiser.schedule == "cosine":
        return rate * 0.5 * (1.0 + math.cos(math.pi * step / max(steps, 1)))
    return rate


def _channels_last(x: Any) -> Any:
    """Return a network or volumes with channels last, with which narrow layers are faster."""
    return x.to(memory_format=torch.channels_last_3d)


def _channels_last_network(network: nn.Module) -> nn.Module:
    """Return a network for volumes with channels last; one for slices as it is."""
    if any(p.dim() == 4 for p in network.parameters()):
        return network
    return cast(nn.Module, _channels_last(network))


def _build_optimiser(
    parameters: list[dict[str, Any]], config: OptimiserConfig
) -> torch.optim.Optimizer:
    if config.name == "sgd":
        return torch.optim.SGD(
            parameters,
            config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
    return torch.optim.AdamW(parameters, config.learning_rate, weight_decay=config.weight_decay)


def _keep_settings(folder: Path, settings: Any, fabric: Fabric) -> None:
    """Write the settings of a new run; refuse to go on with others."""
    if different := _difference(folder, settings):
        message = (
            f"{folder} holds a run with other settings ({different}): choose another --output, or "
            "remove that folder to start again"
        )
        raise InputError(message)
    if fabric.is_global_zero and not (folder / SETTINGS).is_file():
        write_text(json.dumps(to_plain(settings), indent=1) + "\n", folder / SETTINGS)


def _difference(folder: Path, settings: Any) -> str:
    """Name the settings of a run that differ from ``settings``; empty if none does."""
    path = folder / SETTINGS
    if not path.is_file():
        return ""
    before = _flat(build(dict[str, Any], read_yaml(path), str(path)))
    now = _flat(to_plain(settings))
    # a setting that is younger than the run had its default
    before = {**_flat(_defaults(settings)), **before}
    names = sorted(n for n in before.keys() | now.keys() if before.get(n) != now.get(n))
    return ", ".join(f"{n}: {before.get(n)} → {now.get(n)}" for n in names)


def _defaults(settings: Any) -> dict[str, Any]:
    kind: Any = type(settings)
    return to_plain(kind()) if dataclasses.is_dataclass(settings) else {}


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {prefix: values}
    result: dict[str, Any] = {}
    for key, value in values.items():
        result |= _flat(value, f"{prefix}.{key}" if prefix else key)
    return result


@dataclasses.dataclass(frozen=True)
class _LogEntry:
    """What each line of a log has, beside its figures."""

    kind: str
    step: int


def _read_log(path: Path) -> list[dict[str, Any]]:
    """Return the entries of a log; a last line that a kill cut off is dropped."""
    if not path.is_file():
        return []
    entries = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(InputError):
            entry = parse_json(line, str(path))
            build(_LogEntry, entry, str(path), others=True)
            entries.append(entry)
    return entries


def _is_due(step: int, every: int, last: bool) -> bool:
    return every > 0 and (last or step % every == 0)


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying in the middle of a step."""
    received: list[int] = []

    def note(number: int, _: Any) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
