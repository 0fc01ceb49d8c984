"""Scores on encoders whose equivariance is known."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.support import d4_on_array

from ser_jax.evaluate.layers.scores import Cosine, equivariance_scores
from ser_jax.evaluate.layers.transforms import DEFAULT_TRANSFORMS, Reshape, Translation
from ser_jax.geometry.action import canvas_to_slots, slot_cells
from ser_jax.geometry.group import QUARTER_TURNS
from ser_jax.models.outputs import EncoderOutput, TokenGrid
from ser_jax.models.vit import ViT

PATCH = 4
TURNS = {
    name: move
    for name, move in DEFAULT_TRANSFORMS.items()
    if name.startswith(("rotation", "flip"))
}
EXACT = TURNS | {
    name: move
    for name, move in DEFAULT_TRANSFORMS.items()
    if name.startswith("translation")
}
# One shape for most tests, compiled once: the resize leaves padding for the others.
PADDED = EXACT | {"scale/1.5": Reshape(area=1.5)}


def noise(n=5, side=5):
    """Pictures no two patches of which are alike."""
    shape = (n, side * PATCH, side * PATCH, 3)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def smooth(n=2, side=12):
    """Long waves, far from nothing in any channel."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: side * PATCH, : side * PATCH][..., None] / (side * PATCH)
    phase, up, across = rng.uniform(1, 4, (3, n, 1, 1, 3))
    return np.sin(phase + up * y + across * x).astype(np.float32)


def encoder(positional=0.0, padding=0.0, cell=PATCH):
    """Tokens that are mean colours of cells, which commutes with every symmetry.

    Args:
        positional: Weight of a code of its own for each slot.
        padding: What the padding slots hold.
        cell: Pixels a side of a token's cell.
    """

    return functools.partial(
        encode_cells, positional=positional, padding=padding, cell=cell
    )


