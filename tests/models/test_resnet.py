"""ResNet: loops in NumPy, published counts, canvases, settings."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.resnet_loops import Loops
from helpers.support import assert_close

from ser_jax.models.resnet import ResNet
from ser_jax.models.variants import RESNETS

pytestmark = pytest.mark.slow

GRID_SHAPES = ((2, 1), (1, 2), (2, 2))  # patches; in a canvas of 2 x 2
NUM_SLOTS = 5  # one to spare
SHALLOW = {"stage_sizes": (1, 1), "grid_layers": (1,)}  # gradients compile slowly


def tiny(**kwargs) -> ResNet:
    settings = {
        "stage_sizes": (1, 1, 1, 1),
        "block": "basic",
        "image_size": 32,
        "num_filters": 4,
        "grid_layers": (2,),
        "zero_init_residual": False,
    }
    return ResNet(**(settings | kwargs))


@functools.cache
def variables(model: ResNet):
    """Made up, norms far from their initial identity: initialising one compiles."""
    images = jnp.zeros((1, model.patch_size, model.patch_size, 3))
    shapes = jax.eval_shape(model.init, jax.random.key(1), images)
    # Of seed 0 a token has next to no variance: its norm magnifies rounding.
    draw = np.random.default_rng(2)

    def fill(path, leaf):
        if path[-1].key == "kernel":
            deviation = np.sqrt(2 / np.prod(leaf.shape[:-1]))
            return draw.normal(0.0, deviation, leaf.shape).astype(np.float32)
        positive = path[-1].key in ("scale", "var")
        low, high = (0.5, 1.5) if positive else (-0.5, 0.5)
        return draw.uniform(low, high, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(fill, shapes)


def pictures_and_canvas(model: ResNet, grid_shapes=GRID_SHAPES):
    """Pictures of these many patches, and the same in the corner of canvases."""
    draw, p = np.random.default_rng(1), model.patch_size
    sides = np.array(grid_shapes) * p
    pictures = [draw.normal(size=(h, w, 3)).astype(np.float32) for h, w in sides]
    canvas = np.zeros((len(pictures), 2 * p, 2 * p, 3), np.float32)
    for i, picture in enumerate(pictures):
        canvas[i, : picture.shape[0], : picture.shape[1]] = picture
    return pictures, canvas


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(
    "block, small, sizes",
    [("basic", False, (2, 1, 1, 1)), ("bottleneck", True, (1, 1, 1, 1))],
)
def test_matches_loops_on_pictures_of_mixed_sizes(block, small, sizes, train):
    """Red if a mask, a stride, a padding or a statistic is off."""
    model = tiny(
        block=block,
        small_images=small,
        stage_sizes=sizes,
        grid_layers=(2, 4),
        cls_layers=(4,),
    )
    tree = variables(model)
    pictures, canvas = pictures_and_canvas(model)
    apply = functools.partial(
        model.apply, num_slots=NUM_SLOTS, train=train, mutable=["batch_stats"]
    )
    out, updated = jax.device_get(jax.jit(apply)(tree, canvas, np.array(GRID_SHAPES)))
    loops, norms = Loops(model, tree, train), tree["params"]
    stages = loops(pictures)
    np.testing.assert_array_equal(out.cls_at[4], out.cls)
    for i, last in enumerate(stages[4]):
        rows, cols = GRID_SHAPES[i]
        assert last.shape[:2] == (rows, cols)
        assert_close(out.cls[i], last.mean(axis=(0, 1)))
        flat = last.reshape(rows * cols, -1)
        assert_close(out.tokens[i, : rows * cols], flat)
        assert list(out.valid[i]) == [t < rows * cols for t in range(NUM_SLOTS)]
    for stage, scale in ((2, 4), (4, 1)):
        grid, norm = out.grids[stage], norms[f"norm_grid_{stage}"]
        assert grid.scale == scale
        assert grid.tokens.shape[1] == grid.valid.shape[1] == NUM_SLOTS * scale**2
        for i, x in enumerate(stages[stage]):
            rows, cols = x.shape[:2]
            assert tuple(grid.grid_shape[i]) == (rows, cols)
            assert int(grid.valid[i].sum()) == rows * cols
            x = x.reshape(rows * cols, -1)
            x = x - x.mean(axis=1, keepdims=True)
            x = x / np.sqrt(x.var(axis=1, keepdims=True) + 1e-6)
            expected = x * norm["scale"] + norm["bias"]
            assert_close(grid.tokens[i, : rows * cols], expected)
    for path, (mean, var) in loops.new_stats.items():
        stats = updated["batch_stats"]
        for name in path.split("/"):
            stats = stats[name]
        assert_close(stats["bn"]["mean"], mean)
        assert_close(stats["bn"]["var"], var)


def test_another_stem_padding():
    """solo-learn's: maps are larger, and do not divide the image."""
    settings = {"small_images": True, "stem_padding": 2, "stage_sizes": (1, 1)}
    model = tiny(image_size=16, **(settings | {"grid_layers": (1,)}))
    tree = variables(model)
    images = np.random.default_rng(3).normal(size=(1, 16, 12, 3)).astype(np.float32)
    out = jax.device_get(jax.jit(model.apply)(tree, images))
    stages = Loops(model, tree, False)(list(images))
    assert out.grids[1].grid_shape.tolist() == [[18, 14]]
    last = stages[2][0]
    assert last.shape[:2] == (9, 7)
    assert_close(out.tokens[0], last.reshape(9 * 7, -1))
    assert_close(out.cls[0], last.mean(axis=(0, 1)))
    with pytest.raises(ValueError, match="stem_padding 2 .* without grid_shape"):
        model.apply(tree, images, np.ones((1, 2), np.int32), num_slots=1)


