"""Files that carry their checksum: any flipped bit is found, and others read them as ever."""

import hashlib

import numpy as np
import pytest

from Training.learning import seals


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.npy"
    with path.open("wb") as file:
        np.save(file, np.arange(24).reshape(2, 3, 4))
    return path


def test_a_sealed_array_reads_as_before_and_tells_the_checksum_of_its_content(path):
    plain = path.read_bytes()
    assert not seals.is_sound(path)
    assert seals.sealed_length(path) is None
    assert seals.checksum(path) == hashlib.sha256(plain).hexdigest()
    seals.seal(path)
    assert seals.is_sound(path)
    assert seals.sealed_length(path) == len(plain)
    assert seals.checksum(path) == hashlib.sha256(plain).hexdigest()
    np.testing.assert_array_equal(np.load(path, mmap_mode="r"), np.arange(24).reshape(2, 3, 4))


def test_every_flipped_bit_and_every_cut_is_found(path):
    seals.seal(path)
    whole = path.read_bytes()
    for n in range(len(whole)):
        path.write_bytes(whole[:n] + bytes([whole[n] ^ 1 << n % 8]) + whole[n + 1 :])
        assert not seals.is_sound(path), n
    for n in (0, 7, 41, len(whole) - 40, len(whole) - 1):
        path.write_bytes(whole[:n])
        assert not seals.is_sound(path), n
    path.unlink()
    assert not seals.is_sound(path)
