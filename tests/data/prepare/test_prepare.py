import io
import os
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pytest
import tensorflow_datasets as tfds
from helpers.prepare_files import encode, fill, picture, read, run, visible
from PIL import ExifTags, Image

from ser_jax.data import sources
from ser_jax.data.decode import decode_image
from ser_jax.data.prepare import __main__, audit, prepare
from ser_jax.data.prepare.image_set import PrepareError


def test_class_folders_become_labels(tmp_path):
    files = {f"{c}/{i}.jpg": encode(picture()) for c in ("dog", "cat") for i in "abc"}
    folder = fill(tmp_path / "in", {**files, "cat/notes.txt": b"no image"})
    run(tmp_path / "out", folder=str(folder), name="pets")
    labels = {"cat": 0, "dog": 1}
    assert read("pets", "train", tmp_path / "out") == {
        name: (data, labels[name.split("/")[0]]) for name, data in files.items()
    }
    source = sources.open_source("pets", "train", tmp_path / "out")
    assert source.num_classes == 2 and len(source) == 6


def test_split_folders_become_splits(tmp_path):
    """The flat `val`, as ImageNet's, has label -1; red if it drops every label."""
    files = {
        "train/a/1.jpg": encode(picture()),
        "train/b/2.JPEG": encode(picture()),
        "val/3.jpg": encode(picture()),
    }
    folder = fill(tmp_path / "in", files)
    run(tmp_path / "out", folder=str(folder), name="splits")
    train = read("splits", "train", tmp_path / "out")
    assert {name: label for name, (_, label) in train.items()} == {
        "train/a/1.jpg": 0,
        "train/b/2.JPEG": 1,
    }
    assert read("splits", "val", tmp_path / "out") == {
        "val/3.jpg": (files["val/3.jpg"], -1)
    }


@pytest.mark.parametrize("names", [["1.jpg", "2.jpg"], ["a/1.jpg", "2.jpg"]])
def test_other_layouts_are_one_unlabelled_split(tmp_path, names):
    folder = fill(tmp_path / "in", {name: encode(picture()) for name in names})
    run(tmp_path / "out", folder=str(folder), name="flat")
    records = read("flat", "train", tmp_path / "out")
    assert records.keys() == set(names)
    assert all(label is None for _, label in records.values())
    source = sources.open_source("flat", "train", tmp_path / "out")
    assert source.num_classes is None and source[0]["label"] == -1


def test_every_format_reads_as_rgb(tmp_path):
    """JPEG in RGB or grey is kept byte for byte; red if CMYK or alpha is too."""
    rgb = picture()
    rgba = np.dstack([rgb, rgb[..., :1]])
    cmyk = io.BytesIO()
    Image.fromarray(rgb).convert("CMYK").save(cmyk, "JPEG", quality=95)
    files = {
        "rgb.jpg": encode(rgb),
        "grey.jpg": encode(rgb[..., 0]),
        "rgb.png": encode(rgb, "PNG"),
        "grey.png": encode(rgb[..., 0], "PNG"),
        "alpha.png": encode(rgba, "PNG"),
        "web.webp": encode(rgb, "WEBP", lossless=True),
        "cmyk.jpg": cmyk.getvalue(),
    }
    folder = fill(tmp_path / "in", files)
    run(tmp_path / "out", folder=str(folder), name="mixed")
    stored = {k: v[0] for k, v in read("mixed", "train", tmp_path / "out").items()}
    for name in ("rgb.jpg", "grey.jpg", "rgb.png"):
        assert stored.pop(name) == files[name]
    for name, data in stored.items():
        with Image.open(io.BytesIO(data)) as image:
            assert (image.format, image.mode) == ("PNG", "RGB")
        np.testing.assert_array_equal(decode_image(data), decode_image(files[name]))
    by_tfds = tfds.data_source("mixed", split="train", data_dir=tmp_path / "out")
    assert all(record["image"].shape == (10, 12, 3) for record in by_tfds)


