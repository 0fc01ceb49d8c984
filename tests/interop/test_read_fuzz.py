"""Cut and flipped files: read or refused, never another error."""

import random
import time

import numpy as np
import pytest
from helpers.weight_files import (
    call,
    dictionary,
    legacy_storage,
    named,
    pickled,
    place,
    safetensors,
    several,
    storage,
    tensor,
    text,
    torch_legacy,
    torch_zip,
)

from ser_jax.interop.files.read import read_weights_file
from ser_jax.interop.files.refused import RefusedFileError
from ser_jax.interop.files.tensors import Tensor

DATA = np.arange(12, dtype="f4").tobytes()
COUNT, COUNT_RELEASE = 200, 5000  # of each format


def pickle_of(make_storage) -> bytes:
    of = make_storage("FloatStorage", "0", 12)
    namespace = named("argparse.Namespace") + b")\x81" + dictionary({"lr": b"K\1"})
    return pickled(dictionary({
        "a": tensor(of, [3, 4], [4, 1]),
        "b": call("torch._utils._rebuild_parameter", tensor(of, [4, 3], [1, 4]),
                  b"\x88", b"N"),
        "c": call("torch._utils._rebuild_tensor_v3", *place(of, [2], [2], 3),
                  b"\x89", b"N", named("torch.int32")),
        "args": namespace + b"b",
        "list": b"](K\1G" + bytes(8) + several(text("x"), b"\x88N") + b"e",
    }))  # fmt: skip


FILES = {
    "safetensors": safetensors(
        {
            "__metadata__": {"format": "pt"},
            "a": {"dtype": "F32", "shape": [3, 2], "data_offsets": [0, 24]},
            "b": {"dtype": "BF16", "shape": [12], "data_offsets": [24, 48]},
        },
        DATA,
    ),
    "zip": torch_zip(pickle_of(storage), {"0": DATA}, byteorder=b"big"),
    "legacy": torch_legacy(pickle_of(legacy_storage), {"0": (12, DATA)}),
}


def fuzzed(data: bytes, rng: random.Random) -> bytes:
    """A file with bytes flipped, replaced, repeated or taken out."""
    for _ in range(rng.choice([1, 1, 2, 8])):
        at, length = rng.randrange(len(data)), rng.choice([1, 1, 2, 4, 16])
        part = data[at : at + length]
        new = rng.choice([
            bytes([part[0] ^ 1 << rng.randrange(8)]) + part[1:],
            rng.randbytes(len(part)),
            b"\xff" * len(part),
            bytes(len(part)),
            part * 2,
            b"",
        ])  # fmt: skip
        data = data[:at] + new + data[at + length :]
    return data or b"\0"


def read_all(path) -> None:
    """Reads a file and every tensor at its top, or is refused."""
    try:
        for value in read_weights_file(path).content.values():
            if isinstance(value, Tensor):
                assert value.numpy().shape == value.shape
    except RefusedFileError as error:
        assert str(error).startswith("weights: ") and str(error).isprintable()


@pytest.mark.parametrize("kind", FILES)
def test_fuzzed(kind, tmp_path, release):
    path = tmp_path / "weights"
    for seed in range(COUNT_RELEASE if release else COUNT):
        path.write_bytes(fuzzed(FILES[kind], random.Random(f"{kind} {seed}")))
        began = time.process_time()
        try:
            read_all(path)
        except Exception as error:
            raise AssertionError(f"seed {seed} of {kind}") from error
        assert time.process_time() - began < 5, seed


@pytest.mark.parametrize("kind", FILES)
def test_no_cut_is_read(kind, tmp_path):
    path = tmp_path / "weights"
    data = FILES[kind]
    path.write_bytes(data)
    assert len(read_weights_file(path).content) >= 2
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(RefusedFileError, match="^weights: "):
            read_weights_file(path)
