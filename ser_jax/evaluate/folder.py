"""A folder of pictures as a data set, prepared once beside the results."""

import hashlib
import json
import logging
import os

import jax
from etils import epath

from ser_jax.data.prepare.folder import read_folder
from ser_jax.data.prepare.image_set import ImageSet, PrepareError
from ser_jax.data.prepare.prepare import prepare
from ser_jax.data.prepare.scan import scan
from ser_jax.storage.files import PathLike, as_path, read_json, write_json

_NAME, _TRAIN = "pictures", "train"

_logger = logging.getLogger(__name__)


def prepare_folder(folder: PathLike, data_dir: PathLike) -> dict[str, str]:
    """A data set of the pictures under a folder; those that cannot be read are told.

    Args:
        folder: The pictures; its splits and classes, if it has any, are the set's.
        data_dir: Where the set is made, or was made of the same pictures before.

    Returns:
        Fields of `EvalData`. The split to evaluate on is "test", which there is not, if
        the folder has one split alone.

    Raises:
        ValueError: If there is no such folder, no picture in it, or other ones than
            those that the set was made of; or if there are several processes.
        OSError: If the set cannot be written.
    """
    if jax.process_count() > 1:
        raise ValueError(
            "--pictures is for one process; prepare the folder first: python -m "
            "ser_jax.data.prepare --folder=FOLDER --name=NAME; then --dataset=NAME."
        )
    source, root = as_path(folder), as_path(data_dir)
    try:
        images = read_folder(source, _NAME)
        _make(images, source, root)
    except PrepareError as error:
        raise ValueError(str(error).replace("--folder", "--pictures")) from error
    train, *others = sorted(images.splits, key=lambda split: split != _TRAIN)
    return {
        "name": _NAME,
        "data_dir": str(root),
        "train_split": train,
        "eval_split": others[0] if others else "test",
    }


def _make(images: ImageSet, folder: epath.Path, root: epath.Path) -> None:
    """Writes the set, unless it is there; refuses that of other pictures."""
    found = scan(os.fspath(folder)).pictures
    record = {"sha256": hashlib.sha256(json.dumps(found).encode()).hexdigest()}
    made_of = root / f"{_NAME}.json"
    if not made_of.exists():
        root.mkdir(parents=True, exist_ok=True)
        write_json(made_of, record)
    elif read_json(made_of) != record:
        raise ValueError(
            f"{folder} does not hold the pictures that {root} was made of: give "
            "another --results, or remove that folder."
        )
    _logger.info("%s", images.understood)
    prepare(images, root, max_bad_frac=1.0)
