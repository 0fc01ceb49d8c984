"""Encoders of other packages give what these recorded, from every file."""

import dataclasses
import pathlib
import re

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import interop_cases
from helpers.interop_cases import Case, cases, differences, tolerance

from ser_jax.interop.answers import Given
from ser_jax.interop.files.read import read_weights_file
from ser_jax.interop.files.refused import RefusedFileError
from ser_jax.interop.imported import at_image_size, import_weights
from ser_jax.models.pos_embed import resample_positions

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(
        interop_cases.FOLDER is None, reason="SER_INTEROP_DIR has the reference cases"
    ),
]
CASES = cases()
PADDING = [case for case in CASES if "with_padding_1" in case.record]
WRONG_HEADS = [case for case in CASES if "wrong_heads" in case.record]
OTHER_GRID = [case for case in CASES if case.record == "expected_other_grid.npz"]


def each(found: list[Case]):
    return pytest.mark.parametrize("case", found, ids=str)


def agree(imported, case: Case) -> bool:
    return all(worst <= most for worst, most in differences(imported, case).values())


@pytest.mark.slow
@each([case for case in CASES if case not in PADDING])
def test_features(case):
    imported = import_weights(case.path, case.given())
    for name, (worst, most) in differences(imported, case).items():
        assert worst <= most, f"{name} is off by {worst:.2g}"
    if "logits" in (expected := case.expected):
        tensors = read_weights_file(case.path).content
        head = "head" if "head.weight" in tensors else "fc"
        weight, bias = (tensors[f"{head}.{x}"].numpy() for x in ("weight", "bias"))
        cls = interop_cases.outputs(imported, case.images)["cls"]
        off = np.abs(cls @ weight.T + bias - expected["logits"]).max()
        assert off <= tolerance(expected["logits"])


@pytest.mark.slow
@each(PADDING)
def test_padding_is_the_librarys_unless_forced(case):
    imported = import_weights(case.path)
    assert imported.module.stem_padding == case.arch["stem_padding"] == 2
    assert "padding 2" in imported.guessed["stem"]
    forced = imported.module.clone(stem_padding=None)
    assert agree(dataclasses.replace(imported, module=forced), case)


@pytest.mark.slow
@each(WRONG_HEADS)
def test_wrong_heads_are_wrong_and_never_guessed(case):
    right = Given(num_heads=case.arch["num_heads"], role=case.role)
    imported = import_weights(case.path, right)
    assert not agree(imported, case)
    with pytest.raises(RefusedFileError, match="give --num_heads"):
        import_weights(case.path)
    wrong = import_weights(case.path, case.given())
    assert wrong.digest != imported.digest and wrong.sha256 == imported.sha256


@pytest.mark.slow
@each(OTHER_GRID)
def test_only_the_librarys_filter_fits_another_grid(case):
    for resample in ("dino", "hf", "timm"):
        given = dataclasses.replace(case.given(), positions=resample)
        assert agree(import_weights(case.path, given), case) is (
            resample == case.resample
        )


def test_resized_table():
    entries = [
        x for x in interop_cases.manifest() if "pos_embed_resized.npz" in x["expected"]
    ]
    for entry in entries:
        folder = pathlib.Path(interop_cases.FOLDER) / entry["name"]
        given = Given(num_heads=entry["arch"]["num_heads"], positions="timm")
        imported = import_weights(folder / entry["files"][0], given)
        params = imported.variables["params"]
        with np.load(folder / "pos_embed_resized.npz") as data:
            grid, expected = data["grid"], data["pos_embed"][0]
        table = jnp.asarray(params["pos_embed"])
        canvas = resample_positions(
            table, jnp.asarray(grid)[None], int(max(grid)), "timm"
        )[0, : grid[0], : grid[1]]
        resized = np.reshape(canvas, (-1, table.shape[-1]))
        assert np.abs(resized - expected[1:]).max() <= 2.4e-6
        np.testing.assert_array_equal(params["cls_pos_embed"][0], expected[:1])
        if grid[0] == grid[1]:
            side = int(grid[0]) * imported.module.patch_size
            larger = at_image_size(imported, side)
            np.testing.assert_array_equal(
                larger.variables["params"]["pos_embed"], resized
            )
    assert entries


