"""Two CTs of the scene compared from the panel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from Testing.host import missing

if missing():
    pytest.skip(str(missing()), allow_module_level=True)

from DRAMLesionLib.followup.timepoint import from_results
from DRAMLesionLib.reading.files import read_ct
from Testing.module.cases import add_volume
from Testing.module.driving import alive, fake_library, temporary_folders

FILES = {
    "comparison.html": "<p>page",
    "comparison.json": "{}",
    "lobes.csv": "a",
    "lesions.csv": "b",
}


@pytest.fixture
def two(finished, run):
    """The panel with two CTs chosen; the earlier one has a result."""
    module, widget, result = finished
    noisy = sitk.GetArrayFromImage(run.ct) + np.int16(3)
    image = sitk.GetImageFromArray(noisy)
    image.CopyInformation(run.ct)
    later = add_volume(image, "later")
    panel = widget.comparison
    panel.section.collapsed = False
    panel.earlierSelector.setCurrentNode(result.ct)
    panel.laterSelector.setCurrentNode(later)
    return module, panel, result


def library_that_compares(tmp_path):
    """A program that keeps what it was given in ``tmp_path/given``, and writes a comparison."""
    body = f"""
child.kill()
import shutil
words = sys.argv[sys.argv.index("compare"):]
out = words[words.index("-o") + 1]
shutil.copytree(os.path.dirname(out), {str(tmp_path / "given")!r})
with open({str(tmp_path / "words")!r}, "w") as file:
    file.write("\\n".join(words))
print(json.dumps({{"stage": "compare", "fraction": 0.5}}), flush=True)
os.mkdir(out)
for name, text in {FILES!r}.items():
    with open(os.path.join(out, name), "w") as file:
        file.write(text)
"""
    return fake_library(tmp_path, body)


def compare(module, panel):
    panel.compareButton.click()
    module.wait_for(lambda: not panel.running, "the comparison", 60)


def test_what_is_missing_is_said(finished):
    _module, widget, result = finished
    panel = widget.comparison
    assert not panel.compareButton.enabled
    assert panel.compareButton.toolTip == "Choose the earlier and the later CT."
    for selector in panel.selectors:
        selector.setCurrentNode(result.ct)
    assert panel.compareButton.toolTip == "Choose two different CTs."
    assert not panel.openButton.enabled


def test_a_result_goes_along_and_a_ct_without_one_alone(two, run, tmp_path):
    module, panel, result = two
    library_that_compares(tmp_path)
    compare(module, panel)
    words = (tmp_path / "words").read_text().splitlines()
    assert [Path(word).name for word in words[1:3]] == ["earlier", "later.nrrd"]
    assert Path(words[words.index("--earlier-ct") + 1]).name == "earlier.nrrd"
    assert "--later-ct" not in words
    ct, _ = read_ct(tmp_path / "given" / "earlier.nrrd")
    given = from_results(tmp_path / "given" / "earlier", ct)
    assert given.warnings == ()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(given.lesions), run.array("lesions"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(given.lobes), result.lobes())
    assert temporary_folders() == []


def test_the_page_is_offered_until_other_cts_are_chosen(two, tmp_path, monkeypatch):
    import qt

    module, panel, result = two
    library_that_compares(tmp_path)
    compare(module, panel)
    assert panel.statusLabel.text == "The comparison is there."
    target = tmp_path / "saved"
    target.mkdir()
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *_: str(target))
    panel.saveButton.click()
    assert {path.name: path.read_text() for path in target.iterdir()} == FILES
    panel.laterSelector.setCurrentNode(result.ct)
    assert not panel.openButton.enabled
    assert panel.statusLabel.text == ""


def test_a_refusal_is_shown_in_the_librarys_words(two, tmp_path):
    module, panel, _result = two
    line = "dramlesion: the two are not of one person"
    fake_library(tmp_path, f"child.kill()\nsys.stderr.write({line!r})\nsys.exit(1)")
    compare(module, panel)
    assert panel.statusLabel.text == "The CTs were not compared: the two are not of one person"
    assert not panel.saveButton.enabled
    assert temporary_folders() == []


def test_cancelling_leaves_nothing(two, tmp_path):
    module, panel, _result = two
    pids = fake_library(tmp_path, "time.sleep(60)")
    panel.compareButton.click()
    module.wait_for(pids.exists, "the process", 60)
    assert panel.compareButton.text == "Cancel the comparison"
    panel.compareButton.click()
    module.wait_for(lambda: not panel.running, "the end", 60)
    assert panel.statusLabel.text == "Cancelled."
    assert temporary_folders() == []
    module.wait_for(lambda: not any(map(alive, map(int, pids.read_text().split()))), "both", 20)


def test_closing_the_scene_ends_it(two, tmp_path):
    import slicer

    module, panel, _result = two
    pids = fake_library(tmp_path, "time.sleep(60)")
    panel.compareButton.click()
    module.wait_for(pids.exists, "the process", 60)
    slicer.mrmlScene.Clear(False)
    assert not panel.running
    assert temporary_folders() == []
