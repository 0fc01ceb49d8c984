"""Pickles that would take memory, time or a program's obedience."""

import numpy as np

from helpers.weight_files import (
    call,
    dictionary,
    entry,
    named,
    pickled,
    place,
    safetensors,
    several,
    storage,
    tensor,
    text,
    torch_zip,
    whole,
)

FOUR = np.arange(4, dtype="f4").tobytes()
OF_FOUR = storage("FloatStorage", "0", 4)


def zipped(value: bytes, **others: bytes) -> bytes:
    """An archive of a pickle that pushes a value, with a storage of four numbers."""
    return torch_zip(pickled(dictionary({"w": value})), {"0": FOUR}, **others)


def _collisions(count: int) -> bytes:
    """A dictionary of numbers that Python hashes alike."""
    keys = b"".join(whole(i * (2**61 - 1)) + b"N" for i in range(1, count))
    return b"}(" + keys + b"u"


def pickles() -> dict[str, tuple[bytes, str]]:
    """Files of `torch.save` by what is wrong, and a pattern of what is said."""
    values = {
        "calls_posix": (call("posix.system", text("touch made")), "posix.system.*No"),
        "names_os": (named("os.system"), "os.system"),
        "names_eval": (named("builtins.eval"), "builtins.eval"),
        "names_python_2_exec": (named("__builtin__.exec"), "exec"),
        "names_subprocess": (named("subprocess.Popen"), "subprocess"),
        "names_through_another": (
            b"\x8c\5torch\x8c\x09os.system\x93", "torch.os.system"),
        "endless_name": (
            text("a." * 200_000) + b"q\0" + b"0h\0h\0\x930" * 90_000 + b"N", "length"),
        "inst": (b"(iposix\nsystem\n", "not read"),
        "obj": (several() + b"(cposix\nsystem\no", "posix"),
        "extension": (b"\x82\1", "not read"),
        "text_id": (b"P0\n", "not read"),
        "protocol_5": (b"\x96" + bytes(8), "not read"),
        "unknown_operation": (b"\xff", "not read"),
        "empty_stack": (b"000000", "empty stack"),
        "no_mark": (b"1111t", "empty stack"),
        "calls_a_number": (b"K\1)R", "calls 1"),
        "calls_with_a_number": (named("a.b") + b"K\1R", "calls"),
        "state_of_a_number": (b"K\1}b", "state into 1"),
        "items_of_a_number": (b"K\1K\2K\3s", "no dictionary"),
        "appends_to_a_number": (b"K\1K\2a", "no list"),
        "adds_to_a_list": (b"](K\2\x90", "no set"),
        "key_without_value": (b"(K\1d", "without a value"),
        "key_is_a_list": (b"}]K\1s", "as a key"),
        "not_remembered": (b"h\7", "not remembered"),
        "remembers_below_0": (b"Np-5\n", "below 0"),
        "remembers_2_to_31": (b"Nr\xff\xff\xff\x7f" + whole(2**48) + b"Q", "an id"),
        "number_of_a_gigabyte": (b"\x8b\0\0\0\x40", "1073741824 bytes"),
        "number_of_negative_length": (b"\x8b\xff\xff\xff\xff", "-1 bytes"),
        "number_of_5000_digits": (b"I" + b"9" * 5000 + b"\n", "bad value"),
        "text_of_exabytes": (b"\x8d" + b"\xff" * 8, "cut off"),
        "bytes_of_exabytes": (b"\x8e" + b"\xff" * 8, "cut off"),
        "bad_utf_8": (b"X\1\0\0\0\xff", "bad value"),
        "string_without_quotes": (b"Sx\n", "without quotes"),
        "not_latin_1": (
            call("_codecs.encode", text("\u20ac"), text("latin1")), "bad value"),
        "encodes_a_number": (
            call("_codecs.encode", b"K\1", text("latin1")), "bytes were"),
        "copies_bytes": (
            text("a" * 2**20) + b"q\0" + text("latin1") + b"\x86q\1" +
            (named("_codecs.encode") + b"q\2") +
            b"h\2h\1R" * 100, "copies"),
        "copies_dictionaries": (
            b"}q\1(" + b"".join(whole(i) + b"N" for i in range(10_000)) + b"u\x85q\2"
            + named("collections.OrderedDict") + b"q\3" + b"h\3h\2R" * 1000, "copies"),
        "dictionary_of_numbers": (
            call("collections.OrderedDict", b"](K\1K\2e"), "pairs"),
        "id_is_a_text": (text("0") + b"Q", "not of a storage"),
        "id_of_a_number": (
            several(text("storage"), b"K\1", text("0"), text("cpu"), b"K\1") + b"Q",
            "without a type"),
        "quantised": (storage("QUInt8Storage", "0", 4), "plain tensors"),
        "quantised_tensor": (call("torch._utils._rebuild_qtensor", OF_FOUR), "plain"),
        "sparse": (call("torch._utils._rebuild_sparse_tensor", b"N"), "plain tensors"),
        "float8": (
            call("torch._utils._rebuild_tensor_v3", *place(OF_FOUR, [4], [1]),
                 b"\x89", b"N", named("torch.float8_e4m3fn")), "plain tensors"),
        "conjugated": (
            tensor(OF_FOUR, [4], [1], 0, dictionary({"conj": b"\x88"})), "resolve"),
        "storage_missing": (tensor(storage("FloatStorage", "7", 4), [4], [1]), "lacks"),
        "storage_longer": (tensor(storage("FloatStorage", "0", 5), [4], [1]), "16 by"),
        "storage_of_2_to_40": (
            tensor(storage("FloatStorage", "0", 2**40), [4], [1]), "16 bytes"),
        "storage_below_0": (tensor(storage("FloatStorage", "0", -4), [4], [1]), "-4"),
        "beyond_the_storage": (tensor(OF_FOUR, [5], [1]), "reaches element 5"),
        "offset": (tensor(OF_FOUR, [4], [1], 1), "reaches element 5"),
        "strides": (tensor(OF_FOUR, [2, 2], [3, 1]), "reaches element 5"),
        "shape_below_0": (tensor(OF_FOUR, [-1], [1]), "holds -1"),
        "stride_below_0": (tensor(OF_FOUR, [4], [-1], 3), "holds -1"),
        "offset_below_0": (tensor(OF_FOUR, [4], [1], -1), "holds -1"),
        "shape_of_2_to_62": (tensor(OF_FOUR, [2**62], [0]), "whole number"),
        "shape_of_2000_bits": (tensor(OF_FOUR, [2**2000], [0]), "2001 bits"),
        "shape_of_truth": (
            call("torch._utils._rebuild_tensor_v2", OF_FOUR, b"K\0", b"\x88\x85",
                 b"K\1\x85", b"\x89", b"N"), "holds True"),
        "expanded_bomb": (tensor(OF_FOUR, [2**40], [0]), "repeats"),
        "expanded_and_empty": (tensor(OF_FOUR, [2**48, 2**48, 0], [0] * 3), "repeats"),
        "nine_axes": (tensor(OF_FOUR, [1] * 9, [1] * 9), "9 axes"),
        "strides_too_few": (tensor(OF_FOUR, [2, 2], [1]), "1 strides"),
        "tensor_of_a_text": (tensor(text("x"), [1], [1]), "without a storage"),
        "tensor_of_nothing": (call("torch._utils._rebuild_tensor_v2"), "without a sh"),
        "shape_is_a_number": (
            call("torch._utils._rebuild_tensor_v2", OF_FOUR, b"K\0", b"K\1", b"K\1"),
            "whose shape is 1|without strides"),
    }  # fmt: skip
    return {name: (zipped(value), said) for name, (value, said) in values.items()}