def value_and_gradient(model, train=False):
    """Jitted `(params, stats, images, grid shape) -> ((value, aux), gradient)`."""

    def value(params, stats, images, grid_shape):
        out, updated = model.apply(
            {"params": params, "batch_stats": stats},
            images,
            grid_shape,
            num_slots=None if grid_shape is None else NUM_SLOTS,
            train=train,
            mutable=["batch_stats"],
        )
        total = jnp.sum(jnp.sin(out.cls))
        for grid in out.grids.values():
            total += jnp.sum(
                jnp.where(grid.valid[..., None], jnp.sin(grid.tokens), 0.0)
            )
        return total, (out, updated)

    run = jax.jit(jax.value_and_grad(value, has_aux=True))
    return lambda *args: jax.device_get(run(*args))


@pytest.mark.slow
@pytest.mark.parametrize("block, small", [("basic", False), ("bottleneck", True)])
def test_canvases_equal_the_same_pictures_alone(block, small):
    """Values and gradients, in evaluation mode; red if a layer sees its surroundings.

    The picture alone takes the path without masks.
    """
    model = tiny(block=block, small_images=small, **SHALLOW)
    shapes = GRID_SHAPES[:2]
    tree = variables(model)
    pictures, canvas = pictures_and_canvas(model, shapes)
    run = value_and_gradient(model)
    args = tree["params"], tree["batch_stats"]
    (_, (padded, _)), gradient = run(*args, canvas, np.array(shapes))
    total = jax.tree.map(np.zeros_like, gradient)
    for i, picture in enumerate(pictures):
        (_, (alone, _)), part = run(*args, picture[None], None)
        assert_close(padded.cls[i], alone.cls[0])
        num = alone.tokens.shape[1]
        assert_close(padded.tokens[i, :num], alone.tokens[0])
        assert np.all(alone.valid)
        for stage, grid in alone.grids.items():
            num = grid.tokens.shape[1]
            assert_close(padded.grids[stage].tokens[i, :num], grid.tokens[0])
            assert padded.grids[stage].scale == grid.scale
            np.testing.assert_array_equal(
                padded.grids[stage].grid_shape[i], grid.grid_shape[0]
            )
        total = jax.tree.map(np.add, total, part)
    jax.tree.map(assert_close, gradient, total)


def test_canvases_equal_cropped_batches_in_training():
    """Gradients pass through the statistics too; red if these count the padding."""
    model, shapes = tiny(**SHALLOW), ((2, 1),) * 4
    tree = variables(model)
    pictures, canvas = pictures_and_canvas(model, shapes)
    run = value_and_gradient(model, train=True)
    args = tree["params"], tree["batch_stats"]
    (padded_value, (_, padded_stats)), padded = run(*args, canvas, np.array(shapes))
    (value, (_, stats)), gradient = run(*args, np.stack(pictures), None)
    assert_close(padded_value, value)
    jax.tree.map(assert_close, padded_stats, stats)
    jax.tree.map(assert_close, padded, gradient)


