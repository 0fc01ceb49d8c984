import io
import os
import pickle

import numpy as np
import pytest
import tensorflow_datasets as tfds
from helpers.prepare_files import RNG, encode, make_tar, picture, read, run, visible

from ser_jax.data import sources
from ser_jax.data.prepare.image_set import PrepareError


def test_imagenet_tars(tmp_path):
    """A fake of the same layout; red if a label is off by one or a class is lost."""
    names = tfds.builder("imagenet2012").info.features["label"].names
    train, inner = {}, {}
    for label in (0, 7, 999):
        wnid = names[label]
        images = {f"{wnid}_{i}.JPEG": encode(picture()) for i in range(3)}
        train |= {name: (data, label) for name, data in images.items()}
        inner[f"{wnid}.tar"] = make_tar(tmp_path / wnid, images).read_bytes()
    val = {f"ILSVRC2012_val_{i:08d}.JPEG": encode(picture()) for i in (2, 3, 50000)}
    train_tar = make_tar(tmp_path / "train.tar", inner)
    val_tar = make_tar(tmp_path / "val.tar", val)
    run(tmp_path, imagenet_train_tar=str(train_tar), imagenet_val_tar=str(val_tar))
    assert read("imagenet2012", "train", tmp_path) == train
    path = tfds.core.tfds_path("datasets/imagenet2012/validation_labels.txt")
    wnids = path.read_text().split()
    assert wnids[0] == "n01751748" and wnids[1] == "n09193705"
    assert read("imagenet2012", "validation", tmp_path) == {
        f"ILSVRC2012_val_{i:08d}.JPEG": (data, names.index(wnids[i - 1]))
        for i, data in zip((2, 3, 50000), val.values(), strict=True)
    }
    source = sources.open_source("imagenet2012", "validation", tmp_path)
    assert source.num_classes == 1000


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote `str`, as in the published files."""

    def save_python2_str(self, value):
        self.write(b"T" + len(value).to_bytes(4, "little") + value)

    dispatch = {**pickle._Pickler.dispatch, bytes: save_python2_str}


def python2_pickle(value):
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol=2).dump(value)
    return buffer.getvalue().replace(b"numpy._core.", b"numpy.core.")


CIFAR10_NAMES = [f"class{i}" for i in range(10)]


def cifar_batches(name, num_labels):
    """File -> (labels `[n, num_labels]`, pixels `[n, 3072]`), two images a file."""
    files = {
        "cifar10": [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"],
        "cifar100": ["train", "test"],
    }[name]
    return {
        file: (
            RNG.integers(0, 10, (2, num_labels), dtype=np.uint8),
            RNG.integers(0, 256, (2, 3072), dtype=np.uint8),
        )
        for file in files
    }


def cifar10_python(batches):
    files = {
        name: python2_pickle({b"labels": labels[:, 0].tolist(), b"data": pixels})
        for name, (labels, pixels) in batches.items()
    }
    meta = {b"label_names": [name.encode() for name in CIFAR10_NAMES]}
    return files | {"batches.meta": python2_pickle(meta)}


def cifar10_binary(batches):
    files = {
        f"{name}.bin": np.hstack([labels, pixels]).tobytes()
        for name, (labels, pixels) in batches.items()
    }
    return files | {"batches.meta.txt": "\n".join(CIFAR10_NAMES).encode() + b"\n\n"}


def cifar100_python(batches):
    files = {
        name: python2_pickle(
            {
                b"coarse_labels": labels[:, 0].tolist(),
                b"fine_labels": labels[:, 1].tolist(),
                b"data": pixels,
            }
        )
        for name, (labels, pixels) in batches.items()
    }
    meta = {
        b"coarse_label_names": [b"c%d" % i for i in range(20)],
        b"fine_label_names": [b"f%d" % i for i in range(100)],
    }
    return files | {"meta": python2_pickle(meta)}


def cifar100_binary(batches):
    files = {
        f"{name}.bin": np.hstack([labels, pixels]).tobytes()
        for name, (labels, pixels) in batches.items()
    }
    return files | {
        "coarse_label_names.txt": "\n".join(f"c{i}" for i in range(20)).encode(),
        "fine_label_names.txt": "\n".join(f"f{i}" for i in range(100)).encode(),
    }


@pytest.mark.parametrize(
    ("name", "pack", "keys"),
    [
        ("cifar10", cifar10_python, ["label"]),
        ("cifar10", cifar10_binary, ["label"]),
        ("cifar100", cifar100_python, ["coarse_label", "label"]),
        ("cifar100", cifar100_binary, ["coarse_label", "label"]),
    ],
)
def test_cifar_archives(tmp_path, name, pack, keys):
    """Red if channels are not first, fine and coarse are swapped, or ids shift."""
    batches = cifar_batches(name, len(keys))
    files = {f"{name}-batches/{file}": data for file, data in pack(batches).items()}
    files = dict(reversed(files.items()))  # the published ones are in no order either
    archive = make_tar(tmp_path / "c.tar.gz", files, "w:gz")
    run(tmp_path, cifar_archive=str(archive))
    test_file = list(batches)[-1]
    for split, members in [
        ("train", [batch for file, batch in batches.items() if file != test_file]),
        ("test", [batches[test_file]]),
    ]:
        labels = np.concatenate([labels for labels, _ in members])
        pixels = np.concatenate([pixels for _, pixels in members])
        records = tfds.data_source(name, split=split, data_dir=tmp_path)
        assert len(records) == len(labels)
        for record in records:
            index = int(record["id"].decode().removeprefix(f"{split}_"))
            assert record["id"].decode() == f"{split}_{index:05d}"
            assert [record[key] for key in keys] == labels[index].tolist()
            for channel in range(3):
                plane = pixels[index, 1024 * channel : 1024 * (channel + 1)]
                np.testing.assert_array_equal(
                    record["image"][..., channel], plane.reshape(32, 32)
                )
    info = tfds.builder_from_directory(next((tmp_path / name).iterdir())).info
    first = "class3" if name == "cifar10" else "f3"
    assert info.features["label"].int2str(3) == first


def test_pickle_that_runs_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    files = cifar10_python(cifar_batches("cifar10", 1))
    files["data_batch_3"] = pickle.dumps(Evil())
    archive = make_tar(tmp_path / "c.tar", files)
    with pytest.raises(PrepareError, match=r"posix\.system"):
        run(tmp_path, cifar_archive=str(archive))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("flag", ["imagenet_train_tar", "imagenet_val_tar"])
def test_wrong_or_damaged_archives_are_refused(tmp_path, flag):
    wrong = make_tar(tmp_path / "wrong.tar", {"photo.jpg": encode(picture())})
    with pytest.raises(PrepareError, match="wrong.tar holds 'photo.jpg' where"):
        run(tmp_path / "out", **{flag: str(wrong)})
    damaged = tmp_path / "damaged.tar"
    damaged.write_bytes(b"x" * 2000)
    with pytest.raises(PrepareError, match="damaged.tar is damaged"):
        run(tmp_path / "out", **{flag: str(damaged)})
    assert visible(tmp_path / "out") == []


def test_damaged_or_incomplete_cifar_is_refused(tmp_path):
    files = cifar10_python(cifar_batches("cifar10", 1))
    whole = make_tar(tmp_path / "whole.tar.gz", files, "w:gz")
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(whole.read_bytes()[:-2000])
    with pytest.raises(PrepareError, match="cut.tar.gz is damaged"):
        run(tmp_path, cifar_archive=str(cut))
    del files["data_batch_2"]
    part = make_tar(tmp_path / "part.tar", files)
    with pytest.raises(PrepareError, match="part.tar lacks 'data_batch_2'"):
        run(tmp_path, cifar_archive=str(part))
