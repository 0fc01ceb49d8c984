"""Files of weights, good and hostile, written byte by byte: PyTorch is not needed."""

import io
import json
import struct
import zipfile
from collections.abc import Mapping, Sequence

MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")


# Parts of a pickle of protocol 2: each pushes one value.


def named(name: str) -> bytes:
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def whole(value: int) -> bytes:
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def several(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def call(name: str, *args: bytes) -> bytes:
    return named(name) + several(*args) + b"R"


def storage(kind: str, key: str, numel: int) -> bytes:
    kind = kind if "." in kind else f"torch.{kind}"
    parts = (text("storage"), named(kind), text(key), text("cpu"), whole(numel))
    return several(*parts) + b"Q"


def legacy_storage(kind: str, key: str, numel: int) -> bytes:
    return storage(kind, key, numel).removesuffix(b"tQ") + b"NtQ"


def tensor(
    of: bytes,
    shape: Sequence[int],
    strides: Sequence[int],
    offset: int = 0,
    *rest: bytes,
) -> bytes:
    return call(
        "torch._utils._rebuild_tensor_v2",
        *place(of, shape, strides, offset),
        b"\x89",
        call("collections.OrderedDict"),
        *rest,
    )


def place(
    of: bytes, shape: Sequence[int], strides: Sequence[int], offset: int = 0
) -> tuple[bytes, ...]:
    return (
        of,
        whole(offset),
        several(*map(whole, shape)),
        several(*map(whole, strides)),
    )


def dictionary(entries: Mapping[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(k) + v for k, v in entries.items()) + b"u"


def pickled(value: bytes) -> bytes:
    return b"\x80\x02" + value + b"."


# Files.


def archive(entries: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as out:
        for name, data in entries.items():
            out.writestr(zipfile.ZipInfo(name), data, method)
    return stream.getvalue()


def torch_zip(pickle: bytes, storages: Mapping[str, bytes], **others: bytes) -> bytes:
    return archive(
        {
            "a/data.pkl": pickle,
            **{f"a/{name}": data for name, data in others.items()},
            **{f"a/data/{key}": data for key, data in storages.items()},
        }
    )


def torch_legacy(
    pickle: bytes, storages: Mapping[str, tuple[int, bytes]], little: bool = True
) -> bytes:
    order = b"\x88" if little else b"\x89"
    keys = b"]" + b"".join(text(key) + b"a" for key in storages)
    return b"".join(
        [
            MAGIC,
            pickled(whole(1001)),
            pickled(dictionary({"little_endian": order})),
            pickle,
            pickled(keys),
            *(struct.pack("<q", n) + data for n, data in storages.values()),
        ]
    )


def safetensors(header: object, data: bytes = b"") -> bytes:
    found = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(found)) + found + data


def entry(dtype: object, shape: object, *offsets: object) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": list(offsets)}