@pytest.mark.parametrize(
    "variant, count, width, small",
    [
        # torchvision's less their 1000-way classifiers
        ("resnet18", 11_689_512 - 513_000, 512, False),
        ("resnet18", 11_689_512 - 513_000, 512, True),
        ("resnet34", 21_797_672 - 513_000, 512, False),
        ("resnet50", 25_557_032 - 2_049_000, 2048, False),
        ("resnet50", 25_557_032 - 2_049_000, 2048, True),
        ("resnet101", 44_549_160 - 2_049_000, 2048, False),
        ("resnet152", 60_192_808 - 2_049_000, 2048, False),
    ],
)
def test_sizes_of_the_standard_nets(variant, count, width, small):
    sizes, block = RESNETS[variant]
    side = 32 if small else 224
    model = ResNet(
        sizes, block, image_size=side, small_images=small, grid_layers=(1, 2, 3, 4)
    )
    out, shapes = jax.eval_shape(
        lambda rng: model.init_with_output(rng, jnp.zeros((2, side, side, 3))),
        jax.random.key(0),
    )
    params = shapes["params"]
    counted = {k: v for k, v in params.items() if not k.startswith("norm_grid")}
    stem_saves = 64 * 3 * (7**2 - 3**2) if small else 0
    total = sum(x.size for x in jax.tree.leaves(counted))
    assert total == count - stem_saves
    assert out.cls.shape == (2, width)
    sides = {1: 32, 2: 16, 3: 8, 4: 4} if small else {1: 56, 2: 28, 3: 14, 4: 7}
    assert out.tokens.shape == (2, sides[4] ** 2, width)
    for stage, cells in sides.items():
        grid = out.grids[stage]
        assert grid.tokens.shape == (2, cells**2, width // 2 ** (4 - stage))
        assert grid.scale == cells // sides[4]


def test_initial_values():
    """Kernels have variance 2 / fan_out; blocks start as identities if asked."""
    images = jnp.zeros((1, 32, 32, 3))

    def init(**kwargs):
        model = tiny(block="bottleneck", **kwargs)
        return jax.jit(model.init)(jax.random.key(0), images)["params"]

    params = init(num_filters=32, stage_sizes=(1, 1), zero_init_residual=True)
    block = params["stage2_block1"]
    for layer, fan_out in (
        (params["stem"]["layer1"], 7**2 * 32),
        (block["layer1"], 64),  # 128 -> 64, 1 x 1
        (block["layer2"], 3**2 * 64),
        (block["shortcut"], 256),  # 128 -> 256, 1 x 1
    ):
        kernel = np.asarray(layer["conv"]["kernel"])
        deviation = np.sqrt(2 / fan_out)
        assert abs(kernel.std() / deviation - 1) < 0.05
        assert np.abs(kernel).max() > 2.5 * deviation, "cut off: not a normal"
    other = init(stage_sizes=(1, 1), zero_init_residual=False)["stage2_block1"]
    for layers, last in ((block, 0), (other, 1)):
        scales = {k: np.unique(v["bn"]["scale"]) for k, v in layers.items()}
        assert scales == {"layer1": 1, "layer2": 1, "layer3": last, "shortcut": 1}


def test_bfloat16_is_close_to_float32():
    tree = variables(tiny())
    images = np.random.default_rng(0).normal(size=(4, 64, 64, 3)).astype(np.float32)
    outs = {
        dtype: jax.jit(
            functools.partial(
                tiny(dtype=dtype).apply, train=True, mutable=["batch_stats"]
            )
        )(tree, images)
        for dtype in ("float32", "bfloat16")
    }
    (full, _), (half, stats) = outs["float32"], outs["bfloat16"]
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(stats))
    assert half.cls.dtype == half.tokens.dtype == jnp.float32
    assert half.grids[2].tokens.dtype == jnp.float32
    assert_close(half.cls, full.cls, rel=5e-2)
    _, inner = jax.eval_shape(
        functools.partial(
            tiny(dtype="bfloat16").apply,
            mutable=["intermediates"],
            capture_intermediates=lambda m, _: isinstance(m, (nn.Conv, nn.BatchNorm)),
        ),
        tree,
        images,
    )
    assert {x.dtype for x in jax.tree.leaves(inner)} == {jnp.dtype("bfloat16")}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"block": "dense"}, "'basic' or 'bottleneck'"),
        ({"image_size": 40}, "total stride, 32 px"),
        ({"grid_layers": (5,)}, "1..depth = 1..4"),
        ({"cls_layers": (0,)}, "1..depth = 1..4"),
        ({"cls_layers": (3, 4)}, "no class token.*mean_patch"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        tiny(**change)


def test_bad_inputs_are_refused():
    model, rng = tiny(), jax.random.key(0)
    with pytest.raises(ValueError, match="48 x 32 px"):
        model.init(rng, jnp.zeros((1, 48, 32, 3)))
    with pytest.raises(ValueError, match="needs num_slots"):
        model.init(rng, jnp.zeros((1, 32, 32, 3)), jnp.ones((1, 2), jnp.int32))
