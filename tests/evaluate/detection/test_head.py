"""The pyramid's levels, the head's outputs, the loss, and that it is learnt from."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.finite_difference import gradients
from helpers.support import assert_close

from ser_jax.evaluate.detection.assign import assign, make_locations
from ser_jax.evaluate.detection.decode import Decoding, predict
from ser_jax.evaluate.detection.head import (
    Detector,
    Outputs,
    apply_stack,
)
from ser_jax.evaluate.detection.losses import detection_loss, focal_loss
from ser_jax.evaluate.detection.pyramid import SimplePyramid, pyramid_strides
from ser_jax.train.sharding import batch_sharded, make_mesh, replicated

SIZE, STRIDES = 64, (8, 16)
LOCATIONS = make_locations(SIZE, STRIDES)
DETECTOR = Detector(3, STRIDES, channels=16, num_convs=1, dtype=jnp.float32)
ABSENT = np.zeros((8, 5, 4), np.float32), np.full((8, 5), -1)


def made_maps(boxes, labels, stride=8, seed=0):
    """Maps that show the boxes: a channel of each class, columns, rows, and noise."""
    centres = (np.arange(SIZE // stride) + 0.5) * stride
    y, x = np.meshgrid(centres, centres, indexing="ij")
    b = len(boxes)
    maps = np.random.default_rng(seed).normal(scale=0.1, size=(b, *x.shape, 8))
    for picture, its_boxes, its_labels in zip(maps, boxes, labels, strict=True):
        picture[..., 3], picture[..., 4] = x / SIZE, y / SIZE
        for (x0, y0, x1, y1), label in zip(its_boxes, its_labels, strict=True):
            inside = (x > x0) & (x < x1) & (y > y0) & (y < y1)
            picture[inside, label] += 2.0 * (label >= 0)
    return {stride: maps.astype(np.float32)}


def made_boxes(b=8, seed=0):
    """Two rectangles of other classes a picture, in its left and right half."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 12, (b, 2, 2)) + np.array([[[0, 0], [32, 20]]])
    sides = rng.integers(16, 20, (b, 2, 2))
    boxes, labels = (np.copy(x) for x in ABSENT)
    boxes[:, :2] = np.concatenate([corner, corner + sides], axis=2)
    labels[:, :2] = rng.integers(0, 3, (b, 2))
    return boxes[:b], labels[:b]


BOXES, LABELS = made_boxes()
MAPS = made_maps(BOXES, LABELS)


@pytest.fixture(scope="module")
def params():
    return jax.jit(DETECTOR.init)(jax.random.key(0), MAPS)


def loss_of(params, maps, boxes, labels, detector=DETECTOR):
    outputs = detector.apply(params, maps)
    return detection_loss(outputs, LOCATIONS, boxes, labels)


def row(stack, i):
    return jax.tree.map(lambda x: x[i], stack)


