"""Files of weights hold what was written, whichever program wrote them."""

import hashlib
import json
import os
import pathlib
import pickle
import struct

import ml_dtypes
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
    whole,
)

from ser_jax.interop.files.inert import Inert
from ser_jax.interop.files.read import read_weights_file
from ser_jax.interop.files.refused import RefusedFileError
from ser_jax.interop.files.safetensors import DTYPES, write_safetensors
from ser_jax.interop.files.tensors import BFLOAT16, Tensor

FOLDER = pathlib.Path(os.environ.get("SER_INTEROP_DIR", "/nowhere"))
needs_cases = pytest.mark.skipif(
    "SER_INTEROP_DIR" not in os.environ, reason="SER_INTEROP_DIR is not set"
)
# What is refused for what the file is, not for which model is in it.
REFUSED = {
    "executes.pth": "would use 'posix.system'.* Nothing was run",
    "lfs_pointer.safetensors": "Git LFS pointer",
    "not_a_checkpoint.pth": "web page",
    "torchscript.pt": "TorchScript",
    "truncated.legacy.pth": "cut off: [0-9]+ bytes of at least [0-9]+",
    "truncated.pth": "cut off",
    "truncated.safetensors": "[0-9]+ bytes, [0-9]+ are there",
    "whole_module.pth": "pickled 'torch.nn.modules.container.Sequential'",
}
NUMBERS = {
    "torch.FloatStorage": np.array([1.5, -2, 3e38, 0], "f4"),
    "torch.DoubleStorage": np.array([1.5, -2, 3e300, 0], "f8"),
    "torch.HalfStorage": np.array([1.5, -2, 6e4, 0], "f2"),
    "torch.BFloat16Storage": np.array([1.5, -2, 3e38, 0], ml_dtypes.bfloat16),
    "torch.LongStorage": np.array([1, -(2**62), 3, 0], "i8"),
    "torch.IntStorage": np.array([1, -(2**30), 3, 0], "i4"),
    "torch.ShortStorage": np.array([1, -(2**14), 3, 0], "i2"),
    "torch.CharStorage": np.array([1, -128, 3, 0], "i1"),
    "torch.ByteStorage": np.array([1, 255, 3, 0], "u1"),
    "torch.BoolStorage": np.array([True, False, True, True]),
    "torch.ComplexFloatStorage": np.array([1 + 2j, -2j, 3, 0], "c8"),
    "torch.ComplexDoubleStorage": np.array([1 + 2j, -2j, 3, 0], "c16"),
}


def read(tmp_path, data: bytes):
    path = tmp_path / "weights"
    path.write_bytes(data)
    return read_weights_file(path)


def tensors_in(value, seen=None):
    """Every tensor that a value holds, each object looked at once."""
    seen = set() if seen is None else seen
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple) and id(value) not in seen:
        seen.add(id(value))
        for part in value.values() if isinstance(value, dict) else value:
            yield from tensors_in(part, seen)


def assert_same(found: Tensor, expected: np.ndarray):
    array = found.numpy()
    assert array.shape == expected.shape == found.shape
    assert array.dtype == expected.dtype == found.dtype
    assert array.dtype.isnative and array.flags.owndata | array.flags.writeable
    assert array.tobytes() == expected.tobytes()


@needs_cases
@pytest.mark.interop
def test_every_tensor_of_every_case_is_read():
    """Red if a file of the reference cases is refused, or a tensor in it."""
    manifest = json.loads((FOLDER / "manifest.json").read_text())
    seen = 0
    for case in manifest["cases"]:
        for name in case["files"]:
            if name in REFUSED or name.endswith(".json"):
                continue
            found = list(
                tensors_in(read_weights_file(FOLDER / case["name"] / name).content)
            )
            assert found, name
            for one in found:
                assert one.numpy().shape == one.shape
            seen += 1
    assert seen >= 40


