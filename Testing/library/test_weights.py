import json
import shutil

import pytest
import torch

from DRAMLesionLib import weights
from DRAMLesionLib.devices import pick_device
from DRAMLesionLib.errors import InputError, WeightsError
from DRAMLesionLib.networks.unet import UNet3D

ARCHITECTURE = {"type": "UNet3D", "arguments": {"base_channels": 1, "out_channels": 3}}


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
            {"architecture": {"type": "UNet3D", "arguments": {"base_channels": 2}}},
            "does not fit the network of its card",
        ),
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


def test_a_card_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "segmentation.json").write_text("weights!")
    with pytest.raises(WeightsError, match="is not a card"):
        weights.read_card(tmp_path, "segmentation")


def test_saving_with_a_wrong_architecture_leaves_the_old_weights(tmp_path):
    _save(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    wrong = {"type": "UNet3D", "arguments": {"base_channels": 3, "out_channels": 3}}
    with pytest.raises(WeightsError, match="does not fit its tensors"):
        _save(tmp_path, wrong)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


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
