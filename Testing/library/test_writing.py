"""What is written is whole or not there, whatever happens in between."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from PIL import Image
from safetensors.torch import save_file

from DRAMLesionLib import writing
from DRAMLesionLib.errors import InputError, OutputError
from DRAMLesionLib.integrity import damage

ROOT = Path(__file__).resolve().parents[2]
MARKER = "report.json"

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and limits of POSIX")


@pytest.fixture
def image():
    values = np.random.default_rng(0).integers(-1000, 1000, (12, 20, 20)).astype(np.int16)
    return sitk.GetImageFromArray(values)


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_results(folder, text, more=()):
    with writing.whole_results(folder, MARKER, ["map.txt"]) as part:
        for name in ("a.txt", "b.txt", *more):
            writing.write_text(text, part / name)
        writing.write_json({"text": text}, part / MARKER)


def write_folder(folder, text):
    with writing.whole_folder(folder, MARKER) as part:
        writing.write_text(text, part / "deep" / "a.txt")
        writing.write_json({"text": text}, part / MARKER)


@contextmanager
def child(code, *words):
    """Run code in a process of its own that says 'ready' when it is."""
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", code, *map(str, words)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


class TestImages:
    @pytest.mark.parametrize("suffix", ["nii.gz", "nii", "nrrd", "seg.nrrd", "mha", "NII.GZ"])
    def test_are_whole_compressed_and_alone(self, tmp_path, image, suffix):
        path = tmp_path / "deep ü" / f"a b.{suffix}"
        writing.write_image(image, path)
        writing.write_image(image, path)
        assert names(path.parent) == [f"a b.{suffix}"]
        read = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        np.testing.assert_array_equal(read, sitk.GetArrayFromImage(image))

    @pytest.mark.parametrize(
        ("name", "says"),
        [("a.xyz", "unknown kind of image"), ("a.mhd", "second file"), ("a.nhdr", "second file")],
    )
    def test_other_suffixes_are_refused(self, tmp_path, image, name, says):
        with pytest.raises(InputError, match=rf"{says}.*; use one of .nii.gz, .nii, .seg.nrrd"):
            writing.write_image(image, tmp_path / name)
        with pytest.raises(InputError, match=says):
            writing.check_image_writable(tmp_path / name)
        assert names(tmp_path) == []

    @pytest.mark.parametrize("raised", [RuntimeError("no"), None])
    def test_a_failed_write_leaves_what_was_there(self, tmp_path, image, monkeypatch, raised):
        """ITK says nothing when a NIfTI file does not get onto the disk as a whole."""
        path = tmp_path / "a.nii.gz"
        writing.write_image(image, path)
        before = path.read_bytes()
        write = sitk.WriteImage

        def half(image, name, **options):
            write(image, name, **options)
            os.truncate(name, 2000)
            if raised:
                raise raised

        monkeypatch.setattr(sitk, "WriteImage", half)
        with pytest.raises(OutputError, match=r"cannot write to .*a\.nii\.gz: "):
            writing.write_image(image, path)
        assert names(tmp_path) == ["a.nii.gz"]
        assert path.read_bytes() == before

    def test_an_interruption_leaves_what_was_there(self, tmp_path, image, monkeypatch):
        def interrupt(_image, name, **_options):
            Path(name).write_bytes(b"half")
            raise KeyboardInterrupt

        monkeypatch.setattr(sitk, "WriteImage", interrupt)
        with pytest.raises(KeyboardInterrupt):
            writing.write_image(image, tmp_path / "a.nii.gz")
        assert names(tmp_path) == []

    def test_lack_of_memory_is_told_as_such(self, tmp_path, image, monkeypatch):
        def fail(*_, **__):
            message = "Exception: Failed to allocate memory for image."
            raise RuntimeError(message)

        monkeypatch.setattr(sitk, "WriteImage", fail)
        with pytest.raises(MemoryError):
            writing.write_image(image, tmp_path / "a.nii.gz")

    @posix
    @pytest.mark.parametrize("suffix", ["nii.gz", "nii", "nrrd", "mha"])
    def test_a_full_disk(self, tmp_path, suffix):
        """A limit on the size of files cuts them as a full disk does."""
        code = (
            "import resource, sys, SimpleITK as sitk, numpy as np\n"
            "from DRAMLesionLib import writing, errors\n"
            "values = np.random.default_rng(0).integers(0, 9999, (20, 40, 40)).astype(np.int16)\n"
            "image = sitk.GetImageFromArray(values)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
            "try:\n    writing.write_image(image, sys.argv[1])\n"
            "except errors.OutputError as error:\n    print(error)\n"
        )
        path = tmp_path / f"a.{suffix}"
        out = subprocess.run(  # noqa: S603
            [sys.executable, "-c", code, str(path)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert out.stdout.startswith(f"cannot write to {path}: ")
        assert names(tmp_path) == []


class TestFiles:
    def test_text_and_json(self, tmp_path):
        writing.write_text("Größe\n", tmp_path / "x" / "a.csv")
        assert (tmp_path / "x" / "a.csv").read_bytes() == "Größe\n".encode()
        writing.write_json({"b": [1, 2.5], "a": "é"}, tmp_path / "a.json")
        assert (tmp_path / "a.json").read_text(encoding="utf-8") == (
            '{\n  "b": [\n    1,\n    2.5\n  ],\n  "a": "é"\n}\n'
        )
        with pytest.raises(ValueError, match="JSON"):
            writing.write_json({"a": float("nan")}, tmp_path / "a.json")
        assert names(tmp_path) == ["a.json", "x/a.csv"]

    @pytest.mark.parametrize(
        ("number", "says"),
        [
            (errno.ENOSPC, "the disk is full; make room"),
            (errno.EDQUOT, "the disk quota is used up"),
            (errno.EROFS, "the disk is read-only; choose another place"),
            (errno.EACCES, "you lack the permission"),
            (errno.EIO, "the disk does not work"),
        ],
    )
    def test_what_the_system_says_becomes_one_clear_line(self, tmp_path, monkeypatch, number, says):
        writing.write_text("before", tmp_path / "a.txt")

        def fail(_descriptor):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OutputError, match=rf"^cannot write to .*a\.txt: {says}[^\n]*$"):
            writing.write_text("after", tmp_path / "a.txt")
        assert (tmp_path / "a.txt").read_text() == "before"
        assert names(tmp_path) == ["a.txt"]

    @pytest.mark.parametrize(
        ("name", "says"),
        [
            ("taken/x.txt", "a file stands where a folder should be"),
            ("folder", "a folder stands where a file should be"),
            (f"{'n' * 300}.txt", "the path is too long"),
            ("/".join(["n" * 200] * 30), "the path is too long"),
        ],
    )
    def test_places_where_no_file_can_be(self, tmp_path, name, says):
        (tmp_path / "taken").touch()
        (tmp_path / "folder").mkdir()
        with pytest.raises(OutputError, match=says):
            writing.write_text("x", tmp_path / name)
        with pytest.raises(OutputError, match=says):
            writing.check_writable(tmp_path / name, is_file=True)
        assert names(tmp_path) == ["taken"]

    def test_an_error_about_another_file_is_not_called_one_of_writing(self, tmp_path):
        with pytest.raises(FileNotFoundError), writing.whole_file(tmp_path / "out" / "a") as part:
            part.write_bytes((tmp_path / "in").read_bytes())

    def test_names_that_are_no_text_never_reach_the_writers(self, tmp_path):
        with pytest.raises(InputError, match="no UTF-8 text"):
            writing.write_text("x", tmp_path / os.fsdecode(b"\xff.txt"))


class TestResults:
    def test_all_of_them_in_place_of_all_earlier_ones(self, tmp_path):
        (tmp_path / "mine.txt").write_text("keep")
        write_results(tmp_path, "one", ["map.txt"])
        assert names(tmp_path) == ["a.txt", "b.txt", "map.txt", "mine.txt", MARKER]
        write_results(tmp_path, "two")
        assert names(tmp_path) == ["a.txt", "b.txt", "mine.txt", MARKER]
        assert (tmp_path / "b.txt").read_text() == "two"

    def test_a_failure_at_any_step_brings_back_the_earlier_ones(self, tmp_path, monkeypatch):
        """Each rename and each flush fails once."""
        write_results(tmp_path, "one", ["map.txt"])
        before = content(tmp_path)
        steps = []
        replace, fsync = Path.replace, os.fsync

        def counted(function):
            def step(*given):
                steps.append(function)
                if len(steps) == failing:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return function(*given)

            return step

        for failing in range(1, 100):
            steps.clear()
            with monkeypatch.context() as patched:
                patched.setattr(Path, "replace", counted(replace))
                patched.setattr(os, "fsync", counted(fsync))
                with suppress(OutputError):
                    write_results(tmp_path, "two")
            if len(steps) < failing:
                break
            if (tmp_path / "map.txt").exists():
                assert content(tmp_path) == before
            else:  # only a flush of names failed
                write_results(tmp_path, "one", ["map.txt"])
        assert steps.count(replace) == 7  # four away, three to their places
        assert failing > steps.count(replace)

    @posix
    def test_killed_between_any_two_steps(self, tmp_path):
        """Where the marker is, everything beside it belongs to it; a next run cleans."""
        code = (
            "import os, signal, sys\n"
            "from pathlib import Path\n"
            "from Testing.library.test_writing import write_results\n"
            "left = int(sys.argv[2])\n"
            "def step(function):\n"
            "    def counted(*given, **named):\n"
            "        global left\n"
            "        left -= 1\n"
            "        if left == 0: os.kill(os.getpid(), signal.SIGKILL)\n"
            "        return function(*given, **named)\n"
            "    return counted\n"
            "Path.replace, os.fsync = step(Path.replace), step(os.fsync)\n"
            "Path.unlink, Path.mkdir = step(Path.unlink), step(Path.mkdir)\n"
            "write_results(Path(sys.argv[1]), 'two')\n"
        )
        seen = set()
        for number in (*range(1, 40, 3), 1000):
            write_results(tmp_path, "one", ["map.txt"])
            assert names(tmp_path) == ["a.txt", "b.txt", "map.txt", MARKER]
            words = [sys.executable, "-c", code, str(tmp_path), str(number)]
            ended = subprocess.run(words, cwd=ROOT, check=False).returncode  # noqa: S603
            assert ended in (0, -signal.SIGKILL)
            if (tmp_path / MARKER).is_file():
                text = json.loads((tmp_path / MARKER).read_text())["text"]
                seen.add(text)
                assert {(tmp_path / name).read_text() for name in ("a.txt", "b.txt")} == {text}
                assert (tmp_path / "map.txt").exists() == (text == "one")
            else:
                seen.add("unfinished")
            if ended == 0:
                break
        assert seen == {"one", "unfinished", "two"}

    def test_a_result_that_is_damaged_or_no_file_is_not_put_anywhere(self, tmp_path):
        for bad in ("a.json", "b.nii.gz", "c.png"):
            with pytest.raises(OutputError, match=rf"{tmp_path}/{bad}: what was written is"):
                write_results(tmp_path, "{", [bad])
        assert names(tmp_path) == []

    def test_a_folder_of_the_user_in_the_way_is_left_alone(self, tmp_path):
        (tmp_path / "a.txt").mkdir()
        (tmp_path / "a.txt" / "mine").write_text("keep")
        with pytest.raises(OutputError, match="a folder stands where a file should be"):
            write_results(tmp_path, "one")
        assert names(tmp_path) == ["a.txt/mine"]

    def test_messages_name_the_place_and_not_the_hidden_folder(self, tmp_path, image, monkeypatch):
        def fail(*_, **__):
            message = "cannot"
            raise RuntimeError(message)

        monkeypatch.setattr(sitk, "WriteImage", fail)
        with (
            pytest.raises(OutputError, match=rf"^cannot write to {tmp_path}/lobes.nii.gz: "),
            writing.whole_results(tmp_path, MARKER) as part,
        ):
            writing.write_image(image, part / "lobes.nii.gz")

    def test_without_its_marker_a_result_is_a_mistake_of_the_program(self, tmp_path):
        with (
            pytest.raises(AssertionError, match=MARKER),
            writing.whole_results(tmp_path, MARKER) as part,
        ):
            writing.write_text("x", part / "a.txt")


class TestFolders:
    def test_replaces_an_earlier_one_and_nothing_else(self, tmp_path):
        write_folder(tmp_path / "out", "one")
        write_folder(tmp_path / "out", "two")
        assert names(tmp_path) == ["out/deep/a.txt", f"out/{MARKER}"]
        assert (tmp_path / "out/deep/a.txt").read_text() == "two"
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "mine").touch()
        with pytest.raises(InputError, match="holds other files"):
            write_folder(tmp_path / "other", "one")

    @pytest.mark.parametrize("failing", [1, 2])
    def test_a_failed_rename_brings_back_the_earlier_one(self, tmp_path, monkeypatch, failing):
        write_folder(tmp_path / "out", "one")
        before = content(tmp_path)
        steps = []
        rename = Path.rename

        def counted(*given):
            steps.append(given)
            if len(steps) == failing:
                raise OSError(errno.EACCES, "no")
            return rename(*given)

        with monkeypatch.context() as patched:
            patched.setattr(Path, "rename", counted)
            with pytest.raises(OutputError, match="permission"):
                write_folder(tmp_path / "out", "two")
        assert content(tmp_path) == before

    @posix
    def test_one_set_aside_by_a_killed_run_comes_back(self, tmp_path):
        code = (
            "import os, signal, sys\n"
            "from pathlib import Path\n"
            "from Testing.library.test_writing import write_folder\n"
            "write_folder(Path(sys.argv[1]), 'one')\n"
            "rename = Path.rename\n"
            "def once(self, to):\n"
            "    rename(self, to)\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n"
            "Path.rename = once\n"
            "write_folder(Path(sys.argv[1]), 'two')\n"
        )
        out = tmp_path / "out"
        words = [sys.executable, "-c", code, str(out)]
        ended = subprocess.run(words, cwd=ROOT, check=False).returncode  # noqa: S603
        assert ended == -signal.SIGKILL
        assert not out.exists()
        writing.clean(tmp_path)
        assert names(tmp_path) == ["out/deep/a.txt", f"out/{MARKER}"]
        assert (out / "deep" / "a.txt").read_text() == "one"


class TestExchange:
    def test_a_failed_body_brings_everything_back(self, tmp_path):
        for name, text in (("x/a", "old a"), ("y/b", "old b"), ("new/c", "new c")):
            writing.write_text(text, tmp_path / name)
        before = content(tmp_path)
        files = {
            tmp_path / "x/a": None,
            tmp_path / "z/c": tmp_path / "new/c",
            tmp_path / "y/b": None,
        }
        seen = []
        with pytest.raises(ZeroDivisionError), writing.exchanged(files):
            seen.append(1 / (tmp_path / "y/b").exists())
        assert seen == []
        del before[tmp_path / "new/c"]  # what was to come is the caller's
        assert content(tmp_path) == before


class TestChecks:
    def test_a_place_that_will_do_is_left_as_it_is(self, tmp_path):
        writing.check_writable(tmp_path / "a" / "b", 1e3)
        writing.check_writable(tmp_path, 1e3)
        writing.check_writable(tmp_path / "a" / "b.txt", 1e3, is_file=True)
        assert list(tmp_path.iterdir()) == []

    def test_a_file_in_the_way_of_a_folder(self, tmp_path):
        (tmp_path / "taken").touch()
        for place in ("taken", "taken/in", "taken/in/it"):
            with pytest.raises(OutputError, match="a file stands where a folder should be"):
                writing.check_writable(tmp_path / place)

    def test_a_folder_whose_results_would_have_too_long_paths(self, tmp_path):
        deep = tmp_path
        while len(str(deep)) < 3900:
            deep /= "n" * min(100, 4000 - len(str(deep)))
        writing.check_writable(deep)
        with pytest.raises(OutputError, match="the path is too long"):
            writing.check_writable(deep / ("n" * (4090 - len(str(deep)))))

    def test_too_little_room(self, tmp_path):
        with pytest.raises(
            OutputError, match=r"need about 1000000000000 MB, and \d+ MB are free; make room"
        ):
            writing.check_writable(tmp_path, 1e18)

    def test_a_folder_that_may_not_be_written_to(self, tmp_path, monkeypatch):
        def refuse(path, *_, **__):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

        monkeypatch.setattr(Path, "touch", refuse)
        with pytest.raises(OutputError, match="you lack the permission; choose another place"):
            writing.check_writable(tmp_path / "a")


class TestLeftOvers:
    @posix
    def test_a_temporary_folder_is_private_and_cleaned_by_the_next_process(self, tmp_path):
        code = (
            "import sys\n"
            "from pathlib import Path\n"
            "from DRAMLesionLib import writing\n"
            "(writing.temporary_folder(Path(sys.argv[1])) / 'ct.nrrd').touch()\n"
            "print('ready', flush=True)\n"
            "sys.stdin.read()\n"
        )
        with child(code, tmp_path) as process:
            left = next(tmp_path.iterdir())
            assert left.stat().st_mode & 0o777 == 0o700
            mine = writing.temporary_folder(tmp_path)
            assert {path.name for path in tmp_path.iterdir()} == {left.name, mine.name}
            process.kill()
            process.wait()
        other = writing.temporary_folder(tmp_path)
        assert sorted(tmp_path.iterdir()) == sorted([mine, other])
        with pytest.raises(OutputError, match="cannot write to"):
            writing.temporary_folder(tmp_path / "missing")

    def test_of_dead_processes_are_removed_and_of_living_ones_kept(self, tmp_path):
        code = (
            "import sys\n"
            "from pathlib import Path\n"
            "from DRAMLesionLib import writing\n"
            "folder = Path(sys.argv[1])\n"
            "file = writing.whole_file(folder / 'a.nii.gz', '.nii.gz')\n"
            "file.__enter__().write_bytes(b'half')\n"
            "results = writing.whole_results(folder, 'x')\n"
            "(results.__enter__() / 'y').write_bytes(b'half')\n"
            "print('ready', flush=True)\n"
            "sys.stdin.read()\n"
        )
        with child(code, tmp_path) as process:
            assert len(list(tmp_path.iterdir())) == 2
            writing.clean(tmp_path)
            assert len(list(tmp_path.iterdir())) == 2
            process.kill()
            process.wait()
            assert len(list(tmp_path.iterdir())) == 2
            writing.write_text("next", tmp_path / "b.txt")
        assert names(tmp_path) == ["b.txt"]

    @pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="told by /proc")
    def test_of_an_earlier_process_with_the_same_number_are_removed(self, tmp_path):
        with writing.whole_file(tmp_path / "a.txt") as part:
            part.write_text("x")
            mine = part.name
        birth = writing._birth(os.getpid())
        (tmp_path / mine).touch()
        (tmp_path / mine.replace(birth, str(int(birth) - 1))).touch()
        writing.clean(tmp_path)
        assert names(tmp_path) == sorted([mine, "a.txt"])

    def test_of_another_computer_are_left_alone_until_they_are_old(self, tmp_path):
        (tmp_path / ".dramlesion-0badcafe-1-1-0.part.gz").touch()
        (tmp_path / ".dramlesion-0badcafe-1-1-1.part" / "deep").mkdir(parents=True)
        young = tmp_path / ".dramlesion-0badcafe-1-1-1.part" / "deep" / "a"
        young.touch()
        (tmp_path / "mine.part").touch()
        two_days_ago = time.time() - 48 * 3600
        for path in tmp_path.iterdir():
            os.utime(path, (two_days_ago, two_days_ago))
        writing.clean(tmp_path)
        found = [".dramlesion-0badcafe-1-1-1.part/deep/a", "mine.part"]
        assert names(tmp_path) == found
        os.utime(young, (two_days_ago, two_days_ago))
        os.utime(young.parent, (two_days_ago, two_days_ago))
        writing.clean(tmp_path)
        assert names(tmp_path) == ["mine.part"]


HOLD = (
    "import sys\n"
    "from DRAMLesionLib import writing\n"
    "with writing.locked(sys.argv[1]):\n"
    "    print('ready', flush=True)\n"
    "    sys.stdin.read()\n"
)


class TestLocks:
    def test_a_second_run_is_told_who_holds_the_folder(self, tmp_path):
        with child(HOLD, tmp_path) as process:
            with (
                pytest.raises(
                    OutputError,
                    match=rf"in use by another run \(.+ on .+, process {process.pid}, since 20",
                ),
                writing.locked(tmp_path),
            ):
                pytest.fail("two runs hold one folder")
            process.communicate()
        said = []
        with writing.locked(tmp_path, said.append):
            assert said == []

    @posix
    def test_the_lock_of_a_killed_run_is_told_and_taken_over(self, tmp_path):
        with child(HOLD, tmp_path) as process:
            process.send_signal(signal.SIGKILL)
            process.wait()
            said = []
            with writing.locked(tmp_path, said.append):
                assert len(said) == 1
                assert f"process {process.pid}, since" in said[0]
                assert "was killed; this one goes on" in said[0]
            said.clear()
            with writing.locked(tmp_path, said.append):
                assert said == []

    def test_the_same_process_does_not_get_it_twice(self, tmp_path):
        with (
            writing.locked(tmp_path / "new"),
            pytest.raises(OutputError, match=f"process {os.getpid()}"),
            writing.locked(tmp_path / "new"),
        ):
            pytest.fail("two runs hold one folder")

    def test_a_failure_inside_releases_it(self, tmp_path):
        with pytest.raises(ZeroDivisionError), writing.locked(tmp_path):
            raise ZeroDivisionError
        with writing.locked(tmp_path, pytest.fail):
            pass

    def test_a_damaged_note_of_the_owner_stops_nobody(self, tmp_path):
        (tmp_path / ".dramlesion.owner.json").write_bytes(b"\xff{")
        said = []
        with writing.locked(tmp_path, said.append):
            assert "of an unknown owner" in said[0]

    def test_a_file_in_its_place(self, tmp_path):
        (tmp_path / "a").touch()
        with (
            pytest.raises(OutputError, match="a file stands where a folder should be"),
            writing.locked(tmp_path / "a"),
        ):
            pytest.fail("a file was locked")


class TestDamage:
    @pytest.fixture
    def files(self, tmp_path, image):
        for name in ("a.nii.gz", "a.nrrd", "a.mha"):
            writing.write_image(image, tmp_path / name)
        noise = np.random.default_rng(0).integers(0, 255, (60, 60), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "a.png")
        save_file({"w": torch.arange(1000.0)}, tmp_path / "a.safetensors")
        writing.write_json({"a": list(range(100))}, tmp_path / "a.json")
        return tmp_path

    @pytest.mark.parametrize("kind", ["nii.gz", "nrrd", "mha", "png", "safetensors", "json"])
    @pytest.mark.parametrize("left", [0.0, 0.3, 0.98])
    def test_a_cut_file_never_gets_its_name(self, files, kind, left):
        whole = (files / f"a.{kind}").read_bytes()
        assert damage(files / f"a.{kind}") is None
        writing.write_bytes(whole, files / f"b.{kind}")
        with pytest.raises(
            OutputError, match=rf"c\.{kind}: what was written is (cut|damaged|empty|not)"
        ):
            writing.write_bytes(whole[: int(left * len(whole))], files / f"c.{kind}")
        assert not (files / f"c.{kind}").exists()
        assert (files / f"b.{kind}").read_bytes() == whole