@needs_cases
@pytest.mark.interop
def test_three_formats_of_one_network_agree():
    folder = FOLDER / "torchvision_resnet18"
    files = {
        file.format: file.content
        for file in map(read_weights_file, sorted(folder.glob("*.[ps][ta]*")))
    }
    assert set(files) == {"safetensors", "zip", "legacy"}
    for name, expected in files["safetensors"].items():
        for content in files.values():
            assert_same(content[name], expected.numpy())


@needs_cases
@pytest.mark.interop
def test_corners_value_for_value():
    (path,) = (FOLDER / "pth_corners").glob("*.pth")
    content = read_weights_file(path).content
    with np.load(path.with_name("expected.npz")) as arrays:
        expected = dict(arrays)
    state = content["state_dict"]
    found = {k: v for k, v in state.items() if isinstance(v, Tensor)}
    assert set(found) == set(expected)
    expected["bf16"] = expected["bf16"].astype(BFLOAT16)  # recorded as float32
    for name, value in expected.items():
        assert_same(found[name], value)
    (nested,) = content["nested"][0]
    assert nested["t"].numpy().shape == nested["t"].shape
    for name in ("namespace", "np", "npscalar", "set", "device", "layer", "dtype"):
        assert isinstance(content[name], Inert), name
    assert isinstance(content["namespace"].state, dict)
    assert all(type(n) is int for n in content["size"])
    assert isinstance(content["size"], tuple) and content["bytes"] == b"ab"
    assert content["bigint"] == 2**70 and content["counter"] == {"a": 2, "b": 1}
    assert content["defaultdict"] == {"a": [1]} and content["none"] is None


@needs_cases
@pytest.mark.interop
@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_is_no_checkpoint_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RefusedFileError, match=REFUSED[name]) as error:
        read_weights_file(FOLDER / "refuse" / name)
    assert str(error.value).startswith(f"{name}: ")
    assert "\n" not in str(error.value)
    assert not os.listdir(tmp_path), "its pickle was run"


def saved(kind: str, order: str, build) -> bytes:
    """A file of one strided tensor, and of all of its storage."""
    numbers = NUMBERS[kind]
    of = (legacy_storage if build is torch_legacy else storage)(kind, "0", 4)
    value = dictionary(
        {"all": tensor(of, [4], [1]), "turned": tensor(of, [3, 2], [1, 0], 1)}
    )
    data = numbers.tobytes()
    if build is torch_legacy:
        return torch_legacy(pickled(value), {"0": (4, data)})
    if order == "big":
        part = numbers.dtype.itemsize // (2 if numbers.dtype.kind == "c" else 1)
        data = numbers.view(f"u{part}").byteswap().tobytes()
    others = {} if order == "absent" else {"byteorder": order.encode()}
    return torch_zip(pickled(value), {"0": data}, **others)


@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize("order", ["little", "big", "absent", "legacy"])
def test_every_type_in_every_byte_order(kind, order, tmp_path):
    build = torch_legacy if order == "legacy" else torch_zip
    content = read(tmp_path, saved(kind, order, build)).content
    assert_same(content["all"], NUMBERS[kind])
    expected = np.stack([NUMBERS[kind][1:]] * 2, axis=1)
    assert_same(content["turned"], expected)


