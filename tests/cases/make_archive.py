"""A small archive, sound or damaged: python make_archive.py "imagenet sound" OUT."""

import gzip
import io
import pathlib
import pickle
import sys
import tarfile

import numpy as np
from PIL import Image

WNIDS = ("n01440764", "n01443537", "n01484850")
BATCHES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
NAMES = "airplane automobile bird cat deer dog frog horse ship truck".split()
PIXELS = np.random.default_rng(0).integers(0, 255, (4, 3072), np.uint8)


def tar(members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return bytearray(out.getvalue())


def jpeg(shade):
    out = io.BytesIO()
    Image.new("RGB", (24, 24), (9 * shade, 99, 5)).save(out, "JPEG")
    return out.getvalue()


def imagenet(damage):
    classes = {
        f"{wnid}.tar": tar((f"{wnid}_{i}.JPEG", jpeg(i)) for i in range(8))
        for wnid in WNIDS
    }
    data = tar(classes.items())
    second = 512 + -(-len(classes[f"{WNIDS[0]}.tar"]) // 512) * 512  # class's header
    if damage == "cut at a class":
        del data[second:]
    elif damage == "inner header zeroed":
        at = second + 512 + 4 * 1536
        assert bytes(data[at : at + 9]) == WNIDS[1].encode()
        data[at : at + 512] = bytes(512)
    elif damage == "outer header flipped":
        data[second + 3] ^= 8
    return data


def cifar(damage):
    if damage in ("batch short", "label 200"):  # as C reads it
        rows = b"".join(bytes([1]) + row.tobytes() for row in PIXELS)
        files = {f"{batch}.bin": rows for batch in BATCHES}
        files["batches.meta.txt"] = "\n".join(NAMES).encode()
        files["data_batch_3.bin"] = (
            rows[:-1] if damage == "batch short" else bytes([200]) + rows[1:]
        )
        return gzip.compress(tar(files.items()))
    batch = pickle.dumps({b"labels": [1, 2, 3, 4], b"data": PIXELS}, 3)
    files = dict.fromkeys(BATCHES, batch)
    names = {b"label_names": [name.encode() for name in NAMES]}
    files["batches.meta"] = pickle.dumps(names, 3)
    if damage == "batch zeroed":
        files["data_batch_3"] = bytes(len(batch))
    data = bytearray(gzip.compress(tar(files.items()), 0))
    if damage == "checksum":
        data[bytes(data).rfind(PIXELS[3, -64:].tobytes()) + 9] ^= 8
    return data


if __name__ == "__main__":
    kind, _, damage = sys.argv[1].partition(" ")
    make = {"imagenet": imagenet, "cifar": cifar}[kind]
    pathlib.Path(sys.argv[2]).write_bytes(make(damage))
