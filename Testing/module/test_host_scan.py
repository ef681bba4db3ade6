"""The scan of a module's source against the API file; needs neither Qt nor MRML."""

from __future__ import annotations

from pathlib import Path

import pytest

from Testing.host import scan

DEMO = Path(__file__).parents[1] / "host" / "demo" / "Demo.py"
DEMO_UI = DEMO.parent / "Resources" / "UI" / "Demo.ui"


def test_scan_passes_the_demo():
    assert scan.source_refusals(DEMO, DEMO_UI) == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("slicer.loadVolume('x')", "slicer has no attribute 'loadVolume'"),
        ("slicer.util.loadVolum('x')", "slicer.util has no attribute 'loadVolum'"),
        ("slicer.util.loadVolume('x', name='y')", "takes no ['name']"),
        ("slicer.util.loadScene('x', {}, 3)", "takes 2 positional arguments, not 3"),
        ("slicer.app.layoutManagerr()", "slicer.app has no attribute 'layoutManagerr'"),
        ("b = qt.QPushButton()\nb.text()", "is a property, not a method"),
        ("b = qt.QPushButton()\nb.setText = 3", "cannot be set"),
        ("b = qt.QPushButton()\nb.txet", "qt.QPushButton has no attribute 'txet'"),
        ("b = qt.QPushButton()\nb.connect('klicked()', f)", "no signal 'klicked()'"),
        ("self.ui.slider.setMaximum(3)", "ctk.ctkSliderWidget has no attribute 'setMaximum'"),
        ("def f(b: qt.QLabel): b.txet", "qt.QLabel has no attribute 'txet'"),
        ("from slicer.parameterNodeWrapper import Nothing", "has no attribute 'Nothing'"),
        ("slicer.packaging.pip_ensure('x', ask=True)", "takes no ['ask']"),
    ],
)
def test_scan_refuses_what_the_application_refuses(line, reason):
    found = scan.refusals(scan.used_attributes(line, {"slider": "ctk.ctkSliderWidget"}))
    assert len(found) == 1
    assert reason in found[0]
