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


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A turned phantom, and what the command line made of it."""
    from Testing.module.cases import finished_run

    return finished_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def module():
    """The application with DRAMLesion open."""
    from Testing.host.host import Host
    from Testing.module.cases import MODULE

    with Host(MODULE) as running:
        running.start_up()
        running.show((560, 1250))
        yield running


@pytest.fixture
def finished(module, run):
    """The module with a result of the turned phantom in the scene."""
    from Testing.module.cases import add_result, add_volume
    from Testing.module.driving import choose

    ct = add_volume(run.ct)
    result = add_result(run, ct)
    widget = module.module.widget()
    choose(widget, ct, run)
    widget._onParameters()
    return module, widget, result
