"""Slices and masks as programs save them: read as they are meant, or named with the reason."""

import io
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from DRAMLesionLib.errors import InputError
from Testing.library.mutation import damaged, seeded
from Training.slices.pictures import read_grey, read_mask, read_slices

ROWS, COLUMNS = np.mgrid[:60, :80]
TRUTH = (ROWS - 30) ** 2 + (COLUMNS - 25) ** 2 < 15**2
GREY = ((ROWS * 3 + COLUMNS) % 256).astype(np.uint8)
WHITE = np.where(TRUTH, 255, 0).astype(np.uint8)


def _save(path, values, **how):
    Image.fromarray(values).save(path, **how)
    return path


def _rgba(colour, alpha):
    return np.dstack([np.broadcast_to(colour, (*TRUTH.shape, 3)).astype(np.uint8), alpha])


def _palette(colours):
    image = Image.fromarray(TRUTH.astype(np.uint8))
    image = image.convert("P")
    image.putpalette([value for colour in colours for value in colour])
    return image


@pytest.mark.parametrize(
    "values",
    [
        WHITE,
        TRUTH.astype(np.uint8),
        TRUTH,
        TRUTH.astype(np.uint16) * 65535,
        np.dstack([WHITE, WHITE, WHITE]),
        np.dstack([WHITE, 0 * WHITE, 0 * WHITE]),
        np.dstack([WHITE, 255 + 0 * WHITE]),
        _rgba(255, WHITE),
        _rgba(0, WHITE),
        _rgba((200, 30, 30), WHITE),
        np.dstack([WHITE, WHITE, WHITE, np.where(ROWS < 50, 255, 0).astype(np.uint8)]),
    ],
)
def test_one_truth_in_every_way_to_say_it(values, tmp_path):
    truth, note = read_mask(_save(tmp_path / "a.png", values))
    np.testing.assert_array_equal(truth, TRUTH)
    assert note == ""


def test_palettes_mean_their_colours(tmp_path):
    path = tmp_path / "a.png"
    _palette([[0, 0, 0], [128, 0, 0]]).save(path)
    np.testing.assert_array_equal(read_mask(path)[0], TRUTH)
    _palette([[255, 255, 255], [255, 255, 255]]).save(path, transparency=0)
    np.testing.assert_array_equal(read_mask(path)[0], TRUTH)
    _palette([[255, 255, 255], [0, 0, 0]]).save(path)
    with pytest.raises(InputError, match="as lesion: black has to be what is none"):
        read_mask(path)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "jpg"])
def test_a_soft_edge_is_parted_at_half_and_told(suffix, tmp_path):
    soft = ndimage.gaussian_filter(WHITE.astype(float), 0.8).astype(np.uint8)
    truth, note = read_mask(_save(tmp_path / f"a.{suffix}", soft))
    assert np.mean(truth == TRUTH) > 0.995
    assert "like a soft edge: lesion is where it is more than half white" in note
    red = np.dstack([soft, 0 * soft, 0 * soft])
    if suffix != "jpg":
        np.testing.assert_array_equal(read_mask(_save(tmp_path / f"a.{suffix}", red))[0], truth)
    truth, note = read_mask(_save(tmp_path / "b.png", _rgba(255, soft)))
    assert np.mean(truth == TRUTH) > 0.995
    assert "soft edge" in note


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (TRUTH + (ROWS > 20).astype(np.uint8), "has the values 0, 1, 2, like a map of several lab"),
        (255 - WHITE, "has 85 % of the picture as lesion: black has to be what is none"),
        (
            np.where(TRUTH, 255, 40).astype(np.uint8),
            "has the values 40 and 255: save it with black",
        ),
        (GREY, "different greys, like a picture"),
        (np.full_like(WHITE, 255), "has 100 % of the picture as lesion"),
        (np.dstack([WHITE, 255 - WHITE, 0 * WHITE]), "has 2 colours beside black, like a map of"),
        (_rgba(255, 0 * WHITE), "is wholly transparent"),
        (
            np.dstack([WHITE, WHITE, WHITE, np.where(ROWS < 50, 255, 90).astype(np.uint8)]),
            "mixes colours with half-transparent places",
        ),
    ],
)
def test_a_mask_that_could_mean_two_things_is_refused(values, says, tmp_path):
    with pytest.raises(InputError, match=rf"the mask a\.png .*{says}"):
        read_mask(_save(tmp_path / "a.png", values))


@pytest.mark.parametrize(
    "values",
    [
        GREY,
        np.dstack([GREY, GREY, GREY]),
        np.dstack([GREY, 255 + 0 * GREY]),
        GREY.astype(np.uint16) * 257,
    ],
)
def test_greys_of_eight_bits_are_read_however_they_are_stored(values, tmp_path):
    np.testing.assert_array_equal(read_grey(_save(tmp_path / "a.png", values)), GREY)
    read = read_grey(_save(tmp_path / "a.tiff", values))
    np.testing.assert_array_equal(read, GREY)


