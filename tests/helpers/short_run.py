"""A run of endless steps; a stand-in for a scheduler ends it soon after a restart."""

import pathlib
import socket

from helpers.support import tiny_config
from ser_jax.data.sources import open_source
from ser_jax.storage.metrics import read_metrics


def write_short_run(folder: pathlib.Path, data_dir: pathlib.Path) -> pathlib.Path:
    """A config file that stops after as many steps as `folder/max_steps` says, if any.

    Args:
        folder: Where it lies.
        data_dir: Where its digits lie, written here.
    """
    open_source("digits", "train", str(data_dir))
    config = tiny_config("simclr", "none", total_epochs=1e5, log_every_steps=1)
    config.model.depth = 1
    config.knn.every_epochs = 0.0
    path = folder / "config.py"
    path.write_text(f"""
import json, pathlib
from ml_collections import ConfigDict
def get_config():
    config = ConfigDict(json.loads({config.to_json()!r}))
    limit = pathlib.Path({str(folder / "max_steps")!r})
    config.max_steps = int(limit.read_text()) if limit.exists() else 0
    return config
""")
    return path


def steps_of(workdir: pathlib.Path) -> list[int]:
    """The steps whose loss was logged, in the order of the log."""
    return [row["step"] for row in read_metrics(workdir) if "loss" in row]


def free_port() -> str:
    """For the coordinator, so that two tests at a time do not meet."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return str(free.getsockname()[1])
