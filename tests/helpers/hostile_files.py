"""Files that would take memory, time or a program's obedience, and what is said."""

import struct
import zipfile

import numpy as np

from helpers.weight_files import (
    archive,
    call,
    dictionary,
    entry,
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

_FOUR = np.arange(4, dtype="f4").tobytes()
_OF_FOUR = storage("FloatStorage", "0", 4)


def _zip(value: bytes, **others: bytes) -> bytes:
    """An archive of a pickle that pushes a value, with a storage of four numbers."""
    return torch_zip(pickled(dictionary({"w": value})), {"0": _FOUR}, **others)


def _raw(operations: bytes) -> bytes:
    return torch_zip(operations, {})


def _patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def _many_entries(count: int) -> bytes:
    """An archive of empty files that share one header."""
    local = b"PK\3\4" + bytes(26)
    entries = b"".join(
        struct.pack("<4s6H3L5H2L", b"PK\1\2", *[0] * 9, 6, *[0] * 6) + b"%06x" % i
        for i in range(count)
    )
    wide = struct.pack(
        "<4sQ2H2L4Q",
        b"PK\6\6",
        44,
        45,
        45,
        0,
        0,
        count,
        count,
        len(entries),
        len(local),
    )
    where = struct.pack("<4sLQL", b"PK\6\7", 0, len(local) + len(entries), 1)
    end = b"PK\5\6" + bytes(4) + b"\xff" * 12 + bytes(2)
    return local + entries + wide + where + end


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
        "quantised_tensor": (call("torch._utils._rebuild_qtensor", _OF_FOUR), "plain"),
        "sparse": (call("torch._utils._rebuild_sparse_tensor", b"N"), "plain tensors"),
        "float8": (
            call("torch._utils._rebuild_tensor_v3", *place(_OF_FOUR, [4], [1]),
                 b"\x89", b"N", named("torch.float8_e4m3fn")), "plain tensors"),
        "conjugated": (
            tensor(_OF_FOUR, [4], [1], 0, dictionary({"conj": b"\x88"})), "resolve"),
        "storage_missing": (tensor(storage("FloatStorage", "7", 4), [4], [1]), "lacks"),
        "storage_longer": (tensor(storage("FloatStorage", "0", 5), [4], [1]), "16 by"),
        "storage_of_2_to_40": (
            tensor(storage("FloatStorage", "0", 2**40), [4], [1]), "16 bytes"),
        "storage_below_0": (tensor(storage("FloatStorage", "0", -4), [4], [1]), "-4"),
        "beyond_the_storage": (tensor(_OF_FOUR, [5], [1]), "reaches element 5"),
        "offset": (tensor(_OF_FOUR, [4], [1], 1), "reaches element 5"),
        "strides": (tensor(_OF_FOUR, [2, 2], [3, 1]), "reaches element 5"),
        "shape_below_0": (tensor(_OF_FOUR, [-1], [1]), "holds -1"),
        "stride_below_0": (tensor(_OF_FOUR, [4], [-1], 3), "holds -1"),
        "offset_below_0": (tensor(_OF_FOUR, [4], [1], -1), "holds -1"),
        "shape_of_2_to_62": (tensor(_OF_FOUR, [2**62], [0]), "whole number"),
        "shape_of_2000_bits": (tensor(_OF_FOUR, [2**2000], [0]), "2001 bits"),
        "shape_of_truth": (
            call("torch._utils._rebuild_tensor_v2", _OF_FOUR, b"K\0", b"\x88\x85",
                 b"K\1\x85", b"\x89", b"N"), "holds True"),
        "expanded_bomb": (tensor(_OF_FOUR, [2**40], [0]), "repeats"),
        "expanded_and_empty": (tensor(_OF_FOUR, [2**48, 2**48, 0], [0] * 3), "repeats"),
        "nine_axes": (tensor(_OF_FOUR, [1] * 9, [1] * 9), "9 axes"),
        "strides_too_few": (tensor(_OF_FOUR, [2, 2], [1]), "1 strides"),
        "tensor_of_a_text": (tensor(text("x"), [1], [1]), "without a storage"),
        "tensor_of_nothing": (call("torch._utils._rebuild_tensor_v2"), "without a sh"),
        "shape_is_a_number": (
            call("torch._utils._rebuild_tensor_v2", _OF_FOUR, b"K\0", b"K\1", b"K\1"),
            "whose shape is 1|without strides"),
    }  # fmt: skip
    return {name: (_zip(value), said) for name, (value, said) in values.items()}


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
            several(*place(_OF_FOUR, [2, 2], [2, 1])) + b"q\0"
            + named("torch._utils._rebuild_tensor_v2") + b"q\1"
            + b"h\1h\0R" * 400_000),
        "many_storages": (
            _OF_FOUR[:-1] + b"q\0Q" + b"h\0Q" * 400_000),
    }  # fmt: skip
    return {name: (_zip(value), "operations") for name, value in values.items()}