def test_unreadable_files_are_reported_and_counted(tmp_path, capsys):
    """Red if the limit is off by one, or a failed run leaves a data set."""
    good = {f"{i}.jpg": encode(picture()) for i in range(3)}
    folder = fill(tmp_path / "in", good | {"cut.jpg": good["0.jpg"][:200]})
    options = {"folder": str(folder), "name": "some"}
    out = tmp_path / "out"
    with pytest.raises(PrepareError, match="1 of 4 images.*max_bad_frac=0.2"):
        run(out, max_bad_frac=0.2, **options)
    assert visible(out) == ["some.unreadable.txt"]
    assert "unreadable: train: cut.jpg\t" in capsys.readouterr().err
    run(out, max_bad_frac=0.25, **options)
    assert read("some", "train", out).keys() == good.keys()
    report = (out / "some.unreadable.txt").read_text()
    assert report.startswith("train: cut.jpg\t") and report.count("\n") == 1
    assert visible(out) == ["some", "some.unreadable.txt"]


def test_what_has_no_place_counts_before_anything_is_decoded(tmp_path, capsys):
    """Red if a stray picture costs the classes, or is left out without a word."""
    files = {f"{c}/{i}.jpg": encode(picture()) for c in ("cat", "dog") for i in "123"}
    folder = fill(tmp_path / "in", files | {"overview.png": encode(picture(), "PNG")})
    options = {"folder": str(folder), "name": "some"}
    out = tmp_path / "out"
    with pytest.raises(PrepareError, match="1 of 7 files have no.*max_bad_frac=0.1 "):
        run(out, max_bad_frac=0.1, **options)
    assert "unreadable: overview.png\tbeside the class" in capsys.readouterr().err
    assert visible(out) == ["some.unreadable.txt"]
    run(out, max_bad_frac=0.15, **options)
    labels = {file: label for file, (_, label) in read("some", "train", out).items()}
    assert labels == {name: int(name.startswith("dog")) for name in files}


def test_the_pictures_of_a_folder_are_turned_unless_told_otherwise(tmp_path, capsys):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 8
    data = encode(picture(10, 12), exif=exif)
    folder = fill(tmp_path / "in", {"1.jpg": data})
    for name, turned in [("turned", True), ("as_it_is", False)]:
        options = {"folder": str(folder), "name": name, "exif_orientation": turned}
        run(tmp_path / "out", **options)
        ((stored, _),) = read(name, "train", tmp_path / "out").values()
        expected = np.rot90(decode_image(data)) if turned else decode_image(data)
        np.testing.assert_array_equal(decode_image(stored), expected)
        word = "1 turned" if turned else "1 not turned"
        assert f"{word} as EXIF says" in capsys.readouterr().err


@pytest.mark.parametrize("dry_run", [True, False])
def test_what_is_understood_is_said_first(tmp_path, monkeypatch, capsys, dry_run):
    """Red if a dry run writes, or names that are not UTF-8 stop it."""
    files = {
        b"train/caf\xe9/1.jpg": encode(picture()),
        b"val/dog/2.jpg": encode(picture()),
        b"val/list-caf\xe9.csv": b"a",
    }
    folder = fill(tmp_path / "in", {os.fsdecode(p): data for p, data in files.items()})
    values = types.SimpleNamespace(
        folder=str(folder),
        name="pets",
        imagenet_train_tar=None,
        imagenet_val_tar=None,
        cifar_archive=None,
        data_dir=str(tmp_path / "out"),
        max_bad_frac=0.0,
        exif_orientation=True,
        allow_incomplete=False,
        dry_run=dry_run,
    )
    monkeypatch.setattr(__main__.flags, "FLAGS", values)
    monkeypatch.setattr(__main__.signal, "signal", lambda *_: None)
    __main__.main(["prepare"])
    said = capsys.readouterr().out
    for row in (r"| caf\xe9 | ", "| train | ", "| val   | ", r"val/list-caf\xe9.csv"):
        assert row in said
    assert (tmp_path / "out").exists() != dry_run


