"""What a pickle would have made, and did not."""

from typing import Any

from ser_jax.interop.files.refused import UnreadableError, shown

_PLAIN_KEYS = (str, bytes, float, bool, type(None))


class Inert:
    """What a pickle would have made, not made.

    Attributes:
        name: Of the class or function: "argparse.Namespace".
        args: What it would have been called with; None: it was only named.
        state: What would have been put into it.
    """

    __slots__ = ("args", "name", "state")

    def __init__(self, name: str, args: tuple[Any, ...] | None = None):
        """Named, or called."""
        self.name, self.args, self.state = name, args, None

    def __repr__(self) -> str:
        """Its name alone: what it holds may hold itself."""
        return f"Inert({self.name!r})"


def plain_key(key: Any) -> Any:
    """A key of a dictionary, such that none is slow to hash or to tell from another.

    Args:
        key: What the pickle has.

    Returns:
        The same, if it is a text or a number below 2^60; else an `Inert` of it.

    Raises:
        UnreadableError: If it is a list or a dictionary.
    """
    if isinstance(key, _PLAIN_KEYS) or (type(key) is int and key.bit_length() < 60):
        return key
    if isinstance(key, list | dict):
        raise UnreadableError(f"has a dictionary with {shown(key)} as a key")
    return key if isinstance(key, Inert) else Inert("key", (key,))
