"""Pictures: what is drawn where, on arrays whose picture is known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib import image as png
from matplotlib.colors import to_hex

from ser_jax.evaluate.pictures.figures import COLORS
from ser_jax.evaluate.pictures.patches import (
    TokenColors,
    attention_picture,
    patch_pca_picture,
)
from ser_jax.evaluate.pictures.token_maps import (
    SHOWN_TRANSFORMS,
    token_maps,
    token_maps_picture,
)
from ser_jax.geometry.action import canvas_to_slots, slot_cells
from ser_jax.models.outputs import EncoderOutput, TokenGrid
from ser_jax.report.pictures.corruption import corruption_picture
from ser_jax.report.pictures.depth import DepthCurves, depth_picture, kind_curves

PATCH = 4


def drawn(figure):
    """Cells of each panel, row by row."""
    return [ax.images[0].get_array() for ax in figure.axes if ax.images]


def in_file(path, ax):
    """The pixels of a panel in the PNG file, `[rows, cols, 3]`."""
    pixels, box = png.imread(path), ax.get_position()
    height, width, _ = pixels.shape
    left, right = int(box.x0 * width) + 1, int(box.x1 * width)
    top, bottom = int((1 - box.y1) * height) + 1, int((1 - box.y0) * height)
    return pixels[top:bottom, left:right, :3]


def noise(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def photos(b, side=8):
    return np.random.default_rng(0).integers(0, 256, (b, side, side, 3), np.uint8)


def test_attention_is_bright_where_it_is(tmp_path, figures):
    """Red if heads or pictures change places, or a map is turned."""
    attention = np.full((2, 3, 2, 4), 0.01)
    attention[1, 2, 0, 3] = 0.5  # second picture, last head: top right
    path = attention_picture(tmp_path / "a.png", photos(2), attention)
    (figure,) = figures
    panels = drawn(figure)
    assert len(panels) == 2 * (1 + 3)
    np.testing.assert_array_equal(panels[4], photos(2)[1])
    np.testing.assert_array_equal(panels[7], attention[1, 2])
    brightness = in_file(path, figure.axes[7]).mean(-1)
    rows, cols = brightness.shape
    bright = brightness[: rows // 2 - 2, cols * 3 // 4 + 2 :]
    assert bright.min() > 0.8
    assert np.median(brightness) < 0.1
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_colors_of_tokens():
    """By hand: two axes of known spread, the third without any."""
    rng = np.random.default_rng(0)
    along = rng.uniform(-1, 1, (500, 2)) * [3, 1]
    tokens = np.stack([0 * along[:, 0], along[:, 1], -along[:, 0]], axis=1) + 5
    colors = TokenColors.fit(tokens)
    np.testing.assert_allclose(
        np.abs(colors.axes), [[0, 0, 0], [0, 1, 0], [1, 0, 0]], atol=0.05
    )
    assert (colors.axes[[2, 1], [0, 1]] > 0).all()
    seen = colors(tokens)
    assert seen.min() == 0 and seen.max() == 1
    np.testing.assert_array_equal(seen[:, 2], 0.5)
    assert 4 <= np.sum(seen[:, 0] == 0) <= 6  # 1 % of 500 below the first percentile
    # signs do not depend on the order that tokens come in
    np.testing.assert_allclose(TokenColors.fit(tokens[::-1]).axes, colors.axes)


def test_colors_of_equal_tokens():
    np.testing.assert_array_equal(TokenColors.fit(np.ones((6, 8)))(np.ones(8)), 0.5)


def test_pca_of_all_pictures(tmp_path, figures):
    """Red if colours are fitted picture by picture: equal tokens would differ."""
    tokens = noise(2, 3, 4, 5)
    tokens[1, 2, 0] = tokens[0, 1, 3]
    path = patch_pca_picture(tmp_path / "pca.png", photos(2), tokens)
    panels = drawn(figures[0])
    np.testing.assert_array_equal(panels[1], photos(2)[1])
    first, second = panels[2:]
    assert first.shape == (3, 4, 3)
    np.testing.assert_array_equal(second[2, 0], first[1, 3])
    np.testing.assert_allclose(
        second, TokenColors.fit(tokens.reshape(24, 5))(tokens[1])
    )
    shown = in_file(path, figures[0].axes[2])
    middle = shown[shown.shape[0] // 2, shown.shape[1] // 8]
    np.testing.assert_allclose(middle, first[1, 0], atol=0.01)


@functools.partial(jax.jit, static_argnums=2)
def mean_colors(canvas, grid_shape, num_slots):
    """An encoder that commutes with every symmetry; NaN in padding."""
    b, s = canvas.shape[:2]
    cells = canvas.reshape(b, s // PATCH, PATCH, s // PATCH, PATCH, 3).mean((2, 4))
    valid = slot_cells(grid_shape, num_slots)[2]
    tokens = canvas_to_slots(cells, grid_shape, num_slots)
    tokens = jnp.where(valid[..., None], tokens, jnp.nan)
    grid = TokenGrid(tokens, grid_shape, valid)
    return EncoderOutput(tokens[:, 0], tokens, valid, {2: grid}, {})


def positional(canvas, grid_shape, num_slots):
    """The same, plus a strong code of its own for each slot."""
    out = mean_colors(canvas, grid_shape, num_slots)
    grid = out.grids[2]
    code = 9 * jax.random.normal(jax.random.key(0), (1, num_slots, 3))
    return out.replace(grids={2: grid.replace(tokens=grid.tokens + code)})


@pytest.fixture(scope="module")
def maps():
    images = noise(2, 5 * PATCH, 5 * PATCH, 3)
    return images, token_maps(mean_colors, images, SHOWN_TRANSFORMS, PATCH, 2)


def test_token_maps_of_an_equivariant_encoder(maps):
    """Red if gx is not the picture that F(gx) is of, or a grid is read wrongly."""
    images, rows = maps
    assert [row.name for row in rows] == [*SHOWN_TRANSFORMS] * 2
    turned, flipped, smaller, shifted = rows[4:]
    image = images[1]
    np.testing.assert_array_equal(turned.image, image)
    np.testing.assert_allclose(turned.moved_image, np.rot90(image), atol=1e-6)
    np.testing.assert_allclose(flipped.moved_image, image[:, ::-1], atol=1e-6)
    assert smaller.moved_image.shape == (4 * PATCH, 4 * PATCH, 3)
    assert smaller.tokens.shape == (5, 5, 3) and smaller.moved.shape == (4, 4, 3)
    np.testing.assert_array_equal(shifted.moved_image, image[PATCH:, :-PATCH])
    np.testing.assert_array_equal(shifted.valid, [[True] * 4] * 3 + [[False] * 4])
    for row in (turned, flipped, shifted):
        np.testing.assert_allclose(row.error[row.valid], 0, atol=1e-6)
        assert np.isnan(row.error[~row.valid]).all()
    np.testing.assert_allclose(turned.moved, np.rot90(turned.tokens), atol=1e-6)


def test_token_maps_of_a_positional_encoder():
    """Red if rho_g F(x) is taken from F(gx)."""
    images = noise(1, 4 * PATCH, 4 * PATCH, 3)
    moves = {"flip": SHOWN_TRANSFORMS["flip/horizontal"]}
    (row,) = token_maps(positional, images, moves, PATCH, 2)
    assert row.error.mean() > 0.3
    np.testing.assert_allclose(row.carried, row.tokens[:, ::-1])


@pytest.mark.slow
def test_token_maps_picture(maps, tmp_path, figures):
    """Red if the turned colours are not those of the turned picture."""
    _, rows = maps
    path = token_maps_picture(
        tmp_path / "maps.png", rows, mean=[0.5] * 3, std=[0.25] * 3
    )
    (figure,) = figures
    panels = drawn(figure)[: 6 * len(rows)]
    image, moved_image, tokens, carried, moved, error = panels[:6]
    np.testing.assert_allclose(image, np.clip(rows[0].image / 4 + 0.5, 0, 1))
    np.testing.assert_allclose(moved_image, np.rot90(image), atol=1e-6)
    np.testing.assert_allclose(carried, np.rot90(tokens), atol=1e-5)
    np.testing.assert_allclose(moved, np.rot90(tokens), atol=1e-5)
    np.testing.assert_allclose(error, 0, atol=1e-6)
    for ax in figure.axes[5 : 6 * len(rows) : 6]:
        assert ax.images[0].get_clim() == (0, 1)
    lost = panels[6 * 3 + 3]  # translation: rho_g F(x)
    np.testing.assert_array_equal(lost[3], 0.85)
    assert panels[6 * 3 + 5].mask[3].all()
    pixels = in_file(path, figure.axes[3])
    turned = np.rot90(in_file(path, figure.axes[2]))
    smallest = min(pixels.shape[:2] + turned.shape[:2])
    cells = (np.arange(5) * 2 + 1) * smallest // 10  # centres of the 5 x 5 cells
    grid = np.ix_(cells, cells)
    np.testing.assert_allclose(pixels[grid], turned[grid], atol=0.01)


def layers(value):
    """Results of two layers; the second is twice the first."""
    return {
        f"layer_{k}": {
            name: {"corrected": k * value, "error": 1 - value, "top1_chance": 0.1}
            for name in ("rotation/90", "rotation/180", "flip/horizontal")
        }
        for k in (1, 10)
    }


def test_kind_curves():
    """Red if a kind is not the mean of its members, or layers sort as text."""
    found = layers(0.05) | {"cls": {"rotation/90": {"corrected": 1.0}}}
    found["layer_1"]["rotation/180"]["corrected"] = 0.15
    found["layer_1"]["flip/horizontal"]["corrected"] = float("nan")
    found["layer_10"]["rotation/90"]["corrected"] = None
    found = dict(reversed(found.items()))
    curves = kind_curves(found, "corrected")
    np.testing.assert_allclose(curves["rotation"], [[1, 0.1], [10, 0.5]])
    np.testing.assert_allclose(curves["flip"], [[10, 0.5]])


def test_depth_picture(tmp_path, figures):
    """Red if a line is another checkpoint's, or chance or a marked layer is lost."""
    checkpoints = {
        "base": DepthCurves(layers(0.03), {}),
        "ser": DepthCurves(layers(0.06), {}, marked_layers=(3,)),
        "absent": DepthCurves({}, {}),
    }
    depth_picture(tmp_path / "depth.png", checkpoints)
    (figure,) = figures
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == ["rotation", "flip"] * 2  # corrected, error
    chance, base, mark, _, ser = figure.axes[0].lines
    np.testing.assert_allclose(chance.get_ydata(), 0)
    np.testing.assert_allclose(base.get_xydata(), [[1, 0.03], [10, 0.3]])
    np.testing.assert_allclose(ser.get_xydata(), [[1, 0.06], [10, 0.6]])
    assert list(mark.get_xdata()) == [3, 3] and mark.get_color() == ser.get_color()
    np.testing.assert_allclose(figure.axes[2].lines[0].get_ydata(), 1)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["base", "ser", "chance"]


