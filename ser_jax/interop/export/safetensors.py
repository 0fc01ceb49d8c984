"""Our own names, which `python -m ser_jax.evaluate --weights` reads back."""

import json

from etils import epath

from ser_jax.interop.export.outgoing import Outgoing, Target, gives
from ser_jax.interop.files.safetensors import write_safetensors
from ser_jax.storage.tables import flatten

_FILE = "model.safetensors"


def _write(encoder: Outgoing, folder: epath.Path) -> None:
    metadata = {
        "format": "ser_jax",
        "module": json.dumps(encoder.config),
        "mean": json.dumps(encoder.mean),
        "std": json.dumps(encoder.std),
        "digest": encoder.digest,
    }
    write_safetensors(folder / _FILE, flatten(encoder.variables), metadata)


def _load(encoder: Outgoing) -> str:
    side = encoder.module.image_size
    return f"""import numpy
from ser_jax.interop.imported import import_weights
encoder = import_weights("{_FILE}")
images = numpy.zeros((2, {side}, {side}, 3), numpy.float32)  # normalised
features = encoder.module.apply(encoder.variables, images)"""


TARGET = Target(
    "safetensors",
    "ser_jax",
    lambda encoder: "",
    _write,
    lambda encoder: [gives(encoder)],
    _load,
)
