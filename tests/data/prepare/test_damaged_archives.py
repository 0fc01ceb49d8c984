"""Archives that were damaged, of which no part may pass for the whole."""

import gzip
import pickle

import numpy as np
import pytest
from etils import epath
from helpers.prepare_files import make_tar

from ser_jax.data.prepare import archives, cifar, published
from ser_jax.data.prepare.image_set import PrepareError

WNIDS = ("n01440764", "n01443537", "n01484850")
INNER = 20480  # bytes of a class's tar: 8 members of 1024, two end blocks, filled up
SECOND = 512 + INNER  # where the second class's header begins


def train_tar(folder):
    inner = {}
    for number, wnid in enumerate(WNIDS, start=1):
        files = {f"{wnid}_{i}.JPEG": bytes([number]) * 600 for i in range(8)}
        inner[f"{wnid}.tar"] = make_tar(folder / wnid, files).read_bytes()
        assert len(inner[f"{wnid}.tar"]) == INNER
    return bytearray(make_tar(folder / "train.tar", inner).read_bytes())


def zeroed(start, stop):
    def damage(data):
        data[start:stop] = bytes(stop - start)
        return data

    return damage


def flipped(at):
    def damage(data):
        data[at] ^= 8
        return data

    return damage


def taken(folder, data):
    path = epath.Path(folder / "a.tar")
    path.write_bytes(bytes(data))
    return list(archives.read_imagenet(path, None).splits["train"].items)


@pytest.mark.parametrize(
    "damage",
    [
        flipped(SECOND + 3),  # a class's header: its name
        flipped(SECOND + 124),  # its size
        flipped(512 + 4 * 1536 + 3),  # an image's header
        zeroed(SECOND, SECOND + 512),
        zeroed(512 + 4 * 1536, 1024 + 4 * 1536),
        zeroed(512 + 4 * 1536, 512 + INNER),  # the rest of a class
        zeroed(512, 512 + INNER),  # a class, all of it
        zeroed(SECOND, 4 * INNER),
        lambda data: data[:SECOND],  # at a class
        lambda data: data[: SECOND + 512],  # after its header
        lambda data: data[: SECOND + 5000],
        lambda data: data[: 3 * SECOND],  # the end blocks alone
        lambda data: data[: 3 * SECOND + 512],  # one of them
        lambda data: data[: SECOND + 512] + data[SECOND + 1024 :],
        lambda data: data + b"more",
        lambda data: data + bytes(20480),
        lambda data: data + data,
    ],
)
def test_imagenet(tmp_path, damage):
    """Red if a bad header passes for the end, as Python has it."""
    with pytest.raises(PrepareError, match=r"a.tar is damaged \(.*\); get it again$"):
        taken(tmp_path, damage(train_tar(tmp_path)))


def test_a_class_without_images_is_damage(tmp_path):
    empty = make_tar(tmp_path / "empty", {}).read_bytes()
    whole = make_tar(tmp_path / "train.tar", {f"{WNIDS[0]}.tar": empty}).read_bytes()
    with pytest.raises(PrepareError, match="n01440764.tar in it: it is empty"):
        taken(tmp_path, whole)


def test_a_sound_tar_is_taken_whatever_fills_it_up(tmp_path):
    data = train_tar(tmp_path)
    assert len(taken(tmp_path, data)) == 24
    assert len(taken(tmp_path, data[: 3 * SECOND + 1024])) == 24


@pytest.mark.parametrize("at", [-1, -8, -300])
def test_a_compressed_archive_is_read_to_its_checksum(tmp_path, at):
    """Red if reading stops where the tar ends: length, CRC and the last data."""
    tar = make_tar(tmp_path / "a.tar", {"a": bytes(range(256)) * 40}).read_bytes()
    data = bytearray(gzip.compress(tar, 0))
    data[at] ^= 8
    path = epath.Path(tmp_path / "a.tar.gz")
    path.write_bytes(bytes(data))
    with pytest.raises(PrepareError, match=r"a.tar.gz is damaged \("):
        with archives.open_tar(path) as archive:
            archive.getmembers()


