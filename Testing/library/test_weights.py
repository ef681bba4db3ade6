import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from DRAMLesionLib import weights
from DRAMLesionLib.devices import pick_device
from DRAMLesionLib.errors import InputError, OutputError, WeightsError
from DRAMLesionLib.lesions.dram import CARD_SETTINGS, DRAMConfig
from DRAMLesionLib.lesions.segmentation import SegmentationConfig
from DRAMLesionLib.networks.unet import UNet3D
from DRAMLesionLib.vessels.masks import VesselSettings
from Testing.library.mutation import damaged, mutated, seeded

ARCHITECTURE = {"type": "UNet3D", "arguments": {"base_channels": 1, "out_channels": 3}}
WIDER = {"base_channels": 2, "out_channels": 3}


def _save(folder, architecture=ARCHITECTURE):
    network = UNet3D(base_channels=1, out_channels=3)
    weights.save_network(
        network,
        folder,
        "segmentation",
        architecture=architecture,
        date="2026-01-01",
        data=["nothing"],
        licence="Apache-2.0",
        config={"spacing": 1.5},
        metrics={},
    )
    return network


def test_what_is_saved_is_loaded_again_in_evaluation_mode(tmp_path):
    saved = _save(tmp_path)
    loaded, card = weights.load_network(tmp_path, "segmentation")
    assert not loaded.training
    assert card.config == {"spacing": 1.5}
    for a, b in zip(saved.state_dict().values(), loaded.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "segmentation.json",
        "segmentation.safetensors",
    ]


def test_missing_weights_name_the_folder_and_the_way_out(tmp_path):
    with pytest.raises(WeightsError, match=r"segmentation\.json is missing; choose a folder"):
        weights.load_network(tmp_path, "segmentation")
    _save(tmp_path)
    (tmp_path / "segmentation.safetensors").unlink()
    with pytest.raises(WeightsError, match="its card is there: copy the whole folder"):
        weights.load_network(tmp_path, "segmentation")


def test_a_changed_file_is_refused(tmp_path):
    _save(tmp_path)
    path = tmp_path / "segmentation.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="SHA-256 differs"):
        weights.load_network(tmp_path, "segmentation")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"architecture": {"type": "Transformer"}}, "unknown network type 'Transformer'"),
        ({"architecture": {"type": "UNet3D", "arguments": {"depth": 9}}}, "do not fit"),
        (
            {"architecture": {"type": "UNet3D", "arguments": WIDER}},
            "does not fit the network of its card: 71 tensors differ",
        ),
        (
            {"architecture": {"type": "UNet3D", "arguments": {"base_channels": 10**9}}},
            r"base_channels is 1000000000; wanted: a whole number, at least 1 and at most 512",
        ),
        (
            {"architecture": {"type": "UNet3D", "arguments": {"base_channels": True}}},
            "base_channels is true; wanted: a whole number",
        ),
        (
            {"architecture": {"type": "UNet3D", "arguments": {"base_channels": 1}}},
            "the segmentation network is a UNet3D from 1 channel to 3, not a UNet3D from 1 to 1",
        ),
        ({"architecture": {"type": ["UNet3D"]}}, "unknown network type"),
        ({"name": "vessels"}, "is a card of the vessels network"),
        ({"sha256": None}, "sha256 is null; wanted: a text"),
        ({"data": "phantoms"}, "data is 'phantoms'; wanted: a list, each item a text"),
        ({"format": 99}, "has format 99"),
        ({"colour": "red"}, "is not a card"),
    ],
)
def test_a_card_that_does_not_fit_says_why(tmp_path, change, says):
    _save(tmp_path)
    card = tmp_path / "segmentation.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | change))
    with pytest.raises(WeightsError, match=says):
        weights.load_network(tmp_path, "segmentation")


@pytest.mark.parametrize(
    "text", ["weights!", "[]", "null", "{}", "[" * 10**5, '{"name": 1, "name": 2}', "\udcff"]
)
def test_a_card_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "segmentation.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(WeightsError, match="is not a card"):
        weights.read_card(tmp_path, "segmentation")


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"spacing": None}, "config: spacing is null; wanted: a number, at least 0.1"),
        ({"spacing": "1.5"}, "config: spacing is '1.5'; wanted: a number"),
        ({"spacing": -1.5}, "spacing is -1.5"),
        ({"spacing": 1.5, "tile": 12}, "tile is 12; wanted: a whole number, at least 8 and a mult"),
        ({"spacing": 1.5, "colour": 1}, "there is no field 'colour' here; known: spacing, tile"),
        ({}, "lacks the field 'spacing'"),
    ],
)
def test_settings_of_a_card_are_checked_and_name_the_file(tmp_path, config, says):
    _save(tmp_path)
    path = tmp_path / "segmentation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"config": config}))
    card = weights.read_card(tmp_path, "segmentation")
    with pytest.raises(WeightsError, match=says) as refused:
        weights.settings(tmp_path, card, SegmentationConfig, ("spacing",))
    assert str(refused.value).startswith(str(path))


