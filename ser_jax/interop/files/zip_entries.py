"""Where the files in a zip archive lie, none of them unpacked.

`zipfile` makes an object of every entry before it can be asked how many there are, and
takes what it finds as it is. Here sizes are compared with the file's first.

Format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, sections 4.3.7 (of
an entry), 4.3.12 to 4.3.16 (the directory and its end), 4.5.3 (64 bits)
"""

import dataclasses
import struct
from typing import BinaryIO

from ser_jax.interop.files.refused import UnreadableError, shown
from ser_jax.interop.files.tensors import read_at

_MOST_ENTRIES = 2**16
_MOST_DIRECTORY_BYTES = 2**24
_LOCAL = struct.Struct("<4s22xHH")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_END_64_PLACE = struct.Struct("<4sLQL")
_MOST_COMMENT_BYTES = 2**16 - 1
_IN_64_BITS = 2**32 - 1
_ENCRYPTED = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """A file in an archive.

    Attributes:
        place: Where its own header begins, bytes.
        num_bytes: Its length in the archive.
        crc32: Its checksum.
        stored: Whether it is stored as it is, not compressed or encrypted.
    """

    place: int
    num_bytes: int
    crc32: int
    stored: bool


def read_entries(stream: BinaryIO, size: int) -> dict[str, Entry]:
    """The files in an archive.

    Args:
        stream: The archive.
        size: Its bytes.

    Returns:
        Entries by name.

    Raises:
        UnreadableError: If it is cut off, damaged, or says that more is in it than has
            room.
    """
    count, start, length = _directory(stream, size)
    if count > _MOST_ENTRIES or length > _MOST_DIRECTORY_BYTES:
        raise UnreadableError(
            f"is a zip archive of {count} files; at most {_MOST_ENTRIES} are read"
        )
    data = read_at(stream, start, length)
    entries: dict[str, Entry] = {}
    at, total = 0, 0
    for _ in range(count):
        name, entry, at = _entry(data, at)
        total += entry.num_bytes
        if name in entries:
            raise UnreadableError(f"is a zip archive with two files {shown(name)}")
        if entry.place + entry.num_bytes > start or total > size:
            raise UnreadableError(
                f"is a zip archive whose {shown(name)} has {entry.num_bytes} bytes, "
                "more than there is room for"
            )
        entries[name] = entry
    if at != length:
        raise UnreadableError("is a damaged zip archive: its directory has a rest")
    return entries


def data_start(stream: BinaryIO, name: str, entry: Entry) -> int:
    """Where an entry's bytes begin in the archive.

    Args:
        stream: The archive.
        name: The entry's name.
        entry: The entry.

    Returns:
        Bytes.

    Raises:
        UnreadableError: If there is no such entry where the directory says so.
    """
    head = read_at(stream, entry.place, _LOCAL.size)
    signature, name_bytes, extra_bytes = _LOCAL.unpack(head)
    if signature != b"PK\3\4" or stream.read(name_bytes) != name.encode():
        raise UnreadableError(
            f"is a damaged zip archive: {shown(name)} is not at byte {entry.place}"
        )
    return entry.place + _LOCAL.size + name_bytes + extra_bytes


def _directory(stream: BinaryIO, size: int) -> tuple[int, int, int]:
    """How many entries the directory has, where it begins, its bytes."""
    tail_start = max(0, size - _END.size - _MOST_COMMENT_BYTES)
    tail = read_at(stream, tail_start, size - tail_start)
    at = tail.rfind(b"PK\5\6")
    if at < 0 or at + _END.size > len(tail):
        raise UnreadableError("is cut off: a zip archive without its end; get it again")
    *_, count, length, start, comment = _END.unpack_from(tail, at)
    end = tail_start + at
    if end + _END.size + comment != size:
        raise UnreadableError(
            f"is a damaged zip archive: it ends at byte {end + _END.size + comment} of "
            f"{size}; get it again"
        )
    place = at - _END_64_PLACE.size
    if place >= 0 and tail.startswith(b"PK\6\7", place):
        _, _, where, _ = _END_64_PLACE.unpack_from(tail, place)
        end = min(where, size)
        wide = _END_64.unpack(read_at(stream, end, _END_64.size))
        if wide[0] != b"PK\6\6":
            raise UnreadableError("is a damaged zip archive: its end is not where said")
        count, length, start = wide[-3:]
    if start + length > end or count * _ENTRY.size > length:
        raise UnreadableError(
            f"is a damaged zip archive: {count} entries in {length} bytes from byte "
            f"{start} on, before byte {end}"
        )
    return count, start, length


def _entry(data: bytes, at: int) -> tuple[str, Entry, int]:
    """The entry of the directory at a byte, its name, and where the next begins."""
    if at + _ENTRY.size > len(data):
        raise UnreadableError("is a damaged zip archive: its directory is too short")
    fields = _ENTRY.unpack_from(data, at)
    signature, _, _, flags, method, _, _, crc32, packed, length = fields[:10]
    name_bytes, extra_bytes, comment_bytes, _, _, _, place = fields[10:]
    names_end = at + _ENTRY.size + name_bytes
    end = names_end + extra_bytes + comment_bytes
    if signature != b"PK\1\2" or end > len(data):
        raise UnreadableError("is a damaged zip archive: its directory is broken")
    try:
        name = data[names_end - name_bytes : names_end].decode()
    except UnicodeDecodeError as error:
        raise UnreadableError("is a zip archive with a name that is no text") from error
    if _IN_64_BITS in (packed, length, place):
        extra = data[names_end : names_end + extra_bytes]
        length, packed, place = _in_64_bits(extra, (length, packed, place))
    stored = not method and not flags & _ENCRYPTED and packed == length
    return name, Entry(place, packed, crc32, stored), end


def _in_64_bits(extra: bytes, sizes: tuple[int, ...]) -> list[int]:
    """The sizes, those that do not fit in 32 bits taken from the extra field."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            wide = extra[at + 4 : at + 4 + length]
            wanted = sizes.count(_IN_64_BITS)
            if len(wide) >= 8 * wanted:
                values = iter(struct.unpack_from(f"<{wanted}Q", wide))
                return [next(values) if x == _IN_64_BITS else x for x in sizes]
        at += 4 + length
    raise UnreadableError("is a damaged zip archive: a size of 64 bits is missing")
