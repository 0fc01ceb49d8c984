"""Weights that come without their run, ready to be evaluated."""

import dataclasses
from typing import Any

from etils import epath

from ser_jax.data.sources import open_source
from ser_jax.evaluate.data import EvalData
from ser_jax.evaluate.encoder import FrozenEncoder
from ser_jax.evaluate.subject import Subject
from ser_jax.interop.answers import Given
from ser_jax.interop.files.refused import RefusedFileError
from ser_jax.interop.imported import Imported, import_weights
from ser_jax.storage.files import PathLike, as_path
from ser_jax.train.sharding import make_mesh

_EVAL_SPLITS = ("validation", "test")  # the first that there is


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ImportedWeights(Subject):
    """An encoder out of a file, and what it is evaluated on.

    Attributes:
        path: The file or folder.
        imported: What was read of it.
    """

    path: epath.Path
    imported: Imported

    def about(self) -> dict[str, Any]:
        """What results are of, for their file."""
        found = self.imported
        weights = {
            "weights": str(self.path),
            "layout": found.layout,
            "encoder": found.role,
            "sha256": found.sha256,
            "given": dict(found.given),
            "guessed": dict(found.guessed),
        }
        return weights | super().about()

    def one_grid(self) -> str | None:
        """Why it takes images of its own size alone; None if it takes others."""
        if why := self.imported.asked.get("positions"):
            return f"it shows the encoder images of other sizes: {why}."
        if getattr(self.imported.module, "stem_padding", None) is not None:
            return (
                "it shows the encoder images of other sizes, whose maps this stem's "
                "padding makes larger than they should be."
            )
        return None


def open_weights(
    path: PathLike,
    given: Given | None = None,
    *,
    dataset: str,
    data_dir: str,
    folder: PathLike,
    train_split: str | None = None,
    eval_split: str | None = None,
    num_pictures: int = 256,
    batch_size: int = 256,
) -> ImportedWeights:
    """Weights of this package or another, ready to be evaluated.

    Args:
        path: File or folder: see `import_weights`.
        given: What the file does not say.
        dataset: TFDS name of a prepared data set.
        data_dir: Folder of data sets.
        folder: Where features, results and pictures go.
        train_split: What heads are fitted on; "train" if None.
        eval_split: What is evaluated on; if None, "validation" or else "test".
        num_pictures: See `Subject`.
        batch_size: The same; rounded up to a multiple of the number of devices.

    Returns:
        The subject.

    Raises:
        RefusedFileError: If the file is refused, or normalisation must be given.
        FloatingPointError: If a weight is not finite.
        OSError: If the file is not there.
    """
    imported = import_weights(path, given)
    if imported.mean is None or imported.std is None:
        raise RefusedFileError(path, imported.asked["normalize"])
    mesh = make_mesh()
    return ImportedWeights(
        encoder=FrozenEncoder(
            imported.module,
            imported.variables,
            imported.mean,
            imported.std,
            imported.digest,
        ),
        data=EvalData(
            dataset,
            data_dir,
            train_split or "train",
            eval_split or _eval_split(dataset, data_dir),
        ),
        folder=as_path(folder),
        mesh=mesh,
        batch_size=-(-batch_size // mesh.size) * mesh.size,
        num_pictures=num_pictures,
        path=as_path(path),
        imported=imported,
    )


def _eval_split(dataset: str, data_dir: str) -> str:
    for split in _EVAL_SPLITS:
        try:
            open_source(dataset, split, data_dir)
        except (ValueError, OSError):  # what is wrong is said by the tasks
            continue
        return split
    return _EVAL_SPLITS[-1]
