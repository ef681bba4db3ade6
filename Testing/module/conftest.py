"""The stand-in for the application, where its packages are installed."""

from __future__ import annotations

from pathlib import Path

import pytest

DEMO = Path(__file__).parents[1] / "host" / "demo" / "Demo.py"


@pytest.fixture
def host():
    from Testing.host.host import Host

    with Host() as running:
        yield running


@pytest.fixture
def demo():
    from Testing.host.host import Host

    with Host(DEMO) as running:
        running.start_up()
        running.show()
        yield running
