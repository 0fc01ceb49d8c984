"""A path that a user gives: a file of weights, or a folder with its settings."""

import dataclasses
from typing import Any

from etils import epath

from ser_jax.interop.files.read import WeightsFile, read_weights_file
from ser_jax.interop.files.refused import RefusedFileError
from ser_jax.storage.files import PathLike, local_path, read_json

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """A file of weights and what lies beside it.

    Attributes:
        file: The file.
        config: config.json of its folder; None: there is none, or a file was given.
        preprocessor: preprocessor_config.json of its folder; None likewise.
    """

    file: WeightsFile
    config: dict[str, Any] | None = None
    preprocessor: dict[str, Any] | None = None


def open_source(path: PathLike) -> Source:
    """What lies at a path; no array is read.

    Args:
        path: A file, or a folder as Hugging Face and timm have them.

    Returns:
        The file, and settings if a folder was given.

    Raises:
        RefusedFileError: If the file is no file of weights, or the folder has none, or
            its settings are no JSON.
        OSError: If it is not there or cannot be read.
    """
    folder = local_path(path)
    if not folder.is_dir():
        return Source(read_weights_file(folder))
    name = next((name for name in _WEIGHTS if (folder / name).is_file()), None)
    if name is None:
        parts = (folder / f"{_WEIGHTS[0]}.index.json").is_file()
        what = (
            "has its weights in several files: save them in one"
            if parts
            else (f"has no {' or '.join(_WEIGHTS)}: give a file of weights")
        )
        raise RefusedFileError(folder, what)
    return Source(
        read_weights_file(folder / name),
        _settings(folder / "config.json"),
        _settings(folder / "preprocessor_config.json"),
    )


def _settings(path: epath.Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        return read_json(path)
    except ValueError as error:
        raise RefusedFileError(path, "is no JSON object: get it again") from error
