import dataclasses
import json

import jax
import numpy as np
import pytest
from helpers.support import assert_close

from ser_jax.evaluate.classify.heads import Head, logit_accuracy, stack_accuracy
from ser_jax.evaluate.classify.held_out import split_held_out
from ser_jax.evaluate.classify.linear_heads import linear_probe, train_heads
from ser_jax.evaluate.classify.protocols import (
    LINEAR_PROTOCOLS,
    LinearProtocol,
    linear_protocol,
)

NUM_CLASSES = 6
PROTOCOL = LinearProtocol(
    features=("signal",), base_learning_rates=(1.0,), batch_size=32, num_epochs=4
)


def clusters(seed, num=256, spread=0.05):
    """Well separated classes in "signal", nothing about them in "noise"."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, NUM_CLASSES, num)
    signal = np.eye(8)[labels] * 2 + spread * rng.normal(size=(num, 8))
    noise = rng.normal(size=(num, 5))
    features = {"signal": signal, "noise": noise}
    return {name: x.astype(np.float32) for name, x in features.items()}, labels


def probe(protocol, train, evaluated, seed=0):
    return linear_probe(
        *train, *evaluated, protocol=protocol, seed=seed, num_classes=NUM_CLASSES
    )


def fit(protocol, data, rows):
    return train_heads(*data, rows, protocol=protocol, seed=3, num_classes=NUM_CLASSES)


GRID = dataclasses.replace(
    PROTOCOL,
    features=("noise", "signal"),
    base_learning_rates=(0.1, 3.0, 1e6),
    weight_decays=(0.0, 0.01),
)


@pytest.mark.slow
def test_stack_equals_each_head_alone():
    """The head at 1e6 with weight decay diverges, and only it.

    Red if learning rates and weight decays are paired in another order, if the update
    is normalised over the stack, or if a feature draws batches of its own.
    """
    data, rows = clusters(0), np.arange(200)
    stacks = fit(GRID, data, rows)
    for name, stack in stacks.items():
        for index, (rate, decay) in enumerate(GRID.settings()):
            alone = dataclasses.replace(
                GRID,
                features=(name,),
                base_learning_rates=(rate,),
                weight_decays=(decay,),
            )
            features = {name: data[0][name]}
            expected = fit(alone, (features, data[1]), rows)[name]
            actual = jax.tree.map(lambda x, i=index: x[i : i + 1], stack)
            if rate * decay > 100:
                assert not np.isfinite(actual.kernel).any()
            else:
                jax.tree.map(assert_close, actual, expected)


def test_step_against_loops():
    """Red on another momentum, Nesterov, decay after momentum, or a schedule."""
    (features, labels), rows = clusters(1), np.arange(96)
    protocol = dataclasses.replace(PROTOCOL, weight_decays=(0.1,), num_epochs=2)
    started = fit(
        dataclasses.replace(protocol, base_learning_rates=(1e-30,)),
        ({"signal": features["signal"]}, labels),
        rows,
    )["signal"]
    head = [np.float64(leaf[0]) for leaf in started]
    assert abs(head[0].std() - 0.01) < 0.003 and abs(head[1]).max() < 1e-25
    velocity, order, step = [0.0, 0.0], np.random.default_rng(3), 0
    for _ in range(2):
        shuffled = order.permutation(rows)
        for batch in shuffled.reshape(3, 32):
            x = features["signal"][batch]
            odds = np.exp(x @ head[0] + head[1])
            error = odds / odds.sum(axis=1, keepdims=True)
            error = (error - np.eye(NUM_CLASSES)[labels[batch]]) / 32
            rate = 1.0 * 32 / 256 * (1 + np.cos(np.pi * step / 6)) / 2
            for i, gradient in enumerate((x.T @ error, error.sum(axis=0))):
                velocity[i] = 0.9 * velocity[i] + gradient + 0.1 * head[i]
                head[i] = head[i] - rate * velocity[i]
            step += 1
    trained = fit(protocol, ({"signal": features["signal"]}, labels), rows)["signal"]
    assert_close(trained.kernel[0], head[0])
    assert_close(trained.bias[0], head[1])


@pytest.mark.slow
def test_chooses_feature_and_learning_rate():
    """Red if the winner's index is off, or a diverged head counts as right."""
    protocol = dataclasses.replace(
        GRID, base_learning_rates=(1e-9, 1.0, 1e6), weight_decays=(0.01,)
    )
    result = probe(protocol, clusters(2), clusters(3))
    assert (result.best.feature, result.best.base_learning_rate) == ("signal", 1.0)
    assert result.top1 == result.top5 == result.best.held_out_accuracy == 1.0
    by_setting = {(h.feature, h.base_learning_rate): h for h in result.grid}
    assert len(result.grid) == len(by_setting) == 6
    assert by_setting["signal", 1e6].held_out_accuracy == 0.0
    assert by_setting["noise", 1.0].held_out_accuracy < 0.6
    plain = json.loads(json.dumps(dataclasses.asdict(result.best)))
    assert plain["feature"] == "signal"
    assert result.head.kernel.shape == (8, NUM_CLASSES)


