"""Fine-tuning: it learns, from the weights it is given, less the lower the layer."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ser_jax.evaluate.classify.finetune import FinetuneSettings, finetune
from ser_jax.evaluate.classify.heads import head_logits
from ser_jax.models.resnet import ResNet
from ser_jax.models.vit import ViT
from ser_jax.train.sharding import make_mesh, replicated

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 2, 64)
# A bright stripe, lying or standing.
PICTURES = RNG.integers(0, 100, (64, 16, 16, 3)).astype(np.uint8)
PICTURES[LABELS == 0, 6:9] = 250
PICTURES[LABELS == 1, :, 6:9] = 250


def normalize(images):
    return images.astype(jnp.float32) / 128 - 1


def encoder(kind):
    if kind == "vit":
        return ViT(16, 3, 2, patch_size=4, image_size=16, grid_layers=(1,))
    return ResNet(
        (1, 1), "basic", 16, num_filters=4, small_images=True, grid_layers=(1,)
    )


def run(kind, **settings):
    module, mesh = encoder(kind), make_mesh()
    init = jax.jit(module.init, out_shardings=replicated(mesh))
    variables = init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    before = jax.device_get(variables)
    losses = []
    chosen = {"total_steps": 60, "warmup_steps": 3, "learning_rate": 1e-2} | settings
    found, head = finetune(
        module,
        variables,
        itertools.repeat((PICTURES, LABELS)),
        normalize,
        mesh,
        settings=FinetuneSettings(**chosen),
        num_classes=2,
        seed=0,
        on_step=lambda step, metrics: losses.append(metrics["loss"]),
    )
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(variables), before)
    return module, before, found, head, losses


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_it_learns_and_leaves_the_pretrained_weights_alone(kind):
    module, before, found, head, losses = run(kind, label_smoothing=0.0)
    assert len(losses) == 60 and losses[0] == pytest.approx(np.log(2), rel=0.1)
    assert losses[-1] < 0.25
    cls = jax.jit(module.clone(grid_layers=()).apply)(found, normalize(PICTURES)).cls
    assert np.mean(np.argmax(head_logits(head, cls), axis=1) == LABELS) > 0.95
    if kind == "resnet":  # statistics have moved with the weights
        mean = jax.tree.leaves(found["batch_stats"])[0]
        assert np.abs(mean - jax.tree.leaves(before["batch_stats"])[0]).max() > 1e-3


def test_lower_blocks_move_less():
    """AdamW's first step is the learning rate, whatever the gradient."""
    settings = {"total_steps": 1, "warmup_steps": 0, "weight_decay": 0.0}
    _, before, found, head, _ = run("vit", **settings)

    def moved(name, index=slice(None)):
        leaf = np.asarray(found["params"]["blocks"]["mlp"][name]["bias"])
        return np.abs(leaf - before["params"]["blocks"]["mlp"][name]["bias"])[index]

    largest = [moved("fc2", block).max() for block in range(3)]
    expected = 1e-2 * 0.65 ** np.array([3, 2, 1])
    np.testing.assert_allclose(largest, expected, rtol=1e-2)
    assert np.abs(head.bias).max() == pytest.approx(1e-2, rel=1e-3)
    embed = [x["params"]["patch_embed"]["bias"] for x in (found, before)]
    assert np.abs(np.subtract(*embed)).max() == pytest.approx(1e-2 * 0.65**4, rel=1e-3)


def test_divergence_is_an_error():
    with pytest.raises(FloatingPointError, match="diverged at step"):
        run("vit", learning_rate=1e30)