@pytest.mark.parametrize("name", ["hf_vit", "hf_vit_eps", "hf_dinov2"])
def test_without_its_folder_heads_and_epsilon_are_asked(name):
    heads = next(x for x in CASES if x.name == name).arch["num_heads"]
    file = pathlib.Path(interop_cases.FOLDER) / name / "model.safetensors"
    with pytest.raises(RefusedFileError, match="give --num_heads"):
        import_weights(file)
    with pytest.raises(RefusedFileError, match="config.json .* give --norm_eps"):
        import_weights(file, Given(num_heads=heads))
    assert import_weights(file.parent).module.norm_eps in (1e-6, 1e-12)


LAYOUTS = {
    "timm_vit": "timm_or_dino",
    "timm_train": "timm_training",
    "dino_vit_full": "dino_full",
    "dino_resnet_full": "dino_full",
    "dino_resnet50": "torchvision",
    "mocov3_vit": "moco_v3",
    "mocov3_vit_deit": "deit",
    "barlow_resnet50": "barlow_twins",
    "vissl_resnet18": "vissl",
    "mmlab_resnet18": "mmlab",
    "solo_resnet18_cifar": "solo",
    "solo_vit": "solo",
    "lightly_sequential": "lightly",
    "lightly_generator": "lightly",
    "lightly_dino_benchmark": "lightly",
    "ser_moco": "ser_moco",
    "ser_dino": "ser_dino",
    "ser_barlow": "ser_barlow",
    "ser_baseline": "ser_moco",
    "dinov2_vit": "dinov2",
    "dinov2_teacher": "dinov2_training",
    "hf_vit": "hf",
    "hf_dinov2": "hf",
}

DEFAULT_ROLES = {
    "timm_train": "ema",
    "dino_vit_full": "teacher",
    "dino_resnet_full": "teacher",
    "mocov3_vit": "base",
    "lightly_dino_benchmark": "teacher",
    "ser_moco": "student",
    "ser_baseline": "student",
    "ser_dino": "teacher",
    "dinov2_teacher": "teacher",
}


@each([x for x in CASES if x.record == "expected.npz" and x.name in LAYOUTS])
def test_layout_and_role(case):
    imported = import_weights(case.path, case.given())
    if not case.file.endswith("safetensors"):
        files = {"resnet50.pth": "torchvision"}
        assert imported.layout == files.get(case.file, LAYOUTS[case.name])
    others = {x.role for x in CASES if x.name == case.name and x.role}
    if not case.file.endswith("safetensors"):
        assert others <= set(imported.roles)
        role = DEFAULT_ROLES.get(case.name)
        assert role is None or imported.role == role
    arch, module = case.arch, imported.module
    sizes = ("width", "depth", "num_heads", "patch_size", "image_size", "cls_insert")
    kept = sizes if arch["kind"] == "vit" else ("block", "num_filters", "small_images")
    assert {x: getattr(module, x) for x in kept} == {x: arch[x] for x in kept}
    if arch["kind"] == "resnet":
        assert list(module.stage_sizes) == arch["stage_sizes"]
    assert "fixed sine" not in arch.get("pos", "") or imported.is_sincos
    text = imported.describe()
    assert imported.sha256 in text and imported.layout in text


def refused() -> list[str]:
    return [
        f"{entry['name']}/{file}"
        for entry in interop_cases.manifest()
        if entry["name"] == "refuse" or entry.get("refuse")
        for file in entry["files"]
    ]


WHY = {
    "registers": "reg_token: register tokens",
    "dinov2_registers": "register_tokens: register tokens",
    "distilled": "dist",
    "pre_norm": "norm_pre",
    "qk_norm": "k_norm",
    "resnet_d": r"conv1\.0\.weight: a stem of several",
    "resnet_se": "squeeze-and-excitation",
    "swiglu": "twice what .* takes: a SwiGLU",
    "resnext": "input channel.* in place of .*ResNeXt",
    "wide_resnet": "output channel.* in place of .*Wide ResNet",
    "missing_keys": r"blocks\.1\.mlp\.fc1\.weight is missing",
    "nan": r"norm\.weight holds 1 values that are not finite",
    "model": "fc_norm.*pooling",
}


@pytest.mark.parametrize("path", refused())
def test_refused_in_one_line_by_name(path):
    file = pathlib.Path(interop_cases.FOLDER) / path
    with pytest.raises(RefusedFileError) as error:
        import_weights(file)
    message = str(error.value)
    assert message.startswith(f"{file.name}: ") and "\n" not in message
    assert re.search(WHY.get(file.stem, ""), message), message