def test_ways_to_say_a_tensor(tmp_path):
    """Red if a parameter, a subclass or a tensor with a type of its own is not read."""
    of = storage("FloatStorage", "0", 6)
    plain = tensor(of, [2, 3], [3, 1])
    bare = several(*place(of, [2, 3], [3, 1]), b"\x89", b"N")
    untyped = storage("torch.storage.UntypedStorage", "0", 24)
    unsigned = (*place(untyped, [4], [1], 2), b"\x89", b"N", named("torch.uint32"))
    values = {
        "plain": plain,
        "oldest": call("torch._utils._rebuild_tensor", *place(of, [2, 3], [3, 1])),
        "parameter": call("torch._utils._rebuild_parameter", plain, b"\x88", b"N"),
        "state": call(
            "torch._utils._rebuild_parameter_with_state", plain, b"\x88", b"N", b"}"
        ),
        "subclass": call(
            "torch._tensor._rebuild_from_type_v2",
            named("torch._utils._rebuild_tensor_v2"),
            named("torch.nn.Thing"),
            bare,
            b"}",
        ),
        "typed": call("torch._utils._rebuild_tensor_v3", *unsigned),
        "zero": tensor(of, [], [], 5),
        "empty": tensor(of, [0, 2**20], [1, 1], 99),
    }
    numbers = np.arange(6, dtype="f4")
    data = torch_zip(pickled(dictionary(values)), {"0": numbers.tobytes()})
    content = read(tmp_path, data).content
    for name in ("plain", "oldest", "parameter", "state", "subclass"):
        assert_same(content[name], numbers.reshape(2, 3))
    assert_same(content["typed"], numbers.view("u4")[2:])
    assert_same(content["zero"], numbers[5].reshape(()))
    assert_same(content["empty"], np.zeros((0, 2**20), "f4"))


@pytest.mark.parametrize("protocol", range(5))
def test_plain_values_of_every_protocol(protocol, tmp_path):
    """Red if an operation of pickle is read otherwise than pickle does."""
    value = {
        "texts": ["a", "\u20ac\n", "x" * 300, "it's"],
        "bytes": [b"", b"\xff\n", bytes(300)] if protocol > 2 else [],
        "numbers": [0, -1, 255, 65535, 2**31, -(2**70), 1.5, float("inf")],
        "truth": (True, False, None),
        "nested": [[], {}, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), {1: {2.5: [3]}}],
    }
    value["same"] = value["texts"]
    found = read(tmp_path, torch_zip(pickle.dumps(value, protocol), {})).content
    assert found == value and found["same"] is found["texts"]
    assert [type(x) for x in found["truth"]] == [bool, bool, type(None)]


@pytest.mark.parametrize("protocol", range(5))
def test_strangers_are_named_and_not_made(protocol, tmp_path):
    value = {
        "path": pathlib.PurePosixPath("a/b"),
        "set": {1, 2},
        "frozen": frozenset([1]),
        "complex": 1j,
        "class": pathlib.PurePosixPath,
    }
    found = read(tmp_path, torch_zip(pickle.dumps(value, protocol), {})).content
    assert all(isinstance(x, Inert) for x in found.values())
    assert found["class"].name == "pathlib.PurePosixPath"
    assert found["class"].args is None
    assert repr(found["set"]).endswith("set')")


def test_what_python_2_wrote(tmp_path):
    pairs = b"](](" + text("b") + b"K\2e](" + text("a") + b"K\1ee"
    value = dictionary(
        {
            "ordered": call("collections.OrderedDict", pairs)
            + dictionary({"_metadata": b"N"})
            + b"b",
            "string": b"U\2ab",
            "bytes": b"T\2\0\0\0\xff\xfe",
            "quoted": b"S'a\\nb'\n",
            "milestones": call("collections.Counter", b"}K\x1eK\1s"),
        }
    )
    found = read(tmp_path, torch_zip(pickled(value), {})).content
    assert list(found["ordered"].items()) == [("b", 2), ("a", 1)]
    assert found["string"] == "ab" and found["bytes"] == "\xff\xfe"
    assert found["quoted"] == "a\nb" and found["milestones"] == {30: 1}


def test_keys_that_are_no_text(tmp_path):
    """Red if a class or a tuple as a key is refused: optimizers and callbacks do so."""
    items = named("a.Callback") + b"K\1K\2\x85K\3K\5K\6\x88K\7N" + b"K\x08"
    found = read(tmp_path, torch_zip(pickled(b"}(" + items + b"u"), {})).content
    names = [key.name for key in found if isinstance(key, Inert)]
    assert names == ["a.Callback", "key"]
    assert found[5] == 6 and found[True] == 7 and found[None] == 8