def read_right() -> dict[str, bytes]:
    """Files that are strange, and read."""
    doubling = b"]q\0" + b"".join(
        b"](h" + bytes([i]) + b"h" + bytes([i]) + b"eq" + bytes([i + 1])
        for i in range(60)
    )
    return {
        "nested_200_000": _zip(b")" + b"\x85" * 200_000),
        "nested_key": _zip(b"})" + b"\x85" * 200_000 + b"Ns"),
        "nested_calls": _zip(
            named("a.b") + b"q\0)" + b"\x85q\1" + b"h\0h\1Rq\1" +
            b"h\1\x85q\1h\0h\1Rq\1" * 30_000
        ),
        "doubling": _zip(several(doubling)),
        "circle": _zip(b"}q\0" + text("a") + b"h\0s"),
        "same_hashes": _zip(_collisions(50_000)),
        "frame_of_exabytes": _zip(b"\x95" + b"\xff" * 8 + b"N"),
        "header_of_brackets": safetensors({"__metadata__": {"a": "[{" * 100_000}}),
        "header_of_many": safetensors(
            {f"layer.{i}": entry("F32", [0, 1], 0, 0) for i in range(35_000)}
        ),
    }  # fmt: skip


def zips() -> dict[str, tuple[bytes, str]]:
    """Archives by what is wrong, and a pattern of what is said."""
    good = _zip(tensor(_OF_FOUR, [4], [1]))
    directory = good.index(b"PK\1\2")
    end = good.index(b"PK\5\6")
    pickle = pickled(b"}")
    return {
        "no_end": (good[:-1], "cut off|damaged"),
        "no_directory": (good[:directory], "without its end"),
        "rest": (good + b"x", "ends at byte"),
        "deflated": (
            archive({"a/data.pkl": pickle}, zipfile.ZIP_DEFLATED), "compressed"),
        "bomb": (
            archive({"a/data.pkl": pickle, "a/data/0": bytes(2**27)},
                    zipfile.ZIP_DEFLATED), "compressed"),
        "encrypted": (_patched(good, directory + 8, b"\1"), "encrypted"),
        "no_pickle": (archive({"a/x": b""}), "0 files data.pkl"),
        "two_pickles": (archive({"a/data.pkl": pickle, "b/data.pkl": pickle}), "2 fil"),
        "same_name_twice": (
            archive({"a/data.pkl": pickle, "a/data.pkm": pickle}).replace(
                b"a/data.pkm", b"a/data.pkl"), "two files"),
        "size": (
            _patched(good, directory + 20, b"\xf0\xff\xff\xff" * 2), "room for"),
        "size_in_64_bits": (_patched(good, directory + 20, b"\xff" * 8), "64 bits"),
        "place": (_patched(good, directory + 42, b"\1"), "is not at byte 1"),
        "place_beyond": (_patched(good, directory + 42, b"\xf0\xff\xff\xff"), "room"),
        "count": (_patched(good, end + 8, b"\xff\xff\xff\xff"), "65535 entries"),
        "count_less": (_patched(good, end + 8, b"\1\0\1\0"), "rest"),
        "directory_beyond": (_patched(good, end + 16, b"\xff\xff\xff\x7f"), "damaged"),
        "directory_broken": (_patched(good, directory, b"XX"), "broken"),
        "name_is_no_text": (_patched(good, directory + 46, b"\xff"), "no text"),
        "damaged_pickle": (
            _patched(good, good.index(b"\x80\2}"), b"\x80\3"), "checksum"),
        "entries_65_537": (_many_entries(65_537), "65537 files"),
        "entries_65_536": (_many_entries(65_536), "0 files data.pkl"),
        "torchscript": (
            archive({"a/data.pkl": pickle, "a/code/a.py": b"", "a/constants.pkl": b""}),
            "TorchScript"),
        "torch_export": (
            archive({"a/data.pkl": pickle, "a/archive_format": b"pt2"}), "export"),
        "numpy": (archive({"weight.npy": b""}), "NumPy"),
        "byte_order": (_zip(b"N", byteorder=b"middle"), "byte order"),
        "pickle_of_40_mb": (_raw(b"\x80\2X\0\0\x80\2" + bytes(2**25 + 8)), "at most"),
        "a_list": (_raw(pickled(b"]")), "holds a list"),
        "a_module": (_raw(pickled(call("torch.nn.Linear"))), "'torch.nn.Linear', not"),
        "empty_pickle": (_raw(b""), "cut off"),
    }  # fmt: skip


