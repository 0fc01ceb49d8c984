"""Residual networks: what is refused, whose stem it is, which backbone is meant."""

import dataclasses

import numpy as np
import pytest

from ser_jax.interop.answers import IMAGENET, Given
from ser_jax.interop.choosing import choose
from ser_jax.interop.families.resnet import read_resnet
from ser_jax.interop.files.read import read_weights_file
from ser_jax.interop.files.refused import RefusedFileError, UnreadableError
from ser_jax.interop.files.safetensors import write_safetensors
from ser_jax.interop.finding import find_places
from ser_jax.interop.imported import import_weights

pytestmark = pytest.mark.interop
LIGHTNING = {"pytorch-lightning_version": "2"}


def resnet(side=7, filters=2):
    """A ResNet of two basic blocks in two stages, under torchvision's names."""
    draw = np.random.default_rng(0)
    arrays = {}

    def layer(conv, bn, *shape):
        arrays[f"{conv}.weight"] = draw.normal(size=shape).astype(np.float32)
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            values = draw.uniform(0.5, 1, shape[0]).astype(np.float32)
            arrays[f"{bn}.{leaf}"] = values
        arrays[f"{bn}.num_batches_tracked"] = np.array(3)

    layer("conv1", "bn1", filters, 3, side, side)
    for stage, (d_in, d_out) in enumerate([(2, 2), (2, 4)], start=1):
        begin = f"layer{stage}.0"
        layer(f"{begin}.conv1", f"{begin}.bn1", d_out, d_in, 3, 3)
        layer(f"{begin}.conv2", f"{begin}.bn2", d_out, d_out, 3, 3)
    layer("layer2.0.downsample.0", "layer2.0.downsample.1", 4, 2, 1, 1)
    return arrays


@pytest.fixture
def content(tmp_path):
    """Tensors of arrays in a file, by name."""

    def content(arrays):
        file = tmp_path / "weights.safetensors"
        write_safetensors(file, arrays, {})
        return read_weights_file(file).content

    return content


def prefixed(arrays, *prefixes):
    return {f"{p}{name}": array for p in prefixes for name, array in arrays.items()}


def test_sizes_and_guesses(tmp_path):
    file = tmp_path / "weights.safetensors"
    for side, size in ((7, 224), (3, 32)):
        write_safetensors(file, resnet(side), {})
        found = import_weights(file)
        module = found.module
        assert (module.stage_sizes, module.block, module.num_filters) == (
            (1, 1),
            "basic",
            2,
        )
        assert (module.image_size, module.small_images) == (size, side == 3)
        assert found.guessed["image_size"].startswith(f"{size}, ")
        assert ("stem" in found.guessed) is (side == 3)
        assert (found.layout, found.mean) == ("torchvision", IMAGENET[0])
        assert "7 of num_batches_tracked" not in found.describe()
        assert "6 of num_batches_tracked" in found.describe()
    assert import_weights(file, Given(image_size=64)).module.image_size == 64
    for name, value in (("num_heads", 3), ("positions", "timm"), ("image_size", 0)):
        with pytest.raises(RefusedFileError, match=name):
            import_weights(file, Given(**{name: value}))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"bn1.running_var": np.float32([1, -1])}, "bn1.running_var has a variance"),
        ({"bn1.running_mean": None}, "bn1.running_mean is missing"),
        ({"layer2.0.downsample.0.weight": None}, "downsample.0.weight is missing"),
        ({"layer1.0.downsample.0.weight": np.ones((2, 2, 1, 1), "f4")}, "not known"),
        (
            {"layer2.0.conv1.weight": np.ones((4, 1, 3, 3), "f4")},
            "1 input channel.*ResNeXt",
        ),
        (
            dict.fromkeys(
                ("layer1.0.conv1.weight", "layer1.0.conv2.weight"),
                np.ones((4, 2, 3, 3), "f4"),
            ),
            "2 input channel.* of 4: ResNeXt",
        ),
        ({"layer2.0.conv1.weight": np.ones((8, 2, 3, 3), "f4")}, "8 output .*Wide"),
        ({"conv1.weight": np.ones((2, 3, 5, 5), "f4")}, "another stem"),
        ({"conv1.bias": np.ones(2, "f4")}, "'conv1.bias'"),
        ({"layer4.0.conv1.weight": np.ones((2, 2, 3, 3), "f4")}, "some are missing"),
        ({"layer1.0.se.fc1.weight": np.ones(2, "f4")}, "squeeze-and-excitation"),
        ({"layer2.0.downsample.2.weight": np.ones(2, "f4")}, "pools first"),
    ],
)
def test_refused(content, change, message):
    arrays = {k: v for k, v in (resnet() | change).items() if v is not None}
    (place,) = find_places(content(arrays), keeps_paths=False)
    with pytest.raises(UnreadableError, match=message):
        read_resnet(place)


