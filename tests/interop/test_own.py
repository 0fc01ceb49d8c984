"""Files that this package wrote are read back, bit for bit, or refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ser_jax.interop import identity
from ser_jax.interop.answers import Given
from ser_jax.interop.files.refused import RefusedFileError
from ser_jax.interop.files.safetensors import write_safetensors
from ser_jax.interop.imported import import_weights
from ser_jax.models.resnet import ResNet
from ser_jax.models.vit import ViT
from ser_jax.storage.tables import flatten

pytestmark = pytest.mark.interop
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    [
        ViT(
            8, 3, 2, 4, 8, cls_insert=2, grid_layers=(2,), resample="hf", norm_eps=1e-5
        ),
        ResNet((1, 1), "basic", 16, num_filters=2, small_images=True, stem_padding=2),
    ],
    ids=["vit", "resnet"],
)
def test_own_files_come_back_bit_for_bit(module, tmp_path):
    images = jnp.zeros((1, module.image_size, module.image_size, 3))
    shapes = jax.eval_shape(module.init, jax.random.key(0), images)
    draw = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda x: draw.uniform(0.5, 1, x.shape).astype(np.float32), shapes
    )
    about, arrays = identity.settings(module), flatten(variables)
    metadata = {
        "format": "ser_jax",
        "module": json.dumps(about),
        "mean": json.dumps(HALF[0]),
        "std": json.dumps(HALF[1]),
        "digest": identity.sha256(about, variables, *HALF),
    }
    file = tmp_path / "model.safetensors"

    def read(arrays=arrays, given=None, **changes):
        write_safetensors(file, arrays, metadata | changes)
        return import_weights(file, given)

    found = read()
    assert identity.settings(found.module) == about
    jax.tree.map(np.testing.assert_array_equal, found.variables, variables)
    assert (found.mean, found.std) == HALF and not found.guessed and not found.asked
    name = next(iter(arrays))
    with pytest.raises(RefusedFileError, match="its digest is another"):
        read(arrays | {name: arrays[name] + 1})
    with pytest.raises(RefusedFileError, match=f"'{name}' is missing"):
        read({k: v for k, v in arrays.items() if k != name})
    with pytest.raises(RefusedFileError, match="leave --num_heads out"):
        read(given=Given(num_heads=2))
    large = {"width": 2**27} if isinstance(module, ViT) else {"stage_sizes": [10**6, 1]}
    for change, message in (
        ({"attributes": about["attributes"] | large}, "do not have"),
        ({"class": "Linear"}, "not ViT or ResNet"),
        ({"attributes": {"image_size": 8}}, "does not know"),
        (
            {"attributes": about["attributes"] | {"dtype": "float16"}},
            "not an encoder's",
        ),
        ({"attributes": about["attributes"] | {"image_size": 10**9}}, "do not have"),
    ):
        with pytest.raises(RefusedFileError, match=message):
            read(module=json.dumps(about | change))
    with pytest.raises(RefusedFileError, match="mean that is not three numbers"):
        read(mean="[1, 2]")
