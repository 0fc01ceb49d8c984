"""ViT: the reference, padded grids, options that must not change the result."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import interop_torch
from helpers.support import assert_close

from ser_jax.geometry import action as geometry
from ser_jax.geometry import group
from ser_jax.models.pos_embed import RESAMPLING, resample_positions, sincos_table
from ser_jax.models.variants import make_vit
from ser_jax.models.vit import ViT

pytestmark = pytest.mark.slow


def reference_vit(settings: dict) -> ViT:
    model = settings["model"]
    layer = model["equiv_layer"]
    return ViT(
        width=model["embed_dim"],
        depth=model["depth"],
        num_heads=model["num_heads"],
        patch_size=model["patch_size"],
        image_size=model["img_size"],
        mlp_ratio=model["mlp_ratio"],
        cls_insert=layer or 0,
        grid_layers=(layer,) if layer else (),
        pos_embed="learned",
    )


def recorded_cases(data) -> list[str]:
    return sorted(k.split("/")[0] for k in data.arrays if k.endswith("/image"))


@pytest.mark.parity
@pytest.mark.parametrize("name", ["vit_ser", "vit_baseline"])
@pytest.mark.parametrize("scan", [True, False])
def test_matches_the_reference_value_and_gradient(golden, name, scan):
    data = golden(name)
    model = reference_vit(data.settings).clone(scan=scan)
    layer = data.settings["model"]["equiv_layer"]
    params = interop_torch.vit(data.group("sd/"), layer)
    assert recorded_cases(data)
    for case in recorded_cases(data):
        image = data[f"{case}/image"].transpose(0, 2, 3, 1)

        def objective(params, image, case=case):
            out = model.apply({"params": params}, image)
            value = jnp.sum(out.cls * data[f"{case}/cot_cls"])
            if layer:
                cotangent = data[f"{case}/cot_feat"]
                b, d, h, w = cotangent.shape
                cotangent = cotangent.transpose(0, 2, 3, 1).reshape(b, h * w, d)
                value += jnp.sum(out.grids[layer].tokens * cotangent)
            return value, out

        (grads, grad_image), out = jax.device_get(
            jax.jit(jax.grad(objective, argnums=(0, 1), has_aux=True))(params, image)
        )
        assert_close(out.cls, data[f"{case}/cls"])
        last = data[f"{case}/last2_block1"]  # tokens after the final norm
        assert_close(out.cls, last[:, 0])
        assert_close(out.tokens, last[:, 1:])
        assert_close(grad_image, data[f"{case}/grad_image"].transpose(0, 2, 3, 1))
        if layer:
            b, d, h, w = data[f"{case}/feat"].shape
            assert np.all(out.grids[layer].grid_shape == [h, w])
            feat = out.grids[layer].tokens.reshape(b, h, w, d)
            assert_close(feat.transpose(0, 3, 1, 2), data[f"{case}/feat"])
        check_gradients(grads, data.group(f"{case}/grad_"), layer)


def check_gradients(grads, recorded, layer):
    position = recorded["pos_embed"]
    if not layer:
        assert_close(grads["cls_pos_embed"], position[:, :1])
    assert_close(grads["pos_embed"], position[0, 0 if layer else 1 :])
    assert_close(grads["cls_token"], recorded["cls_token"])
    kernel = recorded["patch_embed.proj.weight"].transpose(2, 3, 1, 0)
    assert_close(grads["patch_embed"]["kernel"], kernel.reshape(-1, kernel.shape[-1]))
    qkv = grads["blocks"]["attn"]["qkv"]["kernel"][0]
    assert_close(qkv, recorded["blocks.0.attn.qkv.weight"].T)
    assert_close(grads["norm"]["scale"], recorded["norm.weight"])


@pytest.mark.parity
@pytest.mark.parametrize("name", ["vit_ser", "vit_baseline"])
def test_positions_match_the_reference(golden, name):
    data = golden(name)
    patch = data.settings["model"]["patch_size"]
    first = 0 if data.settings["model"]["equiv_layer"] else 1
    sizes = {
        key: [int(x) for x in key.split("/")[1].split("x")]
        for key in data.arrays
        if key.startswith("pos_embed_only/")
    }
    sizes |= {
        f"{case}/pos_embed_resampled": data[f"{case}/image"].shape[2:]
        for case in recorded_cases(data)
    }
    grids = np.array(list(sizes.values())) // patch
    canvases = jax.jit(resample_positions, static_argnums=2)(
        data["sd/pos_embed"][0, first:], grids, int(grids.max())
    )
    for key, canvas, (rows, cols) in zip(
        sizes, np.asarray(canvases), grids, strict=True
    ):
        positions = canvas[:rows, :cols].reshape(rows * cols, -1)
        assert_close(positions, data[key][0, first:])


def cubic(t: float, a: float) -> float:
    t = abs(t)
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0


def by_loops(row: np.ndarray, size: int, resample: str) -> np.ndarray:
    """A row of positions at another length."""
    side, out = len(row), []
    step = side / (size + 0.1 * (resample == "dino"))
    for i in range(size):
        centre = (i + 0.5) * step - 0.5
        if resample == "timm":
            weights = [cubic((j - centre) / max(1, step), -0.5) for j in range(side)]
            weights = np.array(weights) / sum(weights)
        else:
            weights, first = np.zeros(side), int(np.floor(centre)) - 1
            for j in range(first, first + 4):
                weights[np.clip(j, 0, side - 1)] += cubic(j - centre, -0.75)
        out.append(weights @ row)
    return np.array(out)


@pytest.mark.parametrize("resample", RESAMPLING)
def test_positions_by_loops(resample):
    """Fewer rows and more columns than the table's; at its own size, the table."""
    table = np.random.default_rng(0).normal(size=(5, 5, 2)).astype(np.float32)
    canvases = jax.jit(resample_positions, static_argnums=(2, 3))(
        table.reshape(25, 2), np.array([[3, 7], [5, 5]]), 8, resample
    )
    rows = np.stack([by_loops(table[:, i], 3, resample) for i in range(5)], axis=1)
    expected = np.stack([by_loops(row, 7, resample) for row in rows])
    assert_close(canvases[0, :3, :7], expected)
    assert not np.any(canvases[0, 3:]) and not np.any(canvases[0, :, 7:])
    np.testing.assert_array_equal(canvases[1, :5, :5], table)