def legacies() -> dict[str, tuple[bytes, str]]:
    """Files of the old format by what is wrong, and a pattern of what is said."""
    value = tensor(legacy_storage("FloatStorage", "0", 4), [4], [1])
    pickle = pickled(dictionary({"w": value}))
    part = legacy_storage("FloatStorage", "0", 4).removesuffix(b"NtQ")
    twice = dictionary(
        {
            "a": value,
            "b": tensor(legacy_storage("IntStorage", "0", 4), [4], [1]),
        }
    )
    many = b"N" + b"\x94" * 200_000
    return {
        "cut": (torch_legacy(pickle, {"0": (4, _FOUR)})[:-1], "cut off"),
        "big_endian": (
            torch_legacy(pickle, {"0": (4, _FOUR)}, little=False), "byte order"),
        "count": (torch_legacy(pickle, {"0": (5, _FOUR)}), "5 elements"),
        "count_below_0": (torch_legacy(pickle, {"0": (-4, _FOUR)}), "-4 elements"),
        "other_key": (torch_legacy(pickle, {"1": (4, _FOUR)}), "other storages"),
        "no_key": (torch_legacy(pickle, {}), "other storages"),
        "part_of_another": (
            torch_legacy(pickled(dictionary({"w": part + text("1") + b"tQ"})), {}),
            "part of another"),
        "two_types": (torch_legacy(pickled(twice), {"0": (4, _FOUR)}), "two things"),
        "gigabytes": (
            torch_legacy(pickled(dictionary({
                "w": tensor(legacy_storage("FloatStorage", "0", 2**40), [4], [1])})),
                {"0": (2**40, _FOUR)}), "cut off"),
        "runs": (torch_legacy(pickled(call("os.system", text("ls"))), {}), "os.system"),
        "operations": (torch_legacy(pickled(many + many + many + many), {}),
                       "operations"),
        "a_module": (
            torch_legacy(pickled(several(text("module"), named("a.Net"), b"N", b"N")
                                 + b"Q)\x81"), {}), "'a.Net', not"),
        "another_pickle": (
            torch_legacy(pickle, {}).replace(b"\x8a\2\xe9\3", b"\x8a\2\xe8\3"),
            "not one of torch.save"),
    }  # fmt: skip


