"""A program of JAX with its weights, for CPUs, CUDA's GPUs and TPUs."""

from typing import Any

import jax
import numpy as np
from etils import epath

from ser_jax.interop.export.outgoing import Outgoing, Target, gives, named
from ser_jax.storage.files import whole_file

_FILE = "encoder.jax"
_PLATFORMS = ("cpu", "cuda", "tpu")


def _write(encoder: Outgoing, folder: epath.Path) -> None:
    def encode(images: jax.Array) -> dict[str, Any]:
        out: Any = encoder.module.apply(encoder.variables, images)
        return named(out)

    (batch,) = jax.export.symbolic_shape("b")
    side = encoder.module.image_size
    images = jax.ShapeDtypeStruct((batch, side, side, 3), np.float32)
    program = jax.export.export(jax.jit(encode), platforms=_PLATFORMS)(images)
    with whole_file(folder / _FILE) as stream:
        stream.write(program.serialize())


def _notes(encoder: Outgoing) -> list[str]:
    side = encoder.module.image_size
    return [
        gives(encoder),
        f"Written by jax {jax.__version__} for {', '.join(_PLATFORMS)}; any batch; "
        f"images of {side} px alone, channels last.",
        "It needs jax and flatbuffers, no ser_jax; versions of jax that are up to six "
        "months newer read it, as jax promises.",
    ]


def _load(encoder: Outgoing) -> str:
    side = encoder.module.image_size
    return f"""import jax, numpy, pathlib
images = numpy.zeros((2, {side}, {side}, 3), numpy.float32)  # normalised
encoder = jax.export.deserialize(bytearray(pathlib.Path("{_FILE}").read_bytes()))
features = encoder.call(images)"""


TARGET = Target("jax", "jax", lambda encoder: "", _write, _notes, _load)
