"""Published robustness sets as they are unpacked: `<class>/<file>`."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import grain
from etils import epath

from ser_jax.data.decode import UnreadableImageError
from ser_jax.data.sources import Source


@dataclasses.dataclass(frozen=True)
class ClassFiles(Sequence[dict[str, Any]]):
    """Files as records `{"image": encoded bytes, "label": int, "path": str}`.

    Attributes:
        folder: Where the classes' folders lie.
        files: (path within the folder, label), in the order of the records.
    """

    folder: epath.Path
    files: list[tuple[str, int]] = dataclasses.field(repr=False)

    def __len__(self) -> int:
        """Number of files."""
        return len(self.files)

    def __getitem__(self, index: Any) -> Any:
        """Reads one file."""
        name, label = self.files[index]
        path = self.folder / name
        return {"image": path.read_bytes(), "label": label, "path": str(path)}


@dataclasses.dataclass(frozen=True)
class NamesFile(grain.transforms.Map):
    """A transform whose error on an unreadable image names the file.

    Attributes:
        transform: Turns a record into arrays.
        source: Where the records come from; those with a "path" can be named.
    """

    transform: grain.transforms.Map
    source: Source

    def map(self, example: dict[str, Any]) -> dict[str, Any]:
        """What the transform makes of the record.

        Args:
            example: A record of the source.

        Returns:
            The transform's output.

        Raises:
            UnreadableImageError: If the image has no path and cannot be decoded.
            ValueError: If its file cannot.
        """
        try:
            return self.transform.map(example)
        except UnreadableImageError as error:
            path = self.source.records[int(example["index"])].get("path")
            if path is None:
                raise
            raise ValueError(
                f"{path} cannot be decoded: {error}. Unpack the archive it came from "
                "again."
            ) from error


def find_set(folder: epath.Path, name: str) -> epath.Path | None:
    """`<folder>/<name>` or `<folder>/<group>/<name>`, whichever there is.

    Args:
        folder: Where the published archives were unpacked.
        name: Of a corruption or perturbation.

    Returns:
        The folder of that name, or None.
    """
    if (folder / name).is_dir():
        return folder / name
    return next((path for path in folder.glob(f"*/{name}") if path.is_dir()), None)


def label_classes(
    folder: epath.Path, num_classes: int, class_names: Sequence[str] | None
) -> dict[str, int]:
    """The label of each class folder.

    Args:
        folder: Holds a folder for each class.
        num_classes: Number of classes the classifier tells apart.
        class_names: Their names in the order of the labels; None: the folders in the
            order of their names are the classes, and all of them must be there.

    Returns:
        Label by name of folder, in the order of the names.

    Raises:
        ValueError: If a folder is no class, or without names one is missing.
    """
    with os.scandir(folder) as entries:
        found = sorted(
            e.name for e in entries if e.is_dir() and not e.name.startswith(".")
        )
    if class_names is None:
        if len(found) != num_classes:
            raise ValueError(
                f"{folder} holds {len(found)} class folders, expected {num_classes}, "
                "one for each class of the training set, whose names are not known. "
                "Unpack the whole archive, or train on a set whose classes have names."
            )
        return {name: label for label, name in enumerate(found)}
    labels = {name: label for label, name in enumerate(class_names)}
    unknown = [name for name in found if name not in labels]
    if unknown or not found:
        raise ValueError(
            f"{folder} must hold a folder for each class of the training set, such as "
            f"{', '.join(class_names[:3])}; it has {len(found)} folders, "
            f"{len(unknown)} of them of other names ({', '.join(unknown[:3])})."
        )
    return {name: labels[name] for name in found}


def list_files(
    folder: epath.Path, labels: dict[str, int], suffixes: tuple[str, ...]
) -> ClassFiles:
    """The files of every class.

    Args:
        folder: Holds a folder for each class.
        labels: From `label_classes`.
        suffixes: Endings to look for, lower case.

    Returns:
        The records, by class and name.

    Raises:
        ValueError: If there is no such file.
    """
    files = [
        (f"{name}/{file}", label)
        for name, label in labels.items()
        for file in sorted(os.listdir(folder / name))
        if file.lower().endswith(suffixes) and not file.startswith(".")
    ]
    if not files:
        raise ValueError(
            f"no files ending in {', '.join(suffixes)} in the class folders of {folder}"
        )
    return ClassFiles(folder, files)