def test_a_file_is_told_by_its_content_and_read_when_asked(tmp_path):
    kind = "torch.FloatStorage"
    found = read(tmp_path, saved(kind, "little", torch_zip))
    assert found.format == "zip" and "content" not in repr(found)
    data = pathlib.Path(found.path).read_bytes()
    assert found.sha256 == hashlib.sha256(data).hexdigest()
    at = data.index(NUMBERS[kind].tobytes())
    damaged = data[:at] + b"\x55" + data[at + 1 :]
    for name in ("all", "turned"):  # of a whole storage, and of a part
        again = read(tmp_path, damaged).content[name]
        with pytest.raises(RefusedFileError, match="weights: is damaged: the checksum"):
            again.numpy()
    pathlib.Path(found.path).write_bytes(data[:at])
    with pytest.raises(RefusedFileError, match="become shorter"):
        found.content["all"].numpy()


def test_only_the_part_that_a_tensor_sees_is_read(tmp_path):
    """Red if a slice of a large safetensors or legacy storage takes all of it."""
    of = legacy_storage("FloatStorage", "0", 2**20)
    value = pickled(dictionary({"w": tensor(of, [2], [1], 2**19)}))
    data = torch_legacy(value, {"0": (2**20, bytes(2**22))})
    part = read(tmp_path, data).content["w"]
    assert part.numpy().base is None or part.numpy().base.nbytes <= 8


def test_no_file_and_no_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing at .*expected a file"):
        read_weights_file(tmp_path / "absent.pth")
    with pytest.raises(RefusedFileError, match="is no file"):
        read_weights_file(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RefusedFileError, match="pipe: is no file"):
        read_weights_file(tmp_path / "pipe")
    (tmp_path / "a\nb").write_bytes(b"")
    with pytest.raises(RefusedFileError, match=r"^a\?b: is empty"):
        read_weights_file(tmp_path / "a\nb")


def test_safetensors_out_and_in(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        f"{name}.{shape}": rng.integers(0, 2, shape).astype(dtype)
        for name, dtype in DTYPES.items()
        for shape in ((), (3,), (0, 2), (2, 3))
    }
    arrays["turned"] = np.arange(6, dtype="f4").reshape(2, 3).T
    arrays["big"] = np.arange(3, dtype=">f4")
    texts = {"config": '{"a": 1}', "\u20ac": "\n"}
    path, again = tmp_path / "a.safetensors", tmp_path / "b"
    write_safetensors(path, arrays, texts)
    backwards = dict(reversed(arrays.items()))
    write_safetensors(again, backwards, dict(reversed(texts.items())))
    assert path.read_bytes() == again.read_bytes()
    found = read_weights_file(path)
    assert found.format == "safetensors" and found.metadata == texts
    assert set(found.content) == set(arrays)
    for name, array in arrays.items():
        expected = array.astype(array.dtype.newbyteorder("="))
        assert_same(found.content[name], np.array(expected, order="C"))
        place = found.content[name].storage
        assert place.start % array.itemsize == 0, "begins where its type may"
    (length,) = struct.unpack("<Q", path.read_bytes()[:8])
    assert length % 8 == 0


def test_safetensors_are_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.safetensors"
    for arrays, metadata in (
        ({"a": np.zeros(2, "c8")}, {}),
        ({"__metadata__": np.zeros(2, "f4")}, {}),
        ({"a": np.zeros(2, "f4")}, {"a": 3}),
    ):
        with pytest.raises(ValueError, match="expected"):
            write_safetensors(path, arrays, metadata)
    assert os.listdir(tmp_path) == []


def test_a_header_may_be_padded_and_a_tensor_empty(tmp_path):
    header = b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}   '
    assert_same(read(tmp_path, safetensors(header)).content["a"], np.zeros(0, "f4"))
    assert read(tmp_path, safetensors({})).content == {}
    numbers = dictionary({"n": whole(2**70)})
    assert read(tmp_path, torch_zip(pickled(numbers), {})).content == {"n": 2**70}
