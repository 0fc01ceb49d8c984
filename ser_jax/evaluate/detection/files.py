"""Pictures in files of their own, held against what is said of their size."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from ser_jax.data.decode import UnreadableImageError, read_size
from ser_jax.data.sources import Source, UnreadableRecordError

_LOOKED_FOR = 16  # of the pictures, to tell in which folder they are


def open_files(
    tried: Sequence[epath.Path],
    names: Sequence[str],
    sizes: np.ndarray,
    fingerprint: dict[str, Any],
) -> Source:
    """Files as records, from the first folder that has some of them.

    Args:
        tried: Folders where they may be.
        names: Of the files, n, as paths from there.
        sizes: `[n, 2]` int32: height and width, px.
        fingerprint: What tells these data from others; has "split".

    Returns:
        The source; a file that is not there, or of another shape than it is said to
        have, is unreadable, and named.

    Raises:
        FileNotFoundError: If none of these folders has any.
    """
    some = np.linspace(0, len(names) - 1, _LOOKED_FOR).astype(int)
    for folder in tried:
        if any((folder / names[i]).is_file() for i in some):
            files = _Files(folder, names, sizes)
            return _Pictures(
                folder.name, fingerprint["split"], None, fingerprint, files
            )
    raise FileNotFoundError(
        f"no pictures: expected {names[0]} and others in {tried[0]}; looked in "
        f"{', '.join(dict.fromkeys(map(str, tried[1:])))} too. Unpack them there, or "
        "write `file_name` as a path from one of these."
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Files(Sequence[dict[str, Any]]):
    """Files as records `{"image": encoded bytes}`, held against their stated sizes."""

    folder: epath.Path
    names: Sequence[str]
    sizes: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: Any) -> Any:
        try:
            data = self.path(index).read_bytes()
            size = read_size(data)
        except OSError as error:
            raise self.unreadable(index, error.strerror or error) from error
        except UnreadableImageError as error:
            raise self.unreadable(index, error) from error
        if not _same_shape(size, self.sizes[index].tolist()):
            said, found = ("{} x {}".format(*s) for s in (self.sizes[index], size))
            raise self.unreadable(
                index,
                f"it has {found} pixels (height, width) where the annotations say "
                f"{said}, so where its boxes lie is not known",
            )
        return {"image": data}

    def path(self, index: int) -> epath.Path:
        return self.folder / self.names[index]

    def unreadable(self, index: int, why: object) -> UnreadableRecordError:
        text = " ".join(str(why).split()).rstrip(".")
        return UnreadableRecordError(
            f"{self.path(index)} cannot be read: {text}. Copy or unpack it again."
        )


@dataclasses.dataclass(frozen=True)
class _Pictures(Source):
    """Pictures that are files of their own, and are called by these."""

    def unreadable(self, index: int, why: Exception | str) -> UnreadableRecordError:
        files, position = self.stored(index)
        return files.unreadable(position, why)


def _same_shape(size: Sequence[int], said: Sequence[int]) -> bool:
    """Whether a picture is one of the stated size, or that one made larger or smaller.

    The sides may be rounded by a pixel.
    """
    (height, width), (said_height, said_width) = size, said
    return abs(height * said_width - width * said_height) <= max(*size, *said)
