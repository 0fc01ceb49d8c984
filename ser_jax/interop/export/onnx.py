"""A graph of ONNX, built here: what converts JAX's programs has no free batch."""

import importlib.util
import json

from etils import epath

from ser_jax.interop.export.outgoing import Outgoing, Target, gives
from ser_jax.models.vit import ViT
from ser_jax.storage.files import whole_file

_FILE = "model.onnx"
_OPSET = 17  # the first with LayerNormalization


def _refusal(encoder: Outgoing) -> str:
    if importlib.util.find_spec("onnx") is None:
        return (
            "ONNX files need the package onnx, which is not installed; "
            "pip install 'ser_jax[onnx]'."
        )
    return ""


def _write(encoder: Outgoing, folder: epath.Path) -> None:
    # Not above: who writes another format need not have onnx.
    from ser_jax.interop.export.graph import Graph
    from ser_jax.interop.export.onnx_resnet import add_resnet
    from ser_jax.interop.export.onnx_vit import add_vit

    graph, side = Graph(_OPSET), encoder.module.image_size
    add = add_vit if isinstance(encoder.module, ViT) else add_resnet
    outputs = add(graph, encoder)
    metadata = {
        "mean": json.dumps(encoder.mean),
        "std": json.dumps(encoder.std),
        "module": json.dumps(encoder.config),
        "digest": encoder.digest,
    }
    model = graph.model((3, side, side), outputs, encoder.output_shapes, metadata)
    with whole_file(folder / _FILE) as stream:
        stream.write(model.SerializeToString(deterministic=True))


def _notes(encoder: Outgoing) -> list[str]:
    side = encoder.module.image_size
    return [
        gives(encoder),
        f"Opset {_OPSET}; any batch; images of {side} px alone, channels first.",
    ]


def _load(encoder: Outgoing) -> str:
    side = encoder.module.image_size
    return f"""import numpy, onnxruntime
session = onnxruntime.InferenceSession("{_FILE}")
images = numpy.zeros((2, 3, {side}, {side}), numpy.float32)  # normalised
names = [output.name for output in session.get_outputs()]
features = dict(zip(names, session.run(names, {{"images": images}})))"""


TARGET = Target("onnx", "onnx", _refusal, _write, _notes, _load)