def random_outputs(b=2, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    n = len(LOCATIONS.xy)
    arrays = rng.normal(size=(b, n, classes)), rng.uniform(1, 40, (b, n, 4))
    arrays = (*arrays, rng.normal(size=(b, n)))
    return Outputs(*(array.astype(np.float32) for array in arrays))


@pytest.mark.parametrize(
    "maps, size, expected",
    [
        ((16,), 512, (8, 16, 32, 64)),
        ((16,), 640, (8, 16, 32, 64, 128)),
        ((16,), 64, (8, 16, 32, 64)),
        ((8,), 64, (8, 16, 32, 64)),
        ((8,), 640, (8, 16, 32, 64, 128)),
        ((14,), 518, (7, 14, 28, 56)),
        ((32,), 256, (8, 16, 32, 64)),
        ((4,), 64, (4, 8, 16, 32)),
        ((4, 8, 16, 32), 256, (8, 16, 32, 64)),
        ((1, 2, 4, 8), 32, (8, 16, 32)),
        ((9,), 36, (9, 18, 36)),
        ((11,), 11, (11,)),
        ((13,), 39, (13, 26)),
    ],
)
def test_strides(maps, size, expected):
    assert pyramid_strides(maps, size) == expected


@pytest.mark.parametrize(
    "map_strides, size",
    [((16,), 64), ((8,), 64), ((32,), 64), ((4, 8, 16, 32), 128), ((14,), 70)],
)
def test_every_level_has_a_map_of_its_size(map_strides, size):
    """Also of sides that two does not divide; as many cells as there are locations."""
    strides = pyramid_strides(map_strides, size)
    maps = {s: jnp.ones((2, size // s, size // s, 6)) for s in map_strides}
    pyramid = SimplePyramid(strides, 8)
    levels = jax.eval_shape(lambda: pyramid.init_with_output(jax.random.key(0), maps))
    for stride, level in zip(strides, levels[0], strict=True):
        side = -(-size // stride)
        assert level.shape == (2, side, side, 8) and level.dtype == jnp.bfloat16
    detector = Detector(3, strides, channels=8, num_convs=1)
    outputs = jax.eval_shape(lambda: detector.init_with_output(jax.random.key(0), maps))
    n = len(make_locations(size, strides).xy)
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), outputs[0])
    f32 = jnp.float32
    assert shapes == Outputs(((2, n, 3), f32), ((2, n, 4), f32), ((2, n), f32))
    leaves = jax.tree.leaves(outputs[1])
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype(f32)}


def test_a_cell_is_where_its_picture_is():
    """Red if the finer level's cells are not in place, or levels in another order.

    A bright cell of the map is seen by the cells that lie on it and by their neighbours
    (a convolution of 3 x 3), and by no others.
    """
    strides = (8, 16, 32)
    pyramid = SimplePyramid(strides, 8, jnp.float32)
    dark = {16: jnp.ones((1, 8, 8, 16)) * jnp.arange(16.0).reshape(1, 1, 1, 16)}
    params = pyramid.init(jax.random.key(1), dark)
    bright = {16: dark[16].at[0, 4, 2, 1].set(50.0)}
    apply = jax.jit(pyramid.apply)
    both = zip(apply(params, dark), apply(params, bright), strict=True)
    for stride, (without, with_it) in zip(strides, both, strict=True):
        seen = np.argwhere(np.any(np.abs(with_it - without)[0] > 1e-6, axis=-1))
        first, last = np.array([64, 32]) // stride, np.array([79, 47]) // stride
        np.testing.assert_array_equal(seen.min(0), first - 1)
        np.testing.assert_array_equal(seen.max(0), last + 1)


def test_coarse_maps_speak_to_finer_levels():
    maps = {8: jnp.ones((1, 4, 4, 4)), 16: jnp.ones((1, 2, 2, 6))}
    pyramid = SimplePyramid((8, 16), 8, jnp.float32)
    params = pyramid.init(jax.random.key(1), maps)
    other = maps | {16: maps[16].at[..., 0].set(3.0)}
    for one, two in zip(
        pyramid.apply(params, maps), pyramid.apply(params, other), strict=True
    ):
        assert np.abs(one - two).max() > 0.01
    with pytest.raises(ValueError, match="have none of the maps'"):
        SimplePyramid((32, 64), 8).init(jax.random.key(1), maps)
    with pytest.raises(ValueError, match="multiple of 8"):
        Detector(3, (8,), channels=12)


@pytest.mark.parity
def test_focal_loss_is_the_reference(golden):
    data = golden("detection").group("focal/")
    assert_close(focal_loss(data["logits"], data["labels"]), data["loss"], 1e-6, 1e-7)
    grads = jax.grad(lambda x: jnp.sum(focal_loss(x, data["labels"])))(data["logits"])
    assert_close(grads, data["grad"], 1e-6, 1e-7)


def test_focal_loss_of_extreme_logits():
    logits = jnp.array([[-1e4, 1e4, 0.0], [1e4, -1e4, -1e4]])
    labels = jnp.array([0, -1])
    loss, grads = jax.value_and_grad(lambda x: jnp.sum(focal_loss(x, labels)))(logits)
    assert np.isfinite(loss) and np.all(np.isfinite(grads))
    assert_close(loss, 0.25 * 1e4 + 2 * 0.75 * 1e4 + 0.75 * 0.25 * np.log(2))


def loss_loop(logits, distances, central, locations, boxes, labels):
    """The loss, location by location, in float64; boxes lie apart."""
    sums = dict.fromkeys(("class", "box", "centerness", "count", "weight"), 0.0)
    for p in range(len(logits)):
        for i, ((x, y), stride, least, below) in enumerate(
            zip(*locations, strict=True)
        ):
            target, sides = -1, None
            for (x0, y0, x1, y1), label in zip(boxes[p], labels[p], strict=True):
                to = np.array([x - x0, y - y0, x1 - x, y1 - y], np.float64)
                away = max(abs(x - (x0 + x1) / 2), abs(y - (y0 + y1) / 2))
                if label >= 0 and min(to) > 0 and least <= max(to) < below:
                    if away < 1.5 * stride:
                        target, sides = label, to
            for c, logit in enumerate(logits[p, i]):
                q = 1 / (1 + np.exp(-logit if c == target else logit))
                weight = 0.25 if c == target else 0.75
                sums["class"] -= weight * (1 - q) ** 2 * np.log(q)
            if sides is None:
                continue
            ratios = np.minimum(sides[:2], sides[2:]) / np.maximum(sides[:2], sides[2:])
            true = np.sqrt(np.prod(ratios))
            low, high = (f(sides, distances[p, i]) for f in (np.minimum, np.maximum))
            both, around = (np.prod(s[:2] + s[2:]) for s in (low, high))
            areas = (np.prod(s[:2] + s[2:]) for s in (sides, distances[p, i]))
            union = sum(areas) - both
            sums["box"] += true * (1 - both / union + (around - union) / around)
            q = 1 / (1 + np.exp(-central[p, i]))
            sums["centerness"] -= true * np.log(q) + (1 - true) * np.log(1 - q)
            sums["count"] += 1
            sums["weight"] += true
    over = {"class": "count", "box": "weight", "centerness": "count"}
    return {name: sums[name] / sums[by] for name, by in over.items()}


def test_loss_is_that_of_a_loop():
    """Values of every term; gradients of a few outputs, among them those of boxes."""
    outputs = random_outputs()
    batch = BOXES[:2], LABELS[:2]
    run = jax.jit(
        jax.value_and_grad(
            lambda outputs: detection_loss(outputs, LOCATIONS, *batch), has_aux=True
        )
    )
    (loss, terms), grads = run(outputs)
    arrays = [np.asarray(x, np.float64) for x in jax.tree.leaves(outputs)]
    expected = loss_loop(*arrays, LOCATIONS, *batch)
    assert terms.keys() == expected.keys() and loss.dtype == jnp.float32
    for name, value in expected.items():
        assert_close(terms[name], value, 1e-5)
    assert_close(loss, sum(expected.values()), 1e-5)

    at = int(np.argmax(np.abs(grads.distances[0]).sum(axis=1)))
    indices = [np.array([0, at])] * 3

    def moved(*rows):
        changed = [x.copy() for x in arrays]
        for x, (p, i), row in zip(changed, indices, rows, strict=True):
            x[p, i] = row
        return sum(loss_loop(*changed, LOCATIONS, *batch).values())

    rows = [np.atleast_1d(x[0, at]) for x in arrays]
    by_hand = gradients(lambda a, b, c: moved(a, b, c[0]), *rows)
    for grad, slow in zip(jax.tree.leaves(grads), by_hand, strict=True):
        assert_close(np.atleast_1d(grad[0, at]), slow, 1e-3, 1e-6)


@pytest.mark.slow
def test_a_right_answer_costs_nothing_and_nothing_costs_no_box(params):
    """Empty batches, batches of flat boxes: numbers, and gradients that are."""
    flat = np.tile(np.array([[10, 10, 10, 30]], np.float32), (8, 5, 1))
    run = jax.jit(jax.value_and_grad(loss_of, has_aux=True))
    for boxes, labels in (ABSENT, (flat, np.zeros((8, 5), int)), (BOXES, LABELS)):
        (loss, terms), grads = run(params, MAPS, boxes, labels)
        assert np.isfinite(loss)
        assert (terms["box"] > 0) == (terms["centerness"] > 0) == (boxes is BOXES)
        assert all(np.all(np.isfinite(grad)) for grad in jax.tree.leaves(grads))
    targets, distances = jax.vmap(assign, (None, 0, 0))(LOCATIONS, BOXES, LABELS)
    logits = 40.0 * (2 * jax.nn.one_hot(targets, 3) - 1)
    right = Outputs(logits, distances, jnp.zeros(targets.shape))
    _, terms = detection_loss(right, LOCATIONS, BOXES, LABELS)
    assert abs(terms["class"]) < 1e-6 and abs(terms["box"]) < 1e-6


@pytest.mark.slow
def test_a_stack_of_detectors_is_each_of_them():
    """Value and gradient, as each alone gives; red if heads see each other."""
    keys = jax.random.split(jax.random.key(3), 3)
    stack = jax.jit(jax.vmap(DETECTOR.init, (0, None)))(keys, MAPS)
    run = jax.value_and_grad(loss_of, has_aux=True)
    outputs = jax.jit(jax.vmap(DETECTOR.apply, (0, None)))(stack, MAPS)
    looped = jax.jit(lambda stack: apply_stack(DETECTOR, stack, MAPS))(stack)
    jax.tree.map(lambda a, b: assert_close(a, b), looped, outputs)
    both = jax.jit(jax.vmap(run, (0, None, None, None)))
    (losses, terms), grads = both(stack, MAPS, BOXES, LABELS)
    assert losses.shape == (3,) and len(set(losses.tolist())) == 3
    alone = jax.jit(run)
    each = [alone(row(stack, i), MAPS, BOXES, LABELS) for i in range(3)]
    for i, ((loss, its_terms), its_grads) in enumerate(each):
        assert_close(losses[i], loss, 1e-5)
        assert_close(terms["box"][i], its_terms["box"], 1e-5)
        jax.tree.map(lambda a, b: assert_close(a, b, 1e-3), row(grads, i), its_grads)


@pytest.mark.slow
def test_eight_devices_are_one(params):
    """Red if the number of boxes is counted on each device alone: one has none."""
    boxes, labels = np.copy(BOXES), np.copy(LABELS)
    labels[0], labels[1, 1] = -1, -1
    run = jax.jit(jax.value_and_grad(loss_of, has_aux=True))
    (loss, terms), grads = run(params, MAPS, boxes, labels)
    mesh = make_mesh()
    rows = jax.device_put((MAPS, boxes, labels), batch_sharded(mesh))
    everywhere = jax.device_put(params, replicated(mesh))
    (sharded, its_terms), its_grads = run(everywhere, *rows)
    assert mesh.size == 8
    assert_close(sharded, loss, 1e-5)
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-5), its_terms, terms)
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-3), its_grads, grads)