def test_chance_is_the_measured_one(tmp_path, figures):
    found = {"layer_1": {"flip/h": {"top1": 0.7, "top1_chance": 0.2}}}
    seis = {"layer_1": {"flip/h": {"equivariance": 0.6, "chance": 0.3}}}
    depth_picture(tmp_path / "depth.png", {"run": DepthCurves(found, seis)})
    top1, equivariance = figures[0].axes
    assert [line.get_ydata().tolist() for line in top1.lines] == [[0.2], [0.7]]
    assert [line.get_ydata().tolist() for line in equivariance.lines] == [[0.3], [0.6]]


def test_nothing_to_draw_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no checkpoint has results"):
        depth_picture(tmp_path / "depth.png", {"run": DepthCurves({}, {})})
    assert not list(tmp_path.iterdir())


def test_corruption_picture(tmp_path, figures):
    """Red if bars are not means over severities, or a gap shifts the others."""
    errors = {
        "absent": {},
        "base": {"fog": [0.1, 0.3], "gaussian_noise": [0.2, 0.8]},
        "ser": {"gaussian_noise": [0.1, 0.2]},
    }
    corruption_picture(tmp_path / "c.png", errors)
    bars, lines = figures[0].axes
    base, ser = bars.containers
    np.testing.assert_allclose([bar.get_height() for bar in base], [0.2, 0.5])
    np.testing.assert_allclose([bar.get_height() for bar in ser], [np.nan, 0.15])
    assert base[1].get_x() < 1 < ser[1].get_x() + ser[1].get_width()
    labels = [label.get_text() for label in bars.get_xticklabels()]
    assert labels == ["fog", "gaussian noise"]
    np.testing.assert_allclose(lines.lines[0].get_xydata(), [[1, 0.15], [2, 0.55]])
    for i, bar in ((1, base[0]), (2, ser[0])):  # the first colour is the absent one's
        assert to_hex(bar.get_facecolor()) == COLORS[i]
