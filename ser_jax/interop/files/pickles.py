"""A pickle's values, nothing imported and nothing called.

Source: https://github.com/python/cpython/blob/3.11/Lib/pickletools.py, its list of
opcodes
"""

import pickle
import struct
from collections.abc import Callable
from typing import Any

from ser_jax.interop.files.inert import Inert
from ser_jax.interop.files.machine import MOST_OPERATIONS, Machine, cut_off
from ser_jax.interop.files.refused import UnreadableError

_STOP = pickle.STOP[0]


def load(m: Machine) -> Any:
    """Value of the next pickle.

    Args:
        m: Stands where it begins, and afterwards behind it.

    Returns:
        The value.

    Raises:
        UnreadableError: If it is cut off, broken, too large, or wants what is not
            allowed.
    """
    m.begin()
    data = m.data
    try:
        while m.left > 0:
            m.left -= 1
            operation = data[m.at]
            m.at += 1
            if operation == _STOP:
                return m.stack.pop()
            _OPERATIONS[operation](m)
    except IndexError as error:
        if m.at >= len(m.data):
            raise cut_off() from error
        raise m.broken("takes from an empty stack") from error
    except KeyError as error:
        raise m.broken("has an operation that is not read") from error
    except (ValueError, OverflowError) as error:
        if isinstance(error, UnreadableError):
            raise
        raise m.broken(f"has a bad value ({str(error)[:80]})") from error
    raise UnreadableError(
        f"has a pickle of more than {MOST_OPERATIONS} operations, which no "
        "checkpoint has"
    )


def _protocol(m: Machine) -> None:
    if (version := m.number("B")) > pickle.HIGHEST_PROTOCOL:
        raise UnreadableError(f"has a pickle of protocol {version}")


# All of protocols 0 to 4 but INST, OBJ, EXT1, EXT2, EXT4 and PERSID.
_BY_CODE: dict[bytes, Callable[[Machine], Any]] = {
    pickle.PROTO: _protocol,
    pickle.FRAME: lambda m: m.number("Q"),
    pickle.MARK: Machine.mark,
    pickle.POP: Machine.pop,
    pickle.POP_MARK: Machine.from_mark,
    pickle.DUP: lambda m: m.push(m.stack[-1]),
    pickle.NONE: lambda m: m.push(None),
    pickle.NEWTRUE: lambda m: m.push(True),
    pickle.NEWFALSE: lambda m: m.push(False),
    pickle.INT: Machine.integer_line,
    pickle.LONG: Machine.integer_line,
    pickle.BININT: lambda m: m.push(m.number("i")),
    pickle.BININT1: lambda m: m.push(m.number("B")),
    pickle.BININT2: lambda m: m.push(m.number("H")),
    pickle.LONG1: lambda m: m.long(m.number("B")),
    pickle.LONG4: lambda m: m.long(m.number("i")),
    pickle.FLOAT: lambda m: m.push(float(m.line())),
    pickle.BINFLOAT: lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    pickle.STRING: Machine.quoted_line,
    pickle.BINSTRING: lambda m: m.old_text(m.take(m.number("I"))),
    pickle.SHORT_BINSTRING: lambda m: m.old_text(m.take(m.number("B"))),
    pickle.UNICODE: lambda m: m.push(m.line().decode("raw-unicode-escape")),
    pickle.SHORT_BINUNICODE: lambda m: m.text(m.take(m.number("B"))),
    pickle.BINUNICODE: lambda m: m.text(m.take(m.number("I"))),
    pickle.BINUNICODE8: lambda m: m.text(m.take(m.number("Q"))),
    pickle.SHORT_BINBYTES: lambda m: m.push(m.take(m.number("B"))),
    pickle.BINBYTES: lambda m: m.push(m.take(m.number("I"))),
    pickle.BINBYTES8: lambda m: m.push(m.take(m.number("Q"))),
    pickle.EMPTY_TUPLE: lambda m: m.push(()),
    pickle.TUPLE1: lambda m: m.push(m.last(1)),
    pickle.TUPLE2: lambda m: m.push(m.last(2)),
    pickle.TUPLE3: lambda m: m.push(m.last(3)),
    pickle.TUPLE: lambda m: m.push(tuple(m.from_mark())),
    pickle.EMPTY_LIST: lambda m: m.push([]),
    pickle.LIST: lambda m: m.push(m.from_mark()),
    pickle.APPEND: lambda m: m.append([m.stack.pop()]),
    pickle.APPENDS: lambda m: m.append(m.from_mark()),
    pickle.EMPTY_DICT: lambda m: m.push({}),
    pickle.DICT: lambda m: m.push(m.dictionary(m.from_mark())),
    pickle.SETITEM: lambda m: m.set_items([*m.last(2)]),
    pickle.SETITEMS: lambda m: m.set_items(m.from_mark()),
    pickle.EMPTY_SET: lambda m: m.push(Inert("builtins.set", ())),
    pickle.ADDITEMS: lambda m: m.add(m.from_mark()),
    pickle.FROZENSET: lambda m: m.push(Inert("builtins.frozenset", (m.from_mark(),))),
    pickle.PUT: lambda m: m.put(int(m.line())),
    pickle.BINPUT: lambda m: m.put(m.number("B")),
    pickle.LONG_BINPUT: lambda m: m.put(m.number("I")),
    pickle.MEMOIZE: lambda m: m.put(len(m.memo)),
    pickle.GET: lambda m: m.get(int(m.line())),
    pickle.BINGET: lambda m: m.get(m.number("B")),
    pickle.LONG_BINGET: lambda m: m.get(m.number("I")),
    pickle.GLOBAL: Machine.global_line,
    pickle.STACK_GLOBAL: Machine.stack_global,
    pickle.BINPERSID: Machine.beside,
    pickle.REDUCE: lambda m: m.call(*m.last(2)),
    pickle.NEWOBJ: lambda m: m.call(*m.last(2)),
    pickle.NEWOBJ_EX: Machine.new_with_names,
    pickle.BUILD: Machine.build,
}
_OPERATIONS = {code[0]: operation for code, operation in _BY_CODE.items()}