def test_every_norm_takes_the_epsilon():
    seen = set()

    def look(call, args, kwargs, context):
        if isinstance(context.module, nn.LayerNorm):
            seen.add((context.module.name, context.module.epsilon))
        return call(*args, **kwargs)

    model = tiny(norm_eps=1e-3, cls_layers=(2,))
    with nn.intercept_methods(look):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    names = {"norm1", "norm2", "norm", "norm_grid_1", "norm_cls_2"}
    assert seen == {(name, 1e-3) for name in names}


def tiny(**kwargs) -> ViT:
    settings = {
        "width": 16,
        "depth": 3,
        "num_heads": 2,
        "patch_size": 4,
        "image_size": 16,
        "cls_insert": 1,
        "grid_layers": (1,),
    }
    return ViT(**(settings | kwargs))


def init(model, rng):
    images = jnp.zeros((1, model.image_size, model.image_size, 3))
    return jax.jit(model.init)(rng, images)["params"]


def pictures(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@functools.partial(jax.jit, static_argnums=2)
def apply(params, images, model):
    return model.apply({"params": params}, images)


@pytest.fixture(scope="module")
def params():
    """Of `tiny()`, whatever its options."""
    return init(tiny(), jax.random.key(0))


def test_padded_grids_equal_the_same_images_alone(rng):
    """Each image of a padded batch gives what it gives unpadded; so do gradients."""
    model = tiny(pos_embed="learned")
    params = init(model, rng)
    drawn = group.Group(base_side=4)

    @jax.jit
    def draw(rng, images):
        element, _ = drawn.sample_pair(rng, 3)
        side = drawn.max_side
        return element, geometry.act_on_image(
            images, element, patch_size=4, max_side=side
        )

    element, canvas = jax.device_get(draw(rng, pictures(3, 16, 16, 3)))

    def value(params, canvas, grid_shape=None, num_slots=None):
        out = model.apply({"params": params}, canvas, grid_shape, num_slots=num_slots)
        grid = out.grids[1]
        masked = jnp.where(grid.valid[..., None], jnp.sin(grid.tokens), 0)
        return jnp.sum(jnp.sin(out.cls)) + jnp.sum(masked), out

    differentiate = jax.jit(jax.grad(value, has_aux=True), static_argnums=3)

    def run(*args):
        return jax.device_get(differentiate(params, *args))

    padded_grad, padded = run(canvas, element.grid_shape, drawn.num_slots)
    total = jax.tree.map(np.zeros_like, padded_grad)
    for i, (rows, cols) in enumerate(element.grid_shape):
        grad, alone = run(canvas[i : i + 1, : rows * 4, : cols * 4])
        assert_close(padded.cls[i], alone.cls[0])
        assert_close(padded.grids[1].tokens[i, : rows * cols], alone.grids[1].tokens[0])
        assert int(padded.valid[i].sum()) == rows * cols
        total = jax.tree.map(np.add, total, grad)
    jax.tree.map(assert_close, padded_grad, total)


@functools.partial(jax.jit, static_argnums=1)
@jax.value_and_grad
def value_and_gradient(params, model):
    out = model.apply({"params": params}, pictures(2, 16, 16, 3))
    return jnp.sum(jnp.sin(out.cls)) + jnp.sum(jnp.sin(out.grids[1].tokens))


@pytest.mark.parametrize(
    "options", [{"scan": False}, {"remat": True}, {"remat": True, "scan": False}]
)
def test_scan_and_remat_do_not_change_values_or_gradients(params, options):
    expected = value_and_gradient(params, tiny())
    actual = value_and_gradient(params, tiny(**options))
    jax.tree.map(lambda a, e: assert_close(a, e, 1e-5, 1e-6), actual, expected)


def test_class_token_does_not_touch_the_grid_before_it_joins(rng):
    model = tiny(cls_insert=2, grid_layers=(1, 2, 3))
    images = np.ones((1, 16, 16, 3), np.float32)

    @jax.jit
    def gradients(params):
        def sums(cls_token):
            grids = apply(params | {"cls_token": cls_token}, images, model).grids
            return {layer: grid.tokens[..., 0].sum() for layer, grid in grids.items()}

        return jax.jacrev(sums)(params["cls_token"])

    grads = gradients(init(model, rng))
    touched = {layer: bool(np.any(grad)) for layer, grad in grads.items()}
    assert touched == {1: False, 2: False, 3: True}


def test_bfloat16_is_close_to_float32(params):
    images = pictures(2, 16, 16, 3)
    full = apply(params, images, tiny())
    half = apply(params, images, tiny(dtype=jnp.bfloat16))
    assert half.cls.dtype == half.grids[1].tokens.dtype == jnp.float32
    np.testing.assert_allclose(half.cls, full.cls, atol=6e-2)
    assert not np.array_equal(half.cls, full.cls)


def test_frozen_patch_embedding_takes_no_gradient(params):
    for frozen in (True, False):
        _, grad = value_and_gradient(params, tiny(freeze_patch_embed=frozen))
        assert bool(np.any(grad["patch_embed"]["kernel"])) is not frozen


def test_drop_path_drops_whole_branches_of_whole_images(rng):
    model = tiny(drop_path_rate=0.9, depth=2, cls_insert=0, grid_layers=(1,))
    params = init(model, rng)
    images = pictures(1, 16, 16, 3).repeat(200, axis=0)

    @jax.jit
    def train(params, images, rng):
        rngs = {"drop_path": rng}
        return model.apply({"params": params}, images, train=True, rngs=rngs)

    out = jax.device_get(train(params, images, rng))
    # Block 1 has rate 0: all images agree there. Block 2 keeps or drops each branch.
    np.testing.assert_allclose(
        out.grids[1].tokens, out.grids[1].tokens[:1].repeat(200, 0), atol=1e-5
    )
    distinct = np.unique(np.round(out.cls, 3), axis=0)
    assert 2 <= len(distinct) <= 4
    eval_out = apply(params, images[:1], model)
    no_drop = apply(params, images[:1], model.clone(drop_path_rate=0.0))
    np.testing.assert_array_equal(eval_out.cls, no_drop.cls)


@pytest.mark.parametrize(
    "variant, count",
    [
        ("Ti/16", 5_524_416),
        ("S/16", 21_665_664),
        ("B/16", 85_798_656),
        ("L/16", 303_301_632),
    ],
)
def test_parameter_counts(variant, count):
    model = make_vit(variant, image_size=224, pos_embed="learned")
    shapes = jax.eval_shape(
        lambda rng: model.init(rng, jnp.zeros((1, 224, 224, 3))), jax.random.key(0)
    )
    assert sum(x.size for x in jax.tree.leaves(shapes)) == count


def test_sincos_table_by_hand():
    table = sincos_table(3, 8)
    row, col = 2, 1
    omega = [1.0, 10000**-0.5]
    expected = [f(p * w) for p in (row, col) for f in (np.sin, np.cos) for w in omega]
    np.testing.assert_allclose(table[row * 3 + col], expected, rtol=1e-5)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"image_size": 18}, "not a multiple of patch_size"),
        ({"grid_layers": (4,)}, "1..depth = 1..3"),
        ({"cls_insert": 4}, "cls_insert"),
        ({"num_heads": 3}, "does not divide"),
        ({"pos_embed": "rope"}, "pos_embed"),
        ({"init_scheme": "zeros"}, "init_scheme"),
        ({"resample": "area"}, "dino, hf, timm"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        tiny(**change)


def test_bad_images_and_variants_are_refused(rng):
    with pytest.raises(ValueError, match="patches of 4 px"):
        tiny().init(rng, jnp.zeros((1, 18, 16, 3)))
    with pytest.raises(ValueError, match="Ti, S, B, L"):
        make_vit("X/16", image_size=224)
