"""Scans on the workers of a Dask scheduler: paths and settings go there, rows come back.

Workers see the same folders. A process of theirs loads the networks once and does one scan at a
time. If one is lost, the scheduler gives its scan to another; a scan at which three of them have
ended is set aside. Each begun scan has a note in the folder of the results until it is done, so
that whoever gets it next knows how many have ended at it, whatever the scheduler's settings are.
"""

from __future__ import annotations

import shutil
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from DRAMLesionLib import writing
from DRAMLesionLib.batch.local import STRIKES, Do, Event
from DRAMLesionLib.batch.settings import Row, Scan, Settings, Tell
from DRAMLesionLib.batch.summary import failed_row
from DRAMLesionLib.errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    from distributed import Client, Future

_CONNECT_S = 60.0
_LOOK_S = 2.0
"""How often it is asked which workers there are."""

_GIVEN = 2 * STRIKES
"""So many times a scan is given to a scheduler that gives it up without having tried it."""

_one_at_a_time = threading.Lock()


class Cluster:
    """Does scans on the workers of a scheduler.

    Args:
        address: Of the scheduler.
        tell: Called with a line when there is no worker to be had.

    Raises:
        MissingDependencyError: If Dask is not installed.
    """

    def __init__(self, address: str, tell: Tell = lambda _: None) -> None:
        try:
            import distributed  # noqa: F401
        except ImportError as error:
            message = (
                "--scheduler needs Dask, which is not installed: python -m pip install "
                '"dramlesion[cluster]"'
            )
            raise MissingDependencyError(message) from error
        self._address, self._tell = address, tell

    def __call__(
        self, scans: Sequence[Scan], settings: Settings, do: Do
    ) -> Generator[Event, None, None]:
        """Yield each scan when it is given away, and with its row when it is done, in any order.

        Raises:
            InputError: If no scheduler answers, or it is lost on the way.
        """
        notes = writing.temporary_folder(settings.output)
        client = _connected(self._address)
        try:
            work = _Work(client, self._address, notes, scans, settings, do, self._tell)
            yield from work.events()
        finally:
            client.close()
            shutil.rmtree(notes, ignore_errors=True)


@dataclass
class _Work:
    """The scans that are still to be given away, and those that are."""

    client: Client
    address: str
    notes: Path
    scans: Sequence[Scan]
    settings: Settings
    do: Do
    tell: Tell
    lonely: bool = False
    given: Counter[str] = field(default_factory=Counter)
    running: dict[Future, Scan] = field(default_factory=dict)

    def events(self) -> Generator[Event, None, None]:
        waiting = deque(self.scans)
        try:
            while waiting or self.running:
                for _ in range(min(self._idle(), len(waiting))):
                    scan = waiting.popleft()
                    if not self.given[scan.title]:
                        yield scan, None
                    self._give(scan)
                for future in self._finished():
                    scan = self.running.pop(future)
                    row = self._row(scan, future)
                    if row is None:
                        waiting.appendleft(scan)
                    else:
                        yield scan, row
        finally:
            # what is begun is written whole, by workers that nobody waits for
            self.client.cancel(list(self.running))

    def _idle(self) -> int:
        """Return how many workers have nothing to do.

        A worker gets the next scan when it is done with one: what it had in a queue would count as
        lost with it.
        """
        from distributed.comm import CommClosedError

        try:
            workers = len(self.client.nthreads())
        except (OSError, CommClosedError, TimeoutError) as error:
            raise self._lost() from error
        if not workers and not self.lonely:
            self.tell(f"the scheduler at {self.address} has no worker: waiting for one")
        self.lonely = not workers
        return workers - len(self.running)

    def _give(self, scan: Scan) -> None:
        self.given[scan.title] += 1
        key = f"dramlesion-{uuid.uuid4().hex}"
        # what an ending worker process means is counted here, so exceptions are never tried again
        future = self.client.submit(
            _try_case, self.do, scan, self.settings, self.notes, key=key, pure=False, retries=0
        )
        self.running[future] = scan

    def _finished(self) -> list[Future]:
        """Wait a while for one or more scans to be done."""
        from distributed import wait

        if not self.running:
            time.sleep(_LOOK_S)
            return []
        try:
            with self.client.as_current():
                found = wait(list(self.running), timeout=_LOOK_S, return_when="FIRST_COMPLETED")
        except TimeoutError:
            return []
        return list(found.done)

    def _row(self, scan: Scan, future: Future) -> Row | None:
        """Return the row of a scan that the scheduler is done with; None if it is to be tried."""
        from distributed import KilledWorker

        if future.status == "finished":
            row: Row = future.result()
            return row
        if future.status != "error":
            raise self._lost()
        error: Any = future.exception()
        if isinstance(error, ImportError):
            message = (
                f"the workers of {self.address} cannot load DRAMLesion {self.settings.version} "
                f"({error}): install the same version there"
            )
            raise InputError(message)
        if isinstance(error, KilledWorker) and self.given[scan.title] < _GIVEN:
            return None
        if isinstance(error, KilledWorker):
            return failed_row(scan, _ended())
        return failed_row(scan, f"{type(error).__name__}: {error}")

    def _lost(self) -> InputError:
        message = (
            f"the Dask scheduler at {self.address} was lost; what is done is kept: start the "
            "batch again when it is back"
        )
        return InputError(message)


def _connected(address: str) -> Client:
    from distributed import Client

    try:
        return Client(address, timeout=_CONNECT_S, set_as_default=False, name="dramlesion-batch")
    except (OSError, ValueError) as error:
        message = (
            f"no Dask scheduler answers at {address}: check the address, which the scheduler "
            f"prints when it starts ({type(error).__name__})"
        )
        raise InputError(message) from error


def _try_case(do: Do, scan: Scan, settings: Settings, notes: Path) -> Row:
    """Do a scan on a worker, unless too many have ended at it."""
    name = f"{uuid.uuid5(uuid.NAMESPACE_URL, scan.title).hex}"
    with _one_at_a_time:
        if len(list(notes.glob(f"{name}-*"))) >= STRIKES:
            return failed_row(scan, _ended())
        note = notes / f"{name}-{uuid.uuid4().hex}"
        note.touch()
        try:
            return do(scan, settings)
        finally:
            note.unlink(missing_ok=True)


def _ended() -> str:
    return (
        f"the workers that worked on it were ended {STRIKES} times, most likely since the memory "
        "did not do: give them more memory and try it again"
    )