def test_a_split_without_a_readable_image_fails(tmp_path):
    folder = fill(tmp_path / "in", {"train/1.jpg": b"x", "test/2.jpg": b"x"})
    with pytest.raises(PrepareError, match="'test' has no readable image"):
        run(tmp_path / "out", max_bad_frac=1.0, folder=str(folder), name="some")
    assert visible(tmp_path / "out") == ["some.unreadable.txt"]


def test_finished_set_is_not_redone(tmp_path, capsys):
    folder = fill(tmp_path / "in", {"1.jpg": encode(picture())})
    options = {"folder": str(folder), "name": "once"}
    made = run(tmp_path / "out", **options)
    before = {path: os.stat(path).st_mtime_ns for path in made.iterdir()}
    fill(folder, {"2.jpg": encode(picture())})
    capsys.readouterr()
    assert run(tmp_path / "out", **options) == made
    assert {path: os.stat(path).st_mtime_ns for path in made.iterdir()} == before
    assert "is there already" in capsys.readouterr().err


def test_interrupted_run_leaves_nothing_and_runs_again(tmp_path, monkeypatch):
    """Interrupted with all shards on disk; red if the set is written in place."""
    folder = fill(tmp_path / "in", {"1.jpg": encode(picture())})
    options = {"folder": str(folder), "name": "again"}
    write_metadata = tfds.folder_dataset.write_metadata

    def interrupt(**arguments):
        write_metadata(**arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tfds.folder_dataset, "write_metadata", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "out", **options)
    assert visible(tmp_path / "out") == []
    run(tmp_path / "out", **options)
    assert len(read("again", "train", tmp_path / "out")) == 1


def test_progress_has_count_rate_and_eta(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(audit, "_LINE_EVERY_S", 0.0)
    folder = fill(tmp_path / "in", {f"{i}.jpg": encode(picture()) for i in range(4)})
    run(tmp_path / "out", folder=str(folder), name="some")
    lines = capsys.readouterr().err.splitlines()
    assert lines[1].startswith("train: 2 images, 50%, ")
    assert lines[1].endswith("/s, 0 unreadable, 0s left")


def test_source_flags_are_checked(tmp_path):
    for options, message in [
        ({}, "no sources given; give one"),
        ({"folder": "a", "name": "a", "cifar_archive": "b"}, "2 sources given"),
        ({"folder": str(tmp_path)}, "--folder needs --name"),
        ({"cifar_archive": "b", "name": "a"}, "--name goes with --folder"),
        ({"cifar_archive": "/no/such.tar"}, "no file /no/such.tar"),
        ({"folder": "/no/such", "name": "a"}, "no folder /no/such; check --folder"),
        ({"folder": str(tmp_path), "name": "a"}, "no images under"),
        ({"folder": str(tmp_path), "name": "My-Set"}, "not a TFDS name"),
    ]:
        with pytest.raises(PrepareError, match=message):
            prepare.read_image_set(**options)


def test_unusable_data_dir_is_refused(tmp_path):
    folder = fill(tmp_path / "in", {"1.jpg": encode(picture())})
    (tmp_path / "file").write_text("")
    with pytest.raises(PrepareError, match="cannot make --data_dir=.*/file"):
        run(tmp_path / "file", folder=str(folder), name="some")


def command(*arguments):
    return [sys.executable, "-m", "ser_jax.data.prepare", *arguments]


@pytest.mark.slow
def test_command_says_a_mistake_in_one_line():
    done = subprocess.run(
        command("--folder=/no/such", "--name=a"), capture_output=True, text=True
    )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == "prepare: there is no folder /no/such; check --folder\n"


@pytest.mark.slow
def test_terminated_command_cleans_up(tmp_path):
    """SIGTERM while it decodes; red without the handler."""
    folder = fill(tmp_path / "in", {"0.jpg": encode(picture(1000, 1000))})
    for i in range(1, 2000):
        os.link(folder / "0.jpg", folder / f"{i}.jpg")
    out = tmp_path / "out"
    with subprocess.Popen(
        command(f"--folder={folder}", "--name=a", f"--data_dir={out}"),
        stderr=subprocess.PIPE,
    ) as process:
        while not (out.exists() and visible(out)):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 1 and b"stopped by signal 15" in stderr
    assert visible(out) == []
