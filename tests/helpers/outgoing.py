"""Small encoders with weights that no initialiser gives, and how exports are read."""

import json
import pathlib
import re

import jax
import numpy as np

from ser_jax.models.resnet import ResNet
from ser_jax.models.vit import ViT

MEAN, STD = (0.5, 0.25, 0.125), (0.25, 0.5, 0.75)
ABOUT = {"recipe": "configs/moco_v3.py:ser", "data": "digits", "seed": 3}
_DTYPES = {"F32": np.float32, "I64": np.int64}


def vit(**attributes) -> ViT:
    small = {"width": 24, "depth": 2, "num_heads": 3, "patch_size": 4, "image_size": 16}
    return ViT(**(small | attributes))


ENCODERS = {
    "late": vit(cls_insert=1, grid_layers=(1,), cls_layers=(2,), pos_embed="learned"),
    "early_grid": vit(depth=3, cls_insert=2, grid_layers=(1,)),
    "sincos": vit(grid_layers=(1, 2), cls_layers=(1,), mlp_ratio=3.0),
    "learned": vit(pos_embed="learned", norm_eps=1e-5),
    "resnet": ResNet((1, 1, 1, 1), "basic", 64, num_filters=2, grid_layers=(3,)),
    "small_images": ResNet(
        (1, 2), "bottleneck", 8, num_filters=2, small_images=True, cls_layers=(2,)
    ),
    "stem_padding": ResNet(
        (1, 2), "basic", 8, num_filters=2, small_images=True, stem_padding=2
    ),
}


def images(module, batch: int = 3) -> np.ndarray:
    """Normalised images, `[b, s, s, 3]`, float32."""
    shape = (batch, module.image_size, module.image_size, 3)
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def variables(module) -> dict:
    """Variables all of which matter: no bias 0, no scale 1."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(module.init, jax.random.key(0), images(module))

    def draw(path, leaf):
        name = path[-1].key
        base = {"scale": 1.0, "var": 1.0}.get(name, 0.0)
        spread = leaf.shape[0] ** -0.5 if name == "kernel" and leaf.ndim == 2 else 0.2
        noise = spread * rng.standard_normal(leaf.shape)
        if name == "var":
            noise = abs(noise)
        return (base + noise).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def read_safetensors(path: pathlib.Path) -> tuple[dict, dict]:
    """Arrays and metadata, as the format's description says."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header, rest = json.loads(data[8 : 8 + size]), data[8 + size :]
    metadata = header.pop("__metadata__")
    arrays = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        array = np.frombuffer(rest[start:end], _DTYPES[entry["dtype"]])
        arrays[name] = array.reshape(entry["shape"])
    assert sum(x.nbytes for x in arrays.values()) == len(rest)
    return arrays, metadata


def run_card(folder: pathlib.Path, monkeypatch) -> dict:
    """What the model card's code leaves, run in its folder."""
    (code,) = re.findall(
        r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S
    )
    left: dict = {}
    with monkeypatch.context() as context:
        context.chdir(folder)
        exec(code, left)
    return left
