import sys
import types

import numpy as np
import pytest
import SimpleITK as sitk

from DRAMLesionLib.errors import InputError, MissingDependencyError
from DRAMLesionLib.lobes import Lobe, providers
from DRAMLesionLib.lobes.providers import provide_lobes


@pytest.fixture
def ct():
    return sitk.Image(10, 10, 10, sitk.sitkInt16) - 800


def _blocks(values):
    """Two lungs side by side with one block for each label, placed as in a patient (k, j, i)."""
    lul, lll, rul, rml, rll = values
    labels = np.zeros((10, 10, 10), dtype=np.uint8)
    labels[5:, :, 6:] = lul
    labels[:5, :, 6:] = lll
    labels[6:, :, :4] = rul
    labels[3:6, :5, :4] = rml
    labels[:3, :, :4] = rll
    return labels


EXPECTED = _blocks([Lobe.LUL, Lobe.LLL, Lobe.RUL, Lobe.RML, Lobe.RLL])


def _install(monkeypatch, name, **parts):
    for path, content in parts.items():
        full = name if path == "root" else f"{name}.{path}"
        module = types.ModuleType(full)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, full, module)
    monkeypatch.setattr(providers.importlib.util, "find_spec", lambda _: object())


def test_totalsegmentator_is_asked_for_the_five_lobes(ct, monkeypatch):
    asked = {}

    def run(source, result, **options):
        asked.update(options)
        image = sitk.GetImageFromArray(_blocks([10, 11, 12, 13, 14]))
        image.CopyInformation(sitk.ReadImage(str(source)))
        sitk.WriteImage(image, str(result))

    _install(monkeypatch, "totalsegmentator", root={}, python_api={"totalsegmentator": run})
    seen = []
    found = provide_lobes(ct, "totalsegmentator", seen.append)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found.lobes), EXPECTED)
    assert asked["ml"] is True
    assert len(asked["roi_subset"]) == 5
    assert found.confidence == {}
    assert seen == [0.0, 1.0]


def test_lungmask_is_asked_for_lobes(ct, monkeypatch):
    class Inferer:
        def __init__(self, modelname, **_):
            assert modelname == "LTRCLobes_R231"

        def apply(self, image):
            return _blocks([1, 2, 3, 4, 5])

    _install(monkeypatch, "lungmask", root={"LMInferer": Inferer})
    found = provide_lobes(ct, "lungmask")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found.lobes), EXPECTED)


def test_a_tool_that_fails_is_named(ct, monkeypatch):
    def run(*_, **__):
        message = "no weights"
        raise RuntimeError(message)

    _install(monkeypatch, "totalsegmentator", root={}, python_api={"totalsegmentator": run})
    with pytest.raises(InputError, match="totalsegmentator could not find the lobes: no weights"):
        provide_lobes(ct, "totalsegmentator")


def test_a_tool_that_is_not_installed_says_how_to_get_it(ct, monkeypatch):
    monkeypatch.setattr(providers.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match="pip install lungmask"):
        provide_lobes(ct, "lungmask")


def test_an_unknown_provider_is_refused(ct):
    with pytest.raises(InputError, match="unknown lobe provider 'magic'"):
        provide_lobes(ct, "magic")