def test_what_is_predicted_before_anything_is_learnt(params):
    """A stride to each side, .01 for each class; nothing grows beyond bounds."""
    head = params["params"]["head"]

    def outputs(kernel, bias):
        still = {
            "kernel": kernel + 0 * head["box"]["kernel"],
            "bias": bias + jnp.zeros(5),
        }
        logits = head["logits"] | {"kernel": 0 * head["logits"]["kernel"]}
        changed = head | {"box": still, "logits": logits}
        return DETECTOR.apply({"params": params["params"] | {"head": changed}}, MAPS)

    run, strides = jax.jit(outputs), LOCATIONS.strides[None, :, None]
    out = run(0.0, 0.0)
    assert_close(out.distances, np.broadcast_to(strides, out.distances.shape), 1e-6)
    assert_close(jax.nn.sigmoid(out.logits), np.full(out.logits.shape, 0.01))
    for bias in (-1e3, 1e3):
        bounded = np.exp(np.sign(bias) * 6) * strides + 0 * out.distances
        assert_close(run(0.0, bias).distances, bounded, 1e-5)


def test_bfloat16_is_near_float32(params):
    """What is predicted is not rounded to bfloat16."""
    half = DETECTOR.clone(dtype=jnp.bfloat16)
    wide, narrow = (jax.jit(d.apply)(params, MAPS) for d in (DETECTOR, half))
    for a, b in zip(jax.tree.leaves(narrow), jax.tree.leaves(wide), strict=True):
        assert a.dtype == b.dtype == jnp.float32
        assert_close(a, b, 0.05)
    distances = np.asarray(narrow.distances)
    assert np.any(distances != distances.astype(jnp.bfloat16).astype(np.float32))