def test_other_spellings_are_the_same(content):
    arrays = resnet()

    def sequential(first_stage):
        stages = {f"layer{i}": f"{first_stage + i - 1}" for i in (1, 2)}
        names = {"conv1": "0", "bn1": "1"} | stages

        def spell(name):
            first, _, rest = name.partition(".")
            return f"{names[first]}.{rest}"

        return spell

    expected = read_resnet(find_places(content(arrays), keeps_paths=False)[0])
    for spell in (
        *map(sequential, (3, 4)),  # without a pool before the stages, and with one
        lambda name: name.replace("downsample", "shortcut"),
    ):
        spelled = {spell(name): array for name, array in arrays.items()}
        (place,) = find_places(content(spelled), keeps_paths=False)
        found = read_resnet(place)
        kernel = found.variables["params"]["stage2_block1"]["shortcut"]["conv"][
            "kernel"
        ]
        want = expected.variables["params"]["stage2_block1"]["shortcut"]["conv"][
            "kernel"
        ]
        np.testing.assert_array_equal(kernel, want)
        assert found.stage_sizes == expected.stage_sizes


@pytest.mark.parametrize(
    "prefixes, beside, layout, role, others",
    [
        (("backbone.", "student_backbone."), (), "lightly", "teacher", ("student",)),
        (("backbone.", "teacher_backbone."), (), "lightly", "online", ("teacher",)),
        (("backbone.", "query_backbone."), (), "lightly", "teacher", ("student",)),
        (("backbone.", "key_backbone."), (), "lightly", "online", ("momentum",)),
        (("backbone.", "backbone_momentum."), (), "lightly", "online", ("momentum",)),
        (("backbone.vit.",), ("projection_head.w",), "lightly", "online", ()),
        (("backbone.",), ("projection_head.w",), "lightly", "online", ()),
        (("backbone.", "momentum_backbone."), (), "solo", "online", ("momentum",)),
        (("backbone.",), ("classifier.w",), "solo", "online", ()),
        (("encoder.", "momentum_encoder."), (), "solo", "online", ("momentum",)),
        (("module.encoder_q.", "module.encoder_k."), (), "moco", "base", ("momentum",)),
    ],
)
def test_which_backbone_is_meant(content, prefixes, beside, layout, role, others):
    arrays = prefixed(resnet(), *prefixes) | dict.fromkeys(beside, np.ones(1, "f4"))
    file = {"state_dict": content(arrays)} | LIGHTNING
    chosen = choose(find_places(file, keeps_paths=True), Given())
    assert (chosen.layout.name, chosen.role, chosen.others) == (layout, role, others)


def test_cifar_stems_padding_and_normalization(content):
    for beside, padding in (("classifier.w", 2), ("projection_head.w", None)):
        arrays = prefixed(resnet(3), "backbone.") | {beside: np.ones(1, "f4")}
        file = {"state_dict": content(arrays)} | LIGHTNING
        chosen = choose(find_places(file, keeps_paths=True), Given())
        assert chosen.layout.small_padding == padding
        found = read_resnet(chosen.place)
        assert chosen.layout.normalize(chosen.place, found) is None


def test_mmlab_keeps_its_normalization(content):
    arrays = prefixed(resnet(), "backbone.")
    about = {
        f"data_preprocessor.{name}": np.full((3, 1, 1), value, "f4")
        for name, value in (("mean", 127.5), ("std", 51))
    }
    for extra, mean in ((about, (0.5,) * 3), ({}, IMAGENET[0])):
        file = {"state_dict": content(arrays | extra), "meta": {}}
        chosen = choose(find_places(file, keeps_paths=True), Given())
        answer = chosen.layout.normalize(chosen.place, read_resnet(chosen.place))
        assert (chosen.layout.name, answer.value[0]) == ("mmlab", mean)


def test_an_optimizers_tensors_and_circles_are_not_walked(content):
    tensors = content(resnet())
    file: dict = {"model": tensors, "optimizer": {"student": dict(tensors)}}
    file["self"] = file
    (place,) = find_places(file, keeps_paths=True)
    assert place.path == ("model",)
    assert dataclasses.replace(place, path=()).where == "*"
