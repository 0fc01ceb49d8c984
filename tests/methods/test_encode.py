"""Which views share a call of the encoder, and with it their BatchNorm statistics."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ser_jax.methods.encode import encode
from ser_jax.models.resnet import ResNet
from ser_jax.views.recipe import Recipe
from ser_jax.views.view import View, ViewSpec

SIZES = {"global/0": 8, "global/1": 8, "local/0": 4, "local/1": 4}
SIZES |= {f"rot/{k}": 4 for k in range(4)}
SPECS = [
    *(ViewSpec(name, name) for name in ("global/0", "global/1")),
    *(ViewSpec(f"local/{k}", "local", statistics_group="local") for k in range(2)),
    *(ViewSpec(f"rot/{k}", "local", statistics_group="rot") for k in range(4)),
]


@pytest.fixture(scope="module")
def case():
    encoder = ResNet((1,), "basic", image_size=8, num_filters=4, small_images=True)
    views = {}
    for i, (name, size) in enumerate(SIZES.items()):
        # Each view about a mean of its own, which statistics of its own would hide.
        noise = jax.random.normal(jax.random.key(i), (3, size, size, 3))
        views[name] = View(noise + i, jnp.zeros(()), Recipe())
    variables = jax.jit(encoder.init)(jax.random.key(9), views["global/0"].images)
    globals_ = ("global/0", "global/1")
    run = jax.jit(functools.partial(encode, encoder, specs=SPECS, running=globals_))
    features, stats = run(variables["params"], variables["batch_stats"], views)

    @jax.jit
    def together(images, stats):
        return encoder.apply(
            {"params": variables["params"], "batch_stats": stats},
            jnp.concatenate(images),
            train=True,
            mutable=["batch_stats"],
        )

    def alone(*names, stats=variables["batch_stats"]):
        out, updated = together([views[name].images for name in names], stats)
        return np.split(np.asarray(out.cls), len(names)), updated["batch_stats"]

    def jointly():
        run = functools.partial(encode, encoder, specs=SPECS, running=globals_)
        call = jax.jit(functools.partial(run, joint=True))
        return call(variables["params"], variables["batch_stats"], views)

    return features, stats, alone, jointly


@pytest.mark.slow
def test_global_views_have_statistics_of_their_own(case):
    features, _, alone, _ = case
    for name in ("global/0", "global/1"):
        np.testing.assert_allclose(features[name].cls, alone(name)[0][0], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind, num", [("rot", 4), ("local", 2)])
def test_views_of_a_group_share_theirs(case, kind, num):
    features, _, alone, _ = case
    names = [f"{kind}/{i}" for i in range(num)]
    for name, expected in zip(names, alone(*names)[0], strict=True):
        np.testing.assert_allclose(features[name].cls, expected, atol=1e-5)
    assert np.abs(features[names[0]].cls - alone(names[0])[0][0]).max() > 1e-2


@pytest.mark.slow
def test_joint_views_of_one_size_share_theirs_but_for_groups(case):
    _, _, alone, jointly = case
    features, stats = jointly()
    (first, second), expected = alone("global/0", "global/1")
    np.testing.assert_allclose(features["global/0"].cls, first, atol=1e-5)
    np.testing.assert_allclose(features["global/1"].cls, second, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5), stats, expected)
    turned = [f"rot/{i}" for i in range(4)]
    np.testing.assert_allclose(features["rot/0"].cls, alone(*turned)[0][0], atol=1e-5)


def test_running_statistics_are_those_of_the_global_views(case):
    _, stats, alone, _ = case
    _, expected = alone("global/0")
    _, expected = alone("global/1", stats=expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5), stats, expected)
