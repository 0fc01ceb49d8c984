"""Small images, folders and tars for the tests of `prepare`."""

import io
import tarfile

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from ser_jax.data.prepare import prepare

RNG = np.random.default_rng(0)


def picture(height=10, width=12):
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def encode(image, file_format="JPEG", **options):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, file_format, **options)
    return buffer.getvalue()


def bomb_jpeg(width, height):
    """A JPEG whose header tells that size; small on disk."""
    data = bytearray(encode(np.zeros((8, 8), np.uint8)))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = height.to_bytes(2) + width.to_bytes(2)
    return bytes(data)


def fill(folder, files):
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def make_tar(path, files, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def run(data_dir, max_bad_frac=0.0, **options):
    return prepare.prepare(prepare.read_image_set(**options), data_dir, max_bad_frac)


def read(name, split, data_dir):
    """file_name -> (image bytes, label or None), through TFDS alone."""
    records = tfds.data_source(
        name,
        split=split,
        data_dir=data_dir,
        decoders={"image": tfds.decode.SkipDecoding()},
    )
    return {
        record["file_name"].decode(): (record["image"], record.get("label"))
        for record in records
    }


def visible(data_dir):
    return sorted(path.name for path in data_dir.iterdir())
