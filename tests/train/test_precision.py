"""A program with JAX_ENABLE_X64 has float32 from here, and keeps its own types."""

import jax
import jax.numpy as jnp
import numpy as np

import ser_jax
from ser_jax.evaluate import open as open_module
from ser_jax.evaluate.encoder import FrozenEncoder
from ser_jax.train import loop


def test_public_functions_compute_in_32_bits(monkeypatch):
    """Red if a function that is exported is not wrapped."""
    monkeypatch.setattr(loop, "train", lambda *_, probe: jnp.asarray(1.5).dtype)
    monkeypatch.setattr(open_module, "open_run", lambda *_: jnp.asarray(1.5).dtype)
    with jax.enable_x64(True):
        assert ser_jax.train(None, "workdir") == jnp.float32
        assert ser_jax.open_run("workdir") == jnp.float32
        assert jnp.asarray(1.5).dtype == jnp.float64


def test_a_loaded_encoder_computes_in_32_bits():
    class Module:
        image_size = 4

        def apply(self, variables, images):
            cls = images.mean(axis=(1, 2)) * jnp.asarray(np.float64(2))
            return type("Output", (), {"cls": cls})

    with jax.enable_x64(True):
        encoder = FrozenEncoder(Module(), {}, (0.5,) * 3, (0.5,) * 3, "digest")
        features = encoder(np.full((8, 4, 4, 3), 255, np.uint8))
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, 2.0)
