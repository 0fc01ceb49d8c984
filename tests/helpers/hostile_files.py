"""Files that would take memory, time or a program's obedience, and what is said."""

import struct
import zipfile

from helpers.hostile_pickles import (
    FOUR,
    OF_FOUR,
    endless_pickles,
    pickles,
    read_right,
    zipped,
)
from helpers.weight_files import (
    archive,
    call,
    dictionary,
    entry,
    legacy_storage,
    named,
    pickled,
    safetensors,
    several,
    tensor,
    text,
    torch_legacy,
    torch_zip,
)


def _raw(operations: bytes) -> bytes:
    return torch_zip(operations, {})


def _patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def _many_entries(count: int, length: int = 0) -> bytes:
    """An archive of files that all lie in one place."""
    local = b"PK\3\4" + bytes(26 + length)
    sizes = *[0] * 7, length, length, 6, *[0] * 6
    entry_of = struct.pack("<4s6H3L5H2L", b"PK\1\2", *sizes)
    entries = b"".join(entry_of + b"%06x" % i for i in range(count))
    counts = count, count, len(entries), len(local)
    wide = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, *counts)
    where = struct.pack("<4sLQL", b"PK\6\7", 0, len(local) + len(entries), 1)
    end = b"PK\5\6" + bytes(4) + b"\xff" * 12 + bytes(2)
    return local + entries + wide + where + end


def zips() -> dict[str, tuple[bytes, str]]:
    """Archives by what is wrong, and a pattern of what is said."""
    good = zipped(tensor(OF_FOUR, [4], [1]))
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
        "one_place": (_many_entries(300, 20_000), "room for"),
        "torchscript": (
            archive({"a/data.pkl": pickle, "a/code/a.py": b"", "a/constants.pkl": b""}),
            "TorchScript"),
        "torch_export": (
            archive({"a/data.pkl": pickle, "a/archive_format": b"pt2"}), "export"),
        "numpy": (archive({"weight.npy": b""}), "NumPy"),
        "byte_order": (zipped(b"N", byteorder=b"middle"), "byte order"),
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
        "cut": (torch_legacy(pickle, {"0": (4, FOUR)})[:-1], "cut off"),
        "big_endian": (
            torch_legacy(pickle, {"0": (4, FOUR)}, little=False), "byte order"),
        "count": (torch_legacy(pickle, {"0": (5, FOUR)}), "5 elements"),
        "count_below_0": (torch_legacy(pickle, {"0": (-4, FOUR)}), "-4 elements"),
        "other_key": (torch_legacy(pickle, {"1": (4, FOUR)}), "other storages"),
        "no_key": (torch_legacy(pickle, {}), "other storages"),
        "part_of_another": (
            torch_legacy(pickled(dictionary({"w": part + text("1") + b"tQ"})), {}),
            "part of another"),
        "two_types": (torch_legacy(pickled(twice), {"0": (4, FOUR)}), "two things"),
        "gigabytes": (
            torch_legacy(pickled(dictionary({
                "w": tensor(legacy_storage("FloatStorage", "0", 2**40), [4], [1])})),
                {"0": (2**40, FOUR)}), "cut off"),
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
        "pickle": pickles(), "endless": endless_pickles(), "zip": zips(),
        "legacy": legacies(), "header": headers(), "other": others(),
    }  # fmt: skip
    found = {
        f"{group}-{name}": data
        for group, files in groups.items()
        for name, (data, _) in files.items()
    }
    return found | {f"read-{name}": data for name, data in read_right().items()}
