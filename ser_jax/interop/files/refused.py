"""What is said of a file that is not read."""

import os

from ser_jax.storage.files import PathLike

_MOST_CHARACTERS = 300


class RefusedFileError(ValueError):
    """A file of weights that is not read, or that the package has no model for.

    Attributes:
        reason: What is wrong and what to do, in one line.
    """

    def __init__(self, path: PathLike, reason: str):
        """One line that begins with the file's name."""
        self.reason = _one_line(reason)
        super().__init__(f"{_one_line(os.path.basename(path))}: {self.reason}")


class UnreadableError(ValueError):
    """The same, where it is not known which file is read."""


def shown(value: object) -> str:
    """A text or number out of a file, as a message shows it: short, in one line."""
    if isinstance(value, str):
        return repr(value if len(value) <= 80 else f"{value[:77]}...")
    if isinstance(value, int) and value.bit_length() > 64:
        return f"a number of {value.bit_length()} bits"
    if value is None or isinstance(value, int | float):
        return repr(value)
    return f"a {type(value).__name__}"


def _one_line(text: str) -> str:
    line = "".join(c if c.isprintable() else "?" for c in text)
    cut = len(line) > _MOST_CHARACTERS
    return f"{line[: _MOST_CHARACTERS - 3]}..." if cut else line