def test_held_out_examples_choose_and_do_not_train():
    """The held-out labels are wrong and in the majority.

    Red if heads are trained on all of train, or chosen on anything else.
    """
    (features, labels), evaluated = clusters(4), clusters(5)
    fitted, held_out = split_held_out(
        256, held_out_frac=0.625, num_classes=NUM_CLASSES, seed=0
    )
    assert len(held_out) == 160
    assert sorted([*fitted, *held_out]) == list(range(256))
    labels[held_out] = (labels[held_out] + 1) % NUM_CLASSES
    protocol = dataclasses.replace(PROTOCOL, held_out_frac=0.625)
    result = probe(protocol, (features, labels), evaluated)
    assert (result.best.held_out_accuracy, result.top1) == (0.0, 1.0)


def test_accuracy_against_sort():
    """Red if a chunk is lost, a tie or NaN wins, or top-5 is a top-4."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(2, 3, NUM_CLASSES)).astype(np.float32)
    bias = rng.normal(size=(2, NUM_CLASSES)).astype(np.float32)
    features = rng.normal(size=(2500, 3)).astype(np.float32)
    labels = rng.integers(0, NUM_CLASSES, 2500)
    logits = np.einsum("nd,hdk->hnk", features, kernel) + bias[:, None]
    order = np.argsort(-logits, axis=-1)
    top1, top5 = stack_accuracy(Head(kernel, bias), features, labels)
    for k, actual in ((1, top1), (5, top5)):
        expected = (order[..., :k] == labels[:, None]).any(axis=-1).mean(axis=1)
        np.testing.assert_allclose(actual, expected, atol=1e-3)
    zero, _ = stack_accuracy(Head(kernel * 0, bias * 0), features, labels)
    assert not zero.any()
    # Of three classes the label is always among the first five, but not after NaN.
    three = Head(kernel[..., :3], bias[:, :3])
    assert stack_accuracy(three, features, labels % 3)[1].tolist() == [1.0, 1.0]
    diverged = Head(three.kernel * np.nan, three.bias)
    assert not np.any(stack_accuracy(diverged, features, labels % 3))


def test_protocols_fit_the_encoder():
    """As the authors say; red if a ResNet is trained at a ViT's learning rate."""
    small, large = ({"cls1": w, "cls4": 4 * w, "cls1_avg": 2 * w} for w in (384, 768))
    resnet = {"cls1": 2048}
    rates = [
        linear_protocol("moco_v3", f, is_vit=f is small).base_learning_rates
        for f in (small, resnet)
    ]
    assert rates == [(3.0,), (0.1,)]
    features = [
        linear_protocol("dino", f, is_vit=f is not resnet).features
        for f in (small, large, resnet)
    ]
    assert features == [("cls4",), ("cls1_avg",), ("cls1",)]
    grid = linear_protocol("grid", {"grid3": 99}, is_vit=True)
    assert grid.features == ("grid3",)