PIXELS = np.arange(4 * 3072, dtype=np.uint32).astype(np.uint8).reshape(4, 3072)
BATCHES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
META = {b"label_names": [b"class%d" % i for i in range(10)]}


def python_files(**changed):
    batch = {b"labels": [0, 9, 2, 3], b"data": PIXELS}
    files = dict.fromkeys(BATCHES, batch) | {"batches.meta": META}
    return {name: pickle.dumps(content, 3) for name, content in files.items()} | changed


def binary_files(**changed):
    batch = b"".join(b"\1" + row.tobytes() for row in PIXELS)
    files = {f"{name}.bin": batch for name in BATCHES}
    names = "\n".join(f"class{i}" for i in range(10)).encode()
    return files | {"batches.meta.txt": names} | changed


def of(labels=(0, 9, 2, 3), data=PIXELS):
    return {"data_batch_3": pickle.dumps({b"labels": labels, b"data": data}, 3)}


ROWS = binary_files()["data_batch_3.bin"]


@pytest.mark.parametrize(
    ("pack", "changed"),
    [
        (python_files, {"data_batch_3": bytes(900)}),
        (python_files, {"data_batch_3": python_files()["data_batch_3"][:-500]}),
        (python_files, {"data_batch_3": b""}),
        (python_files, {"data_batch_3": pickle.dumps([1, 2], 3)}),
        (python_files, {"data_batch_3": pickle.dumps({1: 2}, 3)}),
        (python_files, of(labels=[0, 10, 2, 3])),
        (python_files, of(labels=[0, -1, 2, 3])),
        (python_files, of(labels=[0, "1", 2, 3])),
        (python_files, of(labels=[0, 1, 2])),
        (python_files, of(labels=7)),
        (python_files, of(labels=[0, 1, 2], data=PIXELS[:3])),  # a short batch
        (python_files, of(labels=[], data=PIXELS[:0])),
        (python_files, of(data=PIXELS[:, :-1])),
        (python_files, of(data=PIXELS.astype(np.float32))),
        (python_files, of(data=PIXELS.tolist())),
        (python_files, of(data=np.zeros_like(PIXELS))),
        (python_files, {"batches.meta": bytes(200)}),
        (python_files, {"batches.meta": pickle.dumps({b"label_names": 3}, 3)}),
        (python_files, {"batches.meta": pickle.dumps({b"label_names": [b"a"]}, 3)}),
        (binary_files, {"data_batch_3.bin": ROWS[:-1]}),
        (binary_files, {"data_batch_3.bin": ROWS[:-3073]}),
        (binary_files, {"data_batch_3.bin": b""}),
        (binary_files, {"data_batch_3.bin": bytes([200]) + ROWS[1:]}),
        (binary_files, {"data_batch_3.bin": bytes(len(ROWS))}),
        (binary_files, {"batches.meta.txt": b"\xff\xfe"}),
        (binary_files, {"batches.meta.txt": b"only one"}),
    ],
)
def test_cifar(tmp_path, pack, changed):
    sound = epath.Path(make_tar(tmp_path / "sound.tar", pack()))
    assert len(list(cifar.read_cifar(sound).splits["train"].items)) == 20
    path = epath.Path(make_tar(tmp_path / "a.tar", pack(**changed)))
    with pytest.raises(PrepareError, match=r"a.tar is damaged \(.*\); get it again$"):
        cifar.read_cifar(path)


def test_a_copy_is_held_against_the_published_archive(tmp_path, monkeypatch):
    path = epath.Path(tmp_path / "a.tar")
    path.write_bytes(b"four")
    assert "4 bytes are the size of no published archive" in published.verdict(path)
    digest = "8cbad96aced40b3838dd9f07f6ef5772"
    monkeypatch.setattr(published, "_MD5", {4: digest})
    assert "MD5 matches" in published.verdict(path)
    path.write_bytes(b"for!")
    assert f"does not match that of the published archive, {digest}" in (
        published.verdict(path)
    )