def headers() -> dict[str, tuple[bytes, str]]:
    """safetensors files by what is wrong, and a pattern of what is said."""
    data = bytes(16)
    f4 = entry("F32", [4], 0, 16)
    many = b'{"a":' + b"[],".join([b"["] + [b""] * 1_350_000) + b"[]]}"
    values = {
        "cut": (safetensors({"a": f4}, data[:9]), "16 bytes, 9 are"),
        "rest": (safetensors({"a": f4}, data + b"x"), "goes on for 1"),
        "hole": (
            safetensors({"a": entry("F32", [1], 0, 4), "b": entry("F32", [1], 8, 12)},
                        data[:12]), "hole before 'b'"),
        "overlap": (
            safetensors({"a": entry("F32", [2], 0, 8), "b": entry("F32", [2], 4, 12)},
                        data[:12]), "overlaps at 'b'"),
        "starts_late": (safetensors({"a": entry("F32", [1], 4, 8)}, data[:8]), "hole"),
        "backwards": (safetensors({"a": entry("F32", [4], 16, 0)}, data), "no place"),
        "below_0": (safetensors({"a": entry("F32", [4], -16, 0)}, data), "no place"),
        "offsets_of_truth": (
            safetensors({"a": entry("U8", [1], False, True)}, b"x"), "no place"),
        "offsets_broken": (safetensors({"a": entry("F32", [4], 0., 16.)}, data), "no"),
        "three_offsets": (safetensors({"a": entry("F32", [4], 0, 8, 16)}, data), "no"),
        "offset_of_2_to_70": (
            safetensors({"a": entry("F32", [4], 0, 2**70)}, data), "no place"),
        "shape": (safetensors({"a": entry("F32", [5], 0, 16)}, data), "20 bytes, in 16|"
                  "reaches element"),
        "shape_less": (safetensors({"a": entry("F32", [3], 0, 16)}, data), "12 bytes"),
        "shape_of_truth": (safetensors({"a": entry("F32", [True], 0, 4)}, data[:4]),
                           "True"),
        "shape_below_0": (safetensors({"a": entry("F32", [-2, -2], 0, 16)}, data), "2"),
        "shape_of_2_to_60": (
            safetensors({"a": entry("F32", [2**60, 2**60, 0], 0, 0)}), "whole number"),
        "nine_axes": (safetensors({"a": entry("F32", [1] * 9, 0, 4)}, data[:4]), "9"),
        "no_shape": (safetensors({"a": entry("F32", None, 0, 16)}, data), "shape is"),
        "dtype": (safetensors({"a": entry("F8_E4M3", [16], 0, 16)}, data), "F8_E4M3"),
        "dtype_is_a_list": (safetensors({"a": entry([], [4], 0, 16)}, data), "a list"),
        "no_entry": (safetensors({"a": 3}), "something else"),
        "name_twice": (
            safetensors(b'{"a":%b,"a":%b}' % ((b'{"dtype":"F32"}',) * 2)), "twice"),
        "metadata": (safetensors({"__metadata__": {"a": 3}}), "not texts"),
        "metadata_is_a_list": (safetensors({"__metadata__": []}), "not texts"),
        "no_json": (safetensors(b"{x"), "no JSON"),
        "no_utf_8": (safetensors(b'{"\xff":1}'), "no JSON"),
        "not_a_number": (safetensors(b'{"a":NaN}'), "NaN"),
        "deep": (safetensors(b'{"a":' + b"[" * 2_000_000), "no JSON"),
        "digits": (safetensors(b'{"a":' + b"9" * 5000 + b"}"), "no JSON|something"),
        "of_lists": (safetensors(many), "something else"),
        "exabytes": (struct.pack("<Q", 2**63) + b"{}", "cut off"),
        "of_5_mb": (safetensors(b"{" + b" " * 5_000_000 + b"}"), "at most"),
    }  # fmt: skip
    return values


def others() -> dict[str, tuple[bytes, str]]:
    """Files of other kinds, and a pattern of what is said."""
    return {
        "empty": (b"", "is empty"),
        "lfs": (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        "web_page": (b"<!DOCTYPE html>", "web page"),
        "gzip": (b"\x1f\x8b\x08" + bytes(40), "gzip"),
        "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(40), "HDF5"),
        "gguf": (b"GGUF" + bytes(40), "GGUF"),
        "numpy": (b"\x93NUMPY\1\0v\0{'descr'", "NumPy"),
        "tar": (bytes(257) + b"ustar" + bytes(250), "tar"),
        "pickle": (pickled(b"}"), "not one of torch.save"),
        "json": (b'{"weight_map": {}}', "JSON"),
        "text": (b"hello there", "begins with"),
        "zeros": (bytes(100), "begins with"),
    }


def everything() -> dict[str, bytes]:
    """Every file by name."""
    groups = {
        "pickle": pickles(), "endless": endless_pickles(), "zip": zips(), "legacy": legacies(),
        "header": headers(), "other": others(),
    }  # fmt: skip
    found = {
        f"{group}-{name}": data
        for group, files in groups.items()
        for name, (data, _) in files.items()
    }
    return found | {f"read-{name}": data for name, data in read_right().items()}
