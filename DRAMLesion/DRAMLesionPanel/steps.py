"""Long work in the window's own process, one step at a time, so that the window stays usable."""

from collections.abc import Callable, Generator
from typing import Any

import qt

PAUSE_MS = 5
"""Between two steps, for what the user does and what has to be drawn."""


class Steps:
    """Runs a generator to its end, one `next` in each turn of the event loop.

    onEnd is called once with None, or with the error that a step has raised; not after `stop`.
    """

    def __init__(self, work: Generator[Any, None, None], onEnd: Callable[[Exception | None], None]):
        self._work, self._onEnd = work, onEnd
        self.running = True
        self._timer = qt.QTimer()
        self._timer.setInterval(PAUSE_MS)
        self._timer.connect("timeout()", self._step)
        self._timer.start()

    def stop(self) -> None:
        """Take no more steps; the generator may clean up."""
        if self.running:
            self._halt()
            if not self._work.gi_running:  # not from within one of its own steps
                self._work.close()

    def _halt(self) -> None:
        self.running = False
        self._timer.stop()

    def _step(self) -> None:
        if not self.running:
            return
        self._timer.stop()  # a step that opens a message box must not be entered again
        try:
            next(self._work)
        except StopIteration:
            self._halt()
            self._onEnd(None)
        except Exception as error:
            self._halt()
            self._onEnd(error)
        else:
            if self.running:  # the step itself may have stopped it
                self._timer.start()
