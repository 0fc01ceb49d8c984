import os
import socket

import pytest

from ser_jax.data.prepare import scan


def fill(root, files):
    for name in files:
        path = os.path.join(root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(b"x")


def left_out(found):
    return {left.path: left.is_lost for left in found.left_out}


def test_pictures_of_all_endings_are_found_and_the_others_told(tmp_path):
    pictures = ["a/1.JPG", "a/2.jpeg", "b/3.Tiff", "b/4.gif", "b/c/5.bmp", "6.webp"]
    fill(tmp_path, [*pictures, "a/list.csv", "a/README"])
    found = scan.scan(str(tmp_path))
    assert found.pictures == dict.fromkeys(sorted(pictures), 1)
    assert found.others == ["a/README", "a/list.csv"]
    assert found.folders == ["", "a", "b", "b/c"] and not found.left_out


def test_what_is_left_out_has_a_reason_and_is_lost_only_if_it_may_be_a_picture(
    tmp_path, monkeypatch
):
    fill(tmp_path, ["1.png", ".DS_Store", "._1.png", "__MACOSX/2.png", "Thumbs.db"])
    fill(tmp_path, [".git/3.png", "a.heic", "b.EPS"])
    (tmp_path / "empty.png").touch()
    os.symlink("/no/such", tmp_path / "gone.png")
    os.symlink("/no/such", tmp_path / "class")
    os.symlink("/no/such", tmp_path / "notes.txt")
    os.symlink("self.png", tmp_path / "self.png")
    os.mkfifo(tmp_path / "pipe.jpg")
    os.mkfifo(tmp_path / "pipe.txt")
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.jpg")
    found = scan.scan(str(tmp_path))
    assert list(found.pictures) == ["1.png"] and not found.others
    assert left_out(found) == {
        **dict.fromkeys([".DS_Store", "._1.png", ".git", "__MACOSX"], False),
        **dict.fromkeys(["Thumbs.db", "notes.txt", "pipe.txt"], False),
        **dict.fromkeys(["a.heic", "b.EPS", "empty.png", "gone.png", "class"], True),
        **dict.fromkeys(["self.png", "pipe.jpg", "socket.jpg"], True),
    }


@pytest.mark.parametrize("target", ["..", ".", "../..", "../b", "../../..", "/"])
def test_no_folder_is_read_twice_or_from_above(tmp_path, target):
    """Red if links are followed without end, or before the folders they lead to."""
    fill(tmp_path, ["beside/0.png", "in/a/1.png", "in/b/2.png"])
    os.symlink(target, tmp_path / "in/a/again")
    found = scan.scan(str(tmp_path / "in"))
    assert list(found.pictures) == ["a/1.png", "b/2.png"]
    assert left_out(found) == {"a/again": False}


def test_links_to_what_lies_elsewhere_are_followed_once(tmp_path):
    fill(tmp_path, ["pool/cat/1.png", "pool/dog/2.png", "in/c.txt"])
    os.symlink("../pool/cat", tmp_path / "in/a")
    os.symlink("../pool/cat", tmp_path / "in/b")
    os.symlink("../pool/dog/2.png", tmp_path / "in/2.png")
    found = scan.scan(str(tmp_path / "in"))
    assert list(found.pictures) == ["2.png", "a/1.png"]
    assert left_out(found) == {"b": False}


@pytest.mark.parametrize("folder", ["", "dog"])
def test_a_folder_that_cannot_be_read_is_lost(tmp_path, monkeypatch, folder):
    fill(tmp_path, ["cat/1.png", "dog/2.png"])
    listed = os.scandir

    def scandir(path):
        if path == os.path.join(str(tmp_path), folder):
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = scan.scan(str(tmp_path))
    assert left_out(found) == {folder or ".": True}
    assert "Permission denied" in found.left_out[0].why


def test_longer_files_than_any_picture_are_not_read(tmp_path):
    with open(tmp_path / "1.png", "wb") as file:
        file.truncate(2**40)  # holds nothing on the disk
    assert left_out(scan.scan(str(tmp_path))) == {"1.png": True}


def test_a_pipe_that_takes_a_files_place_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "1.png")
    with pytest.raises(OSError, match="no regular file"):
        scan.read_picture(str(tmp_path / "1.png"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"a/b c[1].png", "a/b c[1].png"),
        ("ü".encode(), "ü"),
        (b"caf\xe9", r"caf\xe9"),
        (b"two\nlines\t", r"two\nlines\t"),
        (b" a ", r"\x20a\x20"),
    ],
)
def test_any_name_is_one_line_of_text(name, text):
    assert scan.as_text(os.fsdecode(name)) == text
    text.encode()
