"""A stack, marks and a memo: what a pickle's operations work on.

A global is a name and stays one; what is to be called is asked of `Calls`.
"""

import codecs
import struct
from typing import Any, Protocol

from ser_jax.interop.files.inert import Inert, plain_key
from ser_jax.interop.files.refused import UnreadableError, shown

MOST_BYTES = 2**25  # of a pickle: arrays are beside it
# What is read takes less than a second and 200 MB, whatever it is. A tensor takes 27
# operations, three of which are calls.
MOST_OPERATIONS = 3 * 2**18
_CALL_OPERATIONS = 12  # that take as long as a call
_MOST_NUMBER_BYTES = 255


class Calls(Protocol):
    """What a pickle may name and call, and what becomes of it."""

    def find(self, module: str, name: str) -> Inert:
        """A global."""

    def call(self, function: Inert, args: tuple[Any, ...]) -> Any:
        """What a call gives."""

    def persistent(self, key: Any) -> Any:
        """What lies beside the pickle."""


class Machine:
    """Reads pickles that follow each other.

    Attributes:
        at: The byte that is read next.
        left: Operations that may still be.
    """

    def __init__(self, data: bytes, calls: Calls):
        """Ready to read the first pickle."""
        self.data, self.at, self.calls = data, 0, calls
        self.left = MOST_OPERATIONS

    def begin(self) -> None:
        """Forgets all but where it is."""
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def broken(self, what: str) -> UnreadableError:
        """The error that says so."""
        return UnreadableError(f"has a pickle that {what}, before byte {self.at} of it")

    # Reading.

    def take(self, num_bytes: int) -> bytes:
        """The next bytes."""
        end = self.at + num_bytes
        if end > len(self.data):
            raise cut_off()
        found = self.data[self.at : end]
        self.at = end
        return found

    def number(self, code: str) -> Any:
        """The next number."""
        (found,) = struct.unpack(f"<{code}", self.take(struct.calcsize(code)))
        return found

    def line(self) -> bytes:
        """The rest of a line."""
        end = self.data.find(b"\n", self.at)
        if end < 0:
            raise cut_off()
        found = self.data[self.at : end]
        self.at = end + 1
        return found

    # The stack.

    def push(self, value: Any) -> None:
        """Puts a value on the stack."""
        self.stack.append(value)

    def from_mark(self) -> list[Any]:
        """What was pushed since the last mark."""
        items, self.stack = self.stack, self.marks.pop()
        return items

    def mark(self) -> None:
        """Begins a list of values."""
        self.marks.append(self.stack)
        self.stack = []

    def pop(self) -> None:
        """Drops a value, or a mark."""
        if self.stack:
            self.stack.pop()
        else:
            self.from_mark()

    def put(self, index: int) -> None:
        """Remembers the last value."""
        if index < 0:
            raise self.broken("remembers under a number below 0")
        self.memo[index] = self.stack[-1]

    def get(self, index: int) -> None:
        """Pushes a value that was remembered."""
        if index not in self.memo:
            raise self.broken("asks for a value that it has not remembered")
        self.push(self.memo[index])

    def last(self, count: int) -> tuple[Any, ...]:
        """Takes values from the stack."""
        if len(self.stack) < count:
            raise IndexError
        found = tuple(self.stack[-count:])
        del self.stack[-count:]
        return found

    # Values.

    def long(self, num_bytes: int) -> None:
        """Pushes a whole number of any length."""
        if not 0 <= num_bytes <= _MOST_NUMBER_BYTES:
            raise self.broken(f"has a number of {num_bytes} bytes")
        self.push(int.from_bytes(self.take(num_bytes), "little", signed=True))

    def integer_line(self) -> None:
        """Pushes a whole number, or a truth value, written in digits."""
        text = self.line()
        if text in (b"00", b"01"):
            self.push(text == b"01")
        else:
            self.push(int(text.removesuffix(b"L")))

    def text(self, data: bytes) -> None:
        """Pushes a text."""
        self.push(data.decode("utf-8", "surrogatepass"))

    def old_text(self, data: bytes) -> None:
        """Pushes what Python 2 had as a string."""
        try:
            self.push(data.decode())
        except UnicodeDecodeError:
            self.push(data.decode("latin-1"))

    def quoted_line(self) -> None:
        """Pushes what Python 2 had as a string, in quotes."""
        text = self.line()
        if len(text) < 2 or text[:1] != text[-1:] or text[:1] not in (b"'", b'"'):
            raise self.broken("has a string without quotes")
        self.old_text(codecs.escape_decode(text[1:-1])[0])

    # Containers.

    def append(self, items: list[Any]) -> None:
        """Adds to the list, or what is not made, below."""
        to = self.stack[-1]
        if isinstance(to, list):
            to.extend(items)
        elif not isinstance(to, Inert):
            raise self.broken("adds to something that is no list")

    def add(self, items: list[Any]) -> None:
        """Adds to a set, which is not made."""
        if not isinstance(self.stack[-1], Inert):
            raise self.broken("adds to something that is no set")

    def set_items(self, items: list[Any]) -> None:
        """Puts keys and values into the dictionary, or what is not made, below."""
        to = self.stack[-1]
        if isinstance(to, dict):
            to.update(self.dictionary(items))
        elif not isinstance(to, Inert):
            raise self.broken("puts items into something that is no dictionary")

    def dictionary(self, items: list[Any]) -> dict[Any, Any]:
        """Keys and values that follow each other as a dictionary."""
        if len(items) % 2:
            raise self.broken("has a key without a value")
        return {plain_key(k): v for k, v in zip(items[::2], items[1::2], strict=True)}

    # Names and calls.

    def global_line(self) -> None:
        """Pushes what two lines name."""
        module, name = self.line().decode(), self.line().decode()
        self.find(module, name)

    def stack_global(self) -> None:
        """Pushes what two texts name."""
        module, name = self.last(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise self.broken("names something without a text")
        self.find(module, name)

    def find(self, module: str, name: str) -> None:
        """Pushes a global."""
        self.left -= _CALL_OPERATIONS
        self.push(self.calls.find(module, name))

    def call(self, function: Any, args: Any) -> None:
        """Pushes what a call gives."""
        if not isinstance(function, Inert) or not isinstance(args, tuple):
            raise self.broken(f"calls {shown(function)}")
        self.left -= _CALL_OPERATIONS
        self.push(self.calls.call(function, args))

    def beside(self) -> None:
        """Pushes what lies beside the pickle."""
        self.left -= _CALL_OPERATIONS
        self.push(self.calls.persistent(self.stack.pop()))

    def new_with_names(self) -> None:
        """Pushes an object made with named arguments, which are dropped."""
        function, args, _ = self.last(3)
        self.call(function, args)

    def build(self) -> None:
        """Puts a state into what is not made."""
        to, state = self.last(2)
        if isinstance(to, Inert):
            to.state = state
        elif not isinstance(to, dict):
            raise self.broken(f"puts a state into {shown(to)}")
        self.push(to)


def cut_off() -> UnreadableError:
    """The error of a pickle that ends too early."""
    return UnreadableError(
        f"is cut off, or its pickle has more than {MOST_BYTES} bytes; get it again"
    )