@functools.partial(jax.jit, static_argnames=("num_slots", "cell"))
def encode_cells(canvas, grid_shape, num_slots, *, positional, padding, cell):
    b, s = canvas.shape[:2]
    scale = PATCH // cell
    cells = canvas.reshape(b, s // cell, cell, s // cell, cell, 3).mean((2, 4))
    shape, n = grid_shape * scale, num_slots * scale**2
    tokens = canvas_to_slots(cells, shape, n)
    code = jax.random.normal(jax.random.key(7), (1, n, 3))
    valid = slot_cells(shape, n)[2]
    tokens = jnp.where(valid[..., None], tokens + positional * code, padding)
    grid = TokenGrid(tokens, shape, valid, scale)
    return EncoderOutput(tokens[:, 0], tokens, valid, {1: grid}, {})


def scores_of(encode, images, transforms=PADDED, **settings):
    settings = {
        "patch_size": PATCH,
        "layers": (1,),
        "seed": 0,
        "batch_size": 2,
    } | settings
    return equivariance_scores(encode, images, transforms=transforms, **settings)[1]


@pytest.mark.slow
@pytest.mark.parametrize("cell", [PATCH, PATCH // 2], ids=["patches", "finer cells"])
def test_an_equivariant_encoder_is_perfect(cell):
    """Turns, flips and translations; padding slots hold NaN."""
    encode = encoder(padding=jnp.nan, cell=cell)
    scores = scores_of(encode, noise())
    assert scores.keys() == PADDED.keys()
    for name in EXACT:
        score = scores[name]
        assert score.tokens.value == pytest.approx(1, abs=1e-5), name
        assert abs(score.tokens.random) < 0.1, name
        assert score.error == pytest.approx(0, abs=1e-9), name
        assert score.top1 == 1, name
        if name in TURNS:
            assert score.top1_chance == (cell / PATCH) ** 2 / 25
            assert score.pooled.value == pytest.approx(1, abs=1e-5), name
    # 3 x 4 patches are seen in both windows
    assert scores["translation/down"].top1_chance == (cell / PATCH) ** 2 / 12
    assert np.isfinite(scores["scale/1.5"].error)


@pytest.mark.slow
def test_smooth_colours_scale_with_the_picture():
    """Red if the carried grid is resized to another shape than the picture."""
    resizes = {k: v for k, v in DEFAULT_TRANSFORMS.items() if k not in EXACT}
    scores = scores_of(encoder(), smooth(), resizes)
    assert scores.keys() == resizes.keys()
    for name, score in scores.items():
        assert score.tokens.value > 0.999, name
        assert score.tokens.corrected > 0.99, name
        assert score.error < 2e-3, name


@pytest.mark.slow
def test_a_positional_encoder_is_not_equivariant():
    scores = scores_of(encoder(positional=9.0), noise())
    for name in EXACT:
        score = scores[name]
        assert abs(score.tokens.value) < 0.5, name
        assert score.error > 0.5, name
        assert score.top1 < 0.5, name


@functools.partial(jax.jit, static_argnums=2)
def random_tokens(canvas, grid_shape, num_slots):
    """Tokens that have nothing to do with one another, but for a common direction."""
    key = jax.random.key(jax.lax.bitcast_convert_type(canvas.sum(), jnp.int32))
    out = encoder()(canvas, grid_shape, num_slots)
    b, n, _ = out.tokens.shape
    tokens = jax.random.normal(key, (b, n, 64)) + 1.0
    return dataclasses.replace(out, grids={1: TokenGrid(tokens, grid_shape, out.valid)})


@pytest.mark.slow
def test_random_tokens_score_nothing_once_corrected():
    """A common direction lifts the cosine to a half, and not one of the others."""
    images = noise(n=4, side=9)
    moves = {"rotation/90": TURNS["rotation/90"], "right": Translation(right=1)}
    for name, score in scores_of(random_tokens, images, moves).items():
        assert score.tokens.value == pytest.approx(0.5, abs=0.05), name
        assert score.tokens.corrected == pytest.approx(0, abs=0.05), name
        assert score.error == pytest.approx(1, abs=0.05), name
        assert score.top1 < 0.1, name


def test_one_token_everywhere_is_no_equivariance():
    """Padding slots point the other way: strangers are never drawn from them."""
    images = np.ones((2, 6 * PATCH, 6 * PATCH, 3), np.float32)
    moves = {"smaller": Reshape(QUARTER_TURNS[1], area=0.6)}
    score = scores_of(encoder(padding=-1.0), images, moves)["smaller"]
    assert score.tokens.value == pytest.approx(1, abs=1e-5)
    assert score.tokens.random == pytest.approx(1, abs=1e-5)
    assert np.isnan(score.error)
    assert score.top1_chance == 1 / 25  # 36 slots


@pytest.mark.slow
def test_a_2_by_2_grid_by_hand():
    """Reference by loops, on an encoder that is neither exact nor lost."""
    images, encode = noise(n=2, side=2) + 1, encoder(positional=0.2)
    moves = {"half turn": TURNS["rotation/180"], "larger": Reshape(area=4)}  # padding
    score = scores_of(encode, images, moves)["half turn"]

    def grid(pictures):
        return np.asarray(encode(pictures, np.full((2, 2), 2), 4).grids[1].tokens)

    still, moved = grid(images), grid(images[:, ::-1, ::-1].copy())
    carried = still[:, ::-1]  # slots 0 1 / 2 3 turned by 180 degrees
    mean = (carried + moved).mean((0, 1)) / 2

    def cosine(x, y):
        return x @ y / np.sqrt(x @ x) / np.sqrt(y @ y)

    cosines, wins, difference, spread = [], 0, 0.0, 0.0
    for b, m in zip(carried, moved, strict=True):
        for p in range(4):
            cosines.append(cosine(b[p], m[p]))
            near = [cosine(b[p] - mean, m[q] - mean) for q in range(4)]
            wins += int(np.argmax(near)) == p
            difference += np.sum((b[p] - m[p]) ** 2)
            spread += np.sum((b[p] - mean) ** 2) + np.sum((m[p] - mean) ** 2)
    assert score.tokens.value == pytest.approx(np.mean(cosines), abs=1e-6)
    assert score.error == pytest.approx(difference / spread, rel=1e-5)
    assert 0 < difference / spread < 1
    assert score.top1 == wins / 8
    for whole, before, after in (
        (score.pooled, still.mean(1), moved.mean(1)),
        (score.cls, still[:, 0], moved[:, 0]),
    ):
        value = np.mean([cosine(before[i], after[i]) for i in range(2)])
        random = np.mean([cosine(before[1 - i], after[i]) for i in range(2)])
        assert whole.value == pytest.approx(value, abs=1e-6)
        assert whole.random == pytest.approx(random, abs=1e-6)


@pytest.mark.slow
def test_batches_add_up_and_count_each_image_once():
    """The last of three batches reaches back for images it has seen."""
    images, encode = noise(), encoder(positional=0.3)
    whole = scores_of(encode, images, batch_size=64)
    parts = scores_of(encode, images)
    for name, score in whole.items():
        for field in ("error", "top1_chance"):
            expected = getattr(score, field)
            assert getattr(parts[name], field) == pytest.approx(expected, rel=1e-5)
        assert parts[name].tokens.value == pytest.approx(score.tokens.value, abs=1e-6)
        assert parts[name].cls.value == pytest.approx(score.cls.value, abs=1e-6)


def test_random_pairs_follow_the_seed():
    """With two images only the place is left to chance."""
    images, encode = noise(n=2), encoder()
    first, same, other = (
        scores_of(encode, images, seed=seed)["flip/vertical"].tokens
        for seed in (0, 0, 1)
    )
    assert first == same
    assert first.random != other.random and first.value == other.value


def test_transforms_are_what_they_are_called():
    x = np.arange(9).reshape(3, 3)
    for name, expected in {
        "rotation/90": np.rot90(x),
        "rotation/180": np.rot90(x, 2),
        "rotation/270": np.rot90(x, 3),
        "flip/horizontal": x[:, ::-1],
        "flip/vertical": x[::-1],
    }.items():
        np.testing.assert_array_equal(d4_on_array(TURNS[name].d4, x), expected)
    assert DEFAULT_TRANSFORMS["scale/0.8"].grid_shape(14) == (13, 13)
    assert DEFAULT_TRANSFORMS["aspect/1.33"].grid_shape(14) == (16, 12)


@pytest.mark.slow
def test_one_shape_for_each_kind_of_transform():
    shapes = set()
    inner = encoder()

    def encode(canvas, grid_shape, num_slots):
        shapes.add((canvas.shape, num_slots))
        return inner(canvas, grid_shape, num_slots)

    moves = DEFAULT_TRANSFORMS | {"stay": Translation()}
    scores = scores_of(encode, smooth(), moves)
    assert len(scores) == len(DEFAULT_TRANSFORMS)
    assert len(shapes) == 2


@pytest.mark.slow
def test_what_the_grid_cannot_show_is_left_out():
    moves = DEFAULT_TRANSFORMS | {"same": Reshape(), "stay": Translation()}
    scores = scores_of(encoder(), noise(n=2, side=2), moves)
    assert scores.keys() == TURNS.keys()  # 2 x 2 tokens round back to 2 x 2


@pytest.mark.slow
def test_scores_of_a_vit():
    vit = ViT(16, 2, 2, PATCH, 4 * PATCH, grid_layers=(1, 2))
    images = noise(n=2, side=4)
    variables = jax.jit(vit.init)(jax.random.key(0), images)
    encode = jax.jit(
        lambda x, shape, num_slots: vit.apply(variables, x, shape, num_slots=num_slots),
        static_argnums=2,
    )
    moves = {"flip": TURNS["flip/vertical"], "right": Translation(right=1)}
    scores = equivariance_scores(
        encode, images, patch_size=PATCH, layers=(1, 2), seed=0, transforms=moves
    )
    for layer in (1, 2):
        for score in scores[layer].values():
            assert 0 < score.tokens.value < 1 and 0 < score.error < 2
    assert scores[1]["flip"].cls == scores[2]["flip"].cls


def test_corrected_cosine():
    assert Cosine(0.8, 0.6).corrected == pytest.approx(0.5)
    assert np.isnan(Cosine(1.0, 1.0).corrected)


@pytest.mark.parametrize(
    "shape, message",
    [((2, 8, 12, 3), "square"), ((2, 10, 10, 3), "patches"), ((1, 8, 8, 3), "two")],
)
def test_pictures_that_do_not_fit_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        scores_of(encoder(), np.zeros(shape, np.float32))


def test_a_translation_off_the_picture_is_refused():
    with pytest.raises(ValueError, match="0 or 1 patches"):
        Translation(right=-1)