def _with_header(path, change):
    """Rewrite the header of a safetensors file, and the sum in its card."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])
    _with_sum(path)


def test_the_table_of_a_file_is_compared_before_any_tensor_is_read(tmp_path, monkeypatch):
    _save(tmp_path)
    monkeypatch.setattr(weights, "load_file", lambda _: pytest.fail("tensors were read"))
    path = tmp_path / "segmentation.safetensors"

    def claim(header):
        header["head.weight"]["shape"] = [10**6, 10**6, 10**6]

    _with_header(path, claim)
    with pytest.raises(
        WeightsError, match=r"such as head\.weight: 1000000x1000000x1000000 \(torch"
    ):
        weights.load_network(tmp_path, "segmentation")
    _with_header(path, lambda header: header["head.weight"].update(shape="large"))
    with pytest.raises(WeightsError, match=r"head\.weight\.shape is 'large'; wanted: a list"):
        weights.load_network(tmp_path, "segmentation")
    path.write_bytes(b"\xff" * 64)
    _with_sum(path)
    with pytest.raises(WeightsError, match="is damaged: its header claims"):
        weights.load_network(tmp_path, "segmentation")


def _with_sum(path):
    card = path.with_suffix(".json")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    card.write_text(json.dumps(json.loads(card.read_text()) | {"sha256": digest}))


def test_a_card_of_before_there_was_a_choice_means_what_it_meant(tmp_path):
    card = weights.read_card(weights.BUNDLED, "regression")
    known = {name: card.config[name] for name in CARD_SETTINGS}
    crf = {name: known["crf"][name] for name in known["crf"] if name != "reference_size"}
    old = replace(card, config={**known, "crf": crf})
    found = weights.settings(tmp_path, old, DRAMConfig, CARD_SETTINGS)
    assert (found.gain, found.least_level, found.refined_by) == (12.0, 0.25, "crf")
    final = weights.read_card(weights.BUNDLED, "segmentation")
    old = replace(final, config={"spacing": 1.5})
    assert weights.settings(tmp_path, old, SegmentationConfig, ("spacing",)).level == 0.0


@pytest.mark.parametrize("name", ["regression", "segmentation", "vessels"])
def test_damaged_cards_are_refused_or_work_and_never_end_in_a_traceback(name, tmp_path):
    kind, needed = {
        "regression": (DRAMConfig, CARD_SETTINGS),
        "segmentation": (SegmentationConfig, ("spacing",)),
        "vessels": (VesselSettings, ()),
    }[name]
    for file in weights.BUNDLED.glob(f"{name}.*"):
        shutil.copy(file, tmp_path)
    path = tmp_path / f"{name}.json"
    original = json.loads(path.read_text())
    told, random = [], seeded(0)
    for _ in range(120):
        path.write_text(json.dumps(mutated(original, random)))
        try:
            network, card = weights.load_network(tmp_path, name)
            weights.settings(tmp_path, card, kind, needed)
        except WeightsError as error:
            told.append(str(error))
        else:
            # what was taken is what a sound card says, but for its descriptions
            assert card.sha256 == original["sha256"]
            assert sum(p.numel() for p in network.parameters()) > 1000
    assert len(told) > 60
    assert all(str(tmp_path) in message for message in told)


def test_random_bytes_in_a_card_are_refused_or_work(tmp_path):
    for file in weights.BUNDLED.glob("vessels.*"):
        shutil.copy(file, tmp_path)
    path = tmp_path / "vessels.json"
    original, random = path.read_bytes(), seeded(1)
    refused = 0
    for _ in range(200):
        path.write_bytes(damaged(original, random))
        try:
            card = weights.read_card(tmp_path, "vessels")
            weights.settings(tmp_path, card, VesselSettings)
        except WeightsError:
            refused += 1
    assert refused > 60


def test_saving_with_a_wrong_architecture_leaves_the_old_weights(tmp_path):
    _save(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    wrong = {"type": "UNet3D", "arguments": {"base_channels": 3, "out_channels": 3}}
    with pytest.raises(WeightsError, match="does not fit its tensors"):
        _save(tmp_path, wrong)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_full_disk_leaves_the_old_weights(tmp_path, monkeypatch):
    _save(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    replace = Path.replace

    def fail_at_the_card(path, target):
        if path.name == target.name == "segmentation.json":
            raise OSError(28, "No space left on device")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", fail_at_the_card)
    with pytest.raises(OutputError, match="the disk is full"):
        _save(tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_the_card_is_the_first_to_go_and_the_last_to_come(tmp_path, monkeypatch):
    _save(tmp_path)
    steps = []
    replace = Path.replace

    def noted(path, target):
        steps.append(path.name if path.name == target.name else f"old {path.name}")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", noted)
    _save(tmp_path)
    assert steps == [
        "old segmentation.json",
        "old segmentation.safetensors",
        "segmentation.safetensors",
        "segmentation.json",
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(steps[2:])


def test_the_bundled_weights_load():
    for name in ("regression", "segmentation"):
        network, card = weights.load_network(weights.BUNDLED, name)
        assert card.data
        assert card.licence
        assert sum(p.numel() for p in network.parameters()) > 1000


def test_the_cards_folder_can_be_copied_elsewhere(tmp_path):
    _save(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "mit Leerzeichen ü")
    weights.load_network(tmp_path / "mit Leerzeichen ü", "segmentation")


def test_devices():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(InputError, match="'tpu' is not available on this computer; available"):
        pick_device("tpu")