def test_protocols_scale():
    """Red if a preset's numbers or the rule change."""
    rates = {
        name: [protocol.learning_rate(base) for base in protocol.base_learning_rates]
        for name, protocol in LINEAR_PROTOCOLS.items()
    }
    assert len(rates.pop("grid")) * len(LINEAR_PROTOCOLS["grid"].features) == 30
    assert rates == {"moco_v3": [12.0], "dino": [0.004], "ser": [8.0, 24.0, 80.0]}
    assert [p.num_epochs for p in LINEAR_PROTOCOLS.values()] == [10, 90, 100, 50]
    assert [p.features for p in LINEAR_PROTOCOLS.values()] == [
        ("cls1", "cls4", "cls1_avg"),
        ("cls1",),
        ("cls4",),
        ("cls4",),
    ]


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda x, y: (x, y + 1), r"0\.\.num_classes - 1.*renumber"),
        (lambda x, y: (x, y - 1), r"got -1\.\.4"),
        (lambda x, y: (x, np.eye(NUM_CLASSES)[y]), "argmax"),
        (lambda x, y: (x, y[:-1]), "n = 255"),
        (lambda x, y: ({"signal": x["signal"][:, None]}, y), "Pool"),
        (lambda x, y: ({"signal": x["noise"]}, y), "same names and widths"),
        (lambda x, y: ({"noise": x["noise"]}, y), r"\['signal'\].*\['noise'\]"),
        (
            lambda x, y: ({"signal": x["signal"][:1]}, y[:1]),
            "1 training example cannot",
        ),
        (lambda x, y: ({"signal": x["signal"][:0]}, y[:0]), "train is empty"),
    ],
)
def test_errors_teach(change, message):
    with pytest.raises(ValueError, match=message):
        probe(PROTOCOL, change(*clusters(0)), clusters(1))


@pytest.mark.parametrize(
    "num, num_classes, num_held_out",
    [
        (256, 6, 13),  # 5 %
        (50, 10, 10),  # one a class
        (1020, 102, 100),
        (102, 102, 20),  # one picture of each class: a fifth
        (7, 1000, 1),
        (2, 2, 1),
        (60, 1, 3),  # one class
    ],
)
def test_small_sets_hold_out_what_they_can(num, num_classes, num_held_out):
    sizes = {"held_out_frac": 0.05, "num_classes": num_classes}
    fitted, held_out = split_held_out(num, **sizes, seed=0)
    assert len(held_out) == num_held_out
    assert sorted([*fitted, *held_out]) == list(range(num))


def test_settings_that_cannot_work_are_refused():
    large = dataclasses.replace(PROTOCOL, batch_size=1024)
    with pytest.raises(ValueError, match="243 training examples .* 1024"):
        probe(large, clusters(0), clusters(1))
    wild = dataclasses.replace(
        PROTOCOL, base_learning_rates=(1e6,), weight_decays=(1.0,)
    )
    with pytest.raises(FloatingPointError, match="every linear head diverged"):
        probe(wild, clusters(0), clusters(1))
    with pytest.raises(ValueError, match="num_epochs must be at least 1"):
        dataclasses.replace(PROTOCOL, num_epochs=0)
    with pytest.raises(ValueError, match="base_learning_rates must hold"):
        dataclasses.replace(PROTOCOL, base_learning_rates=())


def test_ties_and_nan_count_against_the_label():
    logits = np.zeros((4, 6), np.float32)
    logits[0, 2] = 1  # right
    logits[1, 3] = 1  # second best, in a tie of five
    logits[2] = np.nan
    labels = np.full(4, 2)
    assert logit_accuracy(logits, labels) == (0.25, 0.25)
    logits[1, 2] = 0.5
    assert logit_accuracy(logits, labels) == (0.25, 0.5)