@pytest.mark.slow
def test_it_learns_rectangles():
    """Two heads at once learn the boxes by heart, and give them back."""
    detector = DETECTOR.clone(channels=32, dtype=jnp.bfloat16)
    optimizer = optax.adamw(5e-3)
    keys = jax.random.split(jax.random.key(0), 2)
    stack = jax.jit(jax.vmap(detector.init, (0, None)))(keys, MAPS)

    def losses_of(stack):
        outputs = apply_stack(detector, stack, MAPS)
        loss = functools.partial(
            detection_loss, locations=LOCATIONS, boxes=BOXES, labels=LABELS
        )
        losses = jax.vmap(lambda outputs: loss(outputs)[0])(outputs)
        return jnp.sum(losses), losses

    @jax.jit  # not a scan: CPUs take ages for convolutions in loops
    def step(params, state):
        grads, losses = jax.grad(losses_of, has_aux=True)(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, losses

    state, history = optimizer.init(stack), []
    for _ in range(120):
        stack, state, losses = step(stack, state)
        history.append(np.asarray(losses))
    assert np.all(history[-1] < 0.4 * history[0]), history[::20]

    first = row(stack, 0)
    extent = np.full((8, 2), SIZE)
    found = jax.jit(
        lambda p: predict(detector.apply(p, MAPS), LOCATIONS, extent, Decoding(0.3))
    )(first)
    for p in range(8):
        order = np.argsort(np.asarray(found.boxes[p, :2, 0]))
        np.testing.assert_array_equal(found.labels[p, :2][order], LABELS[p, :2])
        assert np.abs(found.boxes[p, :2][order] - BOXES[p, :2]).max() < 4