def test_a_jpeg_is_grey_to_within_its_noise(tmp_path):
    smooth = ndimage.gaussian_filter(GREY.astype(float), 2).astype(np.uint8)
    path = _save(tmp_path / "a.jpg", np.dstack([smooth] * 3), quality=95)
    assert np.abs(read_grey(path).astype(int) - smooth).mean() < 2


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (GREY.astype(np.uint16) * 16, "has greys of 16 bits, whose window is not known"),
        (np.dstack([GREY, GREY, 255 - GREY]), "has colours; greys are needed"),
        (_rgba(100, GREY), "is transparent in places"),
    ],
)
def test_pictures_that_are_no_slices_are_refused(values, says, tmp_path):
    with pytest.raises(InputError, match=rf"a\.png {says}"):
        read_grey(_save(tmp_path / "a.png", values))


def test_files_of_several_or_turned_pictures_are_refused(tmp_path):
    first, second = Image.fromarray(GREY), Image.fromarray(255 - GREY)
    first.save(tmp_path / "a.tif", save_all=True, append_images=[second])
    with pytest.raises(InputError, match=r"a\.tif holds 2 pictures: save the one slice alone"):
        read_grey(tmp_path / "a.tif")
    exif = Image.Exif()
    exif[0x0112] = 6
    first.save(tmp_path / "a.jpg", exif=exif)
    with pytest.raises(InputError, match=r"a\.jpg is stored turned \(EXIF\)"):
        read_grey(tmp_path / "a.jpg")
    Image.fromarray(GREY.astype(np.float32)).save(tmp_path / "b.tif")
    with pytest.raises(InputError, match=r"b\.tif has neither 8-bit greys nor colours"):
        read_grey(tmp_path / "b.tif")


@pytest.fixture
def folders(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    return tmp_path / "images", tmp_path / "masks"


def test_slices_and_masks_meet_by_name_whatever_their_extension(folders):
    images, masks = folders
    composed, apart = (unicodedata.normalize(form, "ü") for form in ("NFC", "NFD"))
    names = {"a.png": "a.png", "b.jpg": "b.png", "c.PNG": "c.bmp", "d.jpeg": "d.tif"}
    names |= {"e.TIFF": "e.Png", f"{apart}.bmp": f"{composed}.png"}
    for picture, mask in names.items():
        _save(images / picture, GREY)
        _save(masks / mask, WHITE)
    notes = []
    found = read_slices(images, masks, notes.append)
    assert notes == []
    assert [one.name for one in found] == ["a", "b", "c", "d", "e", composed]
    assert all((one.truth == TRUTH).all() for one in found)


def test_what_is_left_out_is_told(folders):
    images, masks = folders
    _save(images / "a.png", GREY)
    _save(masks / "a.png", WHITE)
    _save(masks / "b.png", WHITE)
    for name in ("notes.txt", ".DS_Store", "c.dcm"):
        (images / name).touch()
    (images / "more.png").mkdir()
    notes = []
    assert len(read_slices(images, masks, notes.append)) == 1
    suffixes = ".png, .jpg, .jpeg, .bmp, .tif, .tiff"
    assert notes == [
        *(f"left out: {images / n} is none of {suffixes}" for n in ("c.dcm", "more.png")),
        f"left out: {images / 'notes.txt'} is none of {suffixes}",
        f"left out: the mask b.png has no picture in {images}",
    ]


def test_everything_that_is_wrong_with_a_folder_is_named_at_once(folders):
    images, masks = folders
    for name in ("a.png", "a.bmp", "b.png", "c.png"):
        _save(images / name, GREY)
    _save(masks / "a.png", WHITE)
    _save(masks / "c.png", WHITE[:50])
    with pytest.raises(InputError, match="2 of 3 slices cannot be used") as refused:
        read_slices(images, masks)
    for text in (
        f"{images} has both a.bmp and a.png: keep one",
        f"b.png has no mask: {masks / 'b'}.png is missing",
        "c.png: picture (80 x 60) and mask (80 x 50) differ in size",
    ):
        assert text in str(refused.value)
    for path in images.iterdir():
        path.unlink()
    with pytest.raises(InputError, match="there is no picture in"):
        read_slices(images, masks)
    with pytest.raises(InputError, match="is no folder"):
        read_slices(images / "none", masks)


@pytest.mark.parametrize("kind", ["png", "jpeg", "bmp", "tiff"])
def test_any_damaged_picture_is_read_or_refused(kind, tmp_path):
    data = io.BytesIO()
    Image.fromarray(WHITE).save(data, kind)
    random, refused = seeded(5), 0
    path = Path(tmp_path / f"a.{kind}")
    for _ in range(150):
        path.write_bytes(damaged(data.getvalue(), random))
        for read in (read_grey, read_mask):
            try:
                assert len(read(path)) > 0
            except InputError:
                refused += 1
    assert refused > 20


def test_a_bit_of_a_mask_that_has_flipped_is_found(tmp_path):
    path = tmp_path / "mask.png"
    values = np.zeros((40, 48), dtype=np.uint8)
    values[10:20, 10:30] = 255
    Image.fromarray(values).save(path)
    sound = path.read_bytes()
    assert read_mask(path)[0].sum() == 200
    refused = 0
    for place in range(8, len(sound)):
        content = bytearray(sound)
        content[place] ^= 16
        path.write_bytes(content)
        try:
            found, _ = read_mask(path)
        except InputError:
            refused += 1
            continue
        assert np.array_equal(found, values > 0), place
    assert refused > 0.8 * (len(sound) - 8)