def endless_pickles() -> dict[str, tuple[bytes, str]]:
    """Files whose pickle goes on and on, and a pattern of what is said."""
    million = 1_100_000
    values = {
        "a_million_lists": b"]" * million,
        "a_million_dictionaries": b"}" * million,
        "a_million_marks": b"(" * million,
        "a_million_remembered": b"N" + b"\x94" * million,
        "a_million_names": b"ca\nb\n" * million,
        "many_calls": (
            named("a.b") + b"q\0)q\1" + b"h\0h\1R" * 400_000),
        "many_tensors": (
            several(*place(OF_FOUR, [2, 2], [2, 1])) + b"q\0"
            + named("torch._utils._rebuild_tensor_v2") + b"q\1"
            + b"h\1h\0R" * 400_000),
        "many_storages": (
            OF_FOUR[:-1] + b"q\0Q" + b"h\0Q" * 400_000),
    }  # fmt: skip
    return {name: (zipped(value), "operations") for name, value in values.items()}


def read_right() -> dict[str, bytes]:
    """Files that are strange, and read."""
    doubling = b"]q\0" + b"".join(
        b"](h" + bytes([i]) + b"h" + bytes([i]) + b"eq" + bytes([i + 1])
        for i in range(60)
    )
    return {
        "nested_200_000": zipped(b")" + b"\x85" * 200_000),
        "nested_key": zipped(b"})" + b"\x85" * 200_000 + b"Ns"),
        "nested_calls": zipped(
            named("a.b") + b"q\0)" + b"\x85q\1" + b"h\0h\1Rq\1" +
            b"h\1\x85q\1h\0h\1Rq\1" * 30_000
        ),
        "doubling": zipped(several(doubling)),
        "circle": zipped(b"}q\0" + text("a") + b"h\0s"),
        "same_hashes": zipped(_collisions(50_000)),
        "frame_of_exabytes": zipped(b"\x95" + b"\xff" * 8 + b"N"),
        "header_of_brackets": safetensors({"__metadata__": {"a": "[{" * 100_000}}),
        "header_of_many": safetensors(
            {f"layer.{i}": entry("F32", [0, 1], 0, 0) for i in range(35_000)}
        ),
    }  # fmt: skip
