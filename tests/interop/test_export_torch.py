"""Exported folders, read by the libraries that they are for: in no user's way.

pip install -e ".[test,interop]"
"""

import jax
import numpy as np
import pytest
from helpers.outgoing import (
    ABOUT,
    ENCODERS,
    MEAN,
    STD,
    images,
    run_card,
    variables,
    vit,
)

from ser_jax.interop.export.write import export
from ser_jax.models.resnet import ResNet
from ser_jax.models.vit import ViT

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow

TOLERANCE = 1e-5
FULL_SIZE_TOLERANCE = 1.1e-4  # float32 through twelve blocks
RESNETS = {
    "resnet18": ResNet((2, 2, 2, 2), "basic", 32),
    "unnamed": ResNet((1, 1, 2, 1), "bottleneck", 32),
}


def loaded(module, to, folder, monkeypatch, weights=None):
    weights = variables(module) if weights is None else weights
    export(module, weights, MEAN, STD, folder, to=to, about=ABOUT)
    left = run_card(folder, monkeypatch)
    out = jax.device_get(jax.jit(module.apply)(weights, images(module)))
    return left["model"], torch.from_numpy(images(module).transpose(0, 3, 1, 2)), out


@pytest.mark.parametrize("name", ["sincos", "learned", *RESNETS])
def test_timm_gives_the_encoders_features(name, tmp_path, monkeypatch):
    pytest.importorskip("timm")
    module = RESNETS.get(name) or ENCODERS[name].clone(norm_eps=1e-6)
    folder = tmp_path / "out"
    model, x, out = loaded(module, "timm", folder, monkeypatch)
    assert tuple(model.pretrained_cfg["mean"]) == MEAN
    with torch.no_grad():
        cls, last = model(x).numpy(), model.forward_features(x).numpy()
    if name in RESNETS:
        last = last.transpose(0, 2, 3, 1).reshape(out.tokens.shape)
    else:
        last = last[:, 1:]
    for actual, wanted in ((cls, out.cls), (last, out.tokens)):
        scale = max(1, np.abs(wanted).max())
        assert np.abs(actual - wanted).max() <= TOLERANCE * scale
    from safetensors.torch import load_file

    model.load_state_dict(load_file(folder / "model.safetensors"), strict=True)


@pytest.mark.parametrize("name", ["sincos", "learned"])
def test_transformers_gives_the_encoders_features(name, tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path / "out"
    model, x, out = loaded(ENCODERS[name], "hf", folder, monkeypatch)
    with torch.no_grad():
        tokens = model(x).last_hidden_state.numpy()
    assert np.abs(tokens[:, 0] - out.cls).max() <= TOLERANCE
    assert np.abs(tokens[:, 1:] - out.tokens).max() <= TOLERANCE
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    (array,) = processor(pixels, return_tensors="np")["pixel_values"]
    wanted = (pixels / 255 - MEAN) / STD
    assert np.abs(array.transpose(1, 2, 0) - wanted).max() <= TOLERANCE


@pytest.mark.parametrize("library", ["timm", "transformers"])
def test_a_vit_s_16_of_full_size(library, tmp_path, monkeypatch):
    pytest.importorskip(library)
    module = ViT(384, 12, num_heads=6, patch_size=16, image_size=224)
    rng = np.random.default_rng(0)
    weights = jax.tree.map(
        lambda x: (x + 0.02 * rng.standard_normal(x.shape)).astype(np.float32),
        jax.device_get(module.init(jax.random.key(0), images(module, batch=1))),
    )
    to = {"timm": "timm", "transformers": "hf"}[library]
    model, x, out = loaded(module, to, tmp_path / "out", monkeypatch, weights)
    with torch.no_grad():
        if library == "timm":
            tokens = model.forward_features(x).numpy()
        else:
            tokens = model(x).last_hidden_state.numpy()
    assert np.abs(tokens[:, 0] - out.cls).max() <= FULL_SIZE_TOLERANCE
    assert np.abs(tokens[:, 1:] - out.tokens).max() <= FULL_SIZE_TOLERANCE


def test_transformers_sees_a_large_image_as_evaluation_does(tmp_path):
    """Red if it is resized to the square, not cropped."""
    transformers = pytest.importorskip("transformers")
    module = vit(patch_size=56, image_size=224)
    export(module, variables(module), MEAN, STD, tmp_path / "out", to="hf", about={})
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "out")
    pixels = np.zeros((512, 1024, 3), np.uint8)
    pixels[:, 256 + 33 : 768 - 33] = 255  # a little more than what the crop keeps
    (array,) = processor(pixels, return_tensors="np")["pixel_values"]
    assert array.shape == (3, 224, 224)
    assert np.abs(array[0, 100, 2:-2] - (1 - MEAN[0]) / STD[0]).max() < 0.05
