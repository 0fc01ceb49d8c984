"""What a file does not say: known, guessed aloud, or asked for; what is refused."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers import ROOT
from helpers.made_up_weights import hugging_face, late, prefixed, vit

from ser_jax.interop import imported as imported_module
from ser_jax.interop.answers import IMAGENET, Given
from ser_jax.interop.files.read import read_weights_file
from ser_jax.interop.files.refused import RefusedFileError
from ser_jax.interop.files.safetensors import write_safetensors
from ser_jax.interop.folder import Source
from ser_jax.interop.imported import at_image_size, import_weights
from ser_jax.interop.layouts import LAYOUTS
from ser_jax.storage.files import write_json

pytestmark = pytest.mark.interop
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Reads arrays as if they lay in dictionaries, beside settings."""

    def read(arrays, path=(), given=None, **beside):
        file = tmp_path / "weights.safetensors"
        write_safetensors(file, arrays, {})
        if not (path or beside):
            return import_weights(file, given)
        found = read_weights_file(file)
        configs = {x: beside.pop(x, None) for x in ("config", "preprocessor")}
        content = found.content
        for name in reversed(path):
            content = {name: content}
        kind = "safetensors" if configs["config"] else "zip"
        found = dataclasses.replace(found, content=content | beside, format=kind)
        source = Source(found, **configs)
        with monkeypatch.context() as patch:
            patch.setattr(imported_module, "open_source", lambda _: source)
            return import_weights(file, given)

    return read


@pytest.mark.parametrize(
    "width, sincos, heads", [(192, False, 3), (384, False, 6), (384, True, 12)]
)
def test_heads_are_guessed_aloud(read, width, sincos, heads):
    found = read(vit(width, depth=1, sincos=sincos, hidden=8))
    assert found.module.num_heads == heads
    assert found.guessed["num_heads"].startswith(f"{heads}, ")
    assert found.is_sincos is sincos
    assert f"guessed     num_heads: {heads}, " in found.describe()


def test_positions_of_moco_v3_are_known_in_half_precision(read):
    half = {k: x.astype(np.float16) for k, x in vit(384, 1, sincos=True).items()}
    found = read(half)
    assert found.is_sincos and found.module.num_heads == 12


def test_heads_are_asked(read):
    odd, even = vit(width=8), vit(384, depth=1, hidden=8)
    with pytest.raises(RefusedFileError, match="heads at width 8.*give --num_heads"):
        read(odd)
    solo = {"pytorch-lightning_version": "2.0"}
    backbone = prefixed(even, "backbone.")
    with pytest.raises(RefusedFileError, match="solo-learn.*give --num_heads"):
        read(backbone, ("state_dict",), **solo)
    given = Given(num_heads=12)
    found = read(backbone, ("state_dict",), given, **solo)
    assert found.given["num_heads"] == "12, as asked" and found.mean is None
    assert "give --normalize" in found.asked["normalize"]
    with pytest.raises(RefusedFileError, match="num_heads 3 does not divide width 8"):
        read(odd, given=Given(num_heads=3))


def test_moco_v3_has_twelve_heads(read):
    moco = prefixed(vit(384, depth=1, hidden=8), "module.base_encoder.")
    found = read(moco, ("state_dict",))
    assert (found.layout, found.role, found.module.num_heads) == ("moco_v3", "base", 12)


def test_the_class_tokens_layer_is_read_or_asked(read):
    given = Given(num_heads=2)
    with pytest.raises(RefusedFileError, match="give --cls_insert"):
        read(late(), given=given)
    said = dataclasses.replace(given, cls_insert=1)
    found = read(late(), given=said)
    assert found.module.cls_insert == 1 and found.module.grid_layers == (1,)
    assert "cls_pos_embed" not in found.variables["params"]
    told = read(late(), ("student",), given, args={"equiv_layer": 1})
    assert told.digest == found.digest
    for layer in (0, 2, 5):
        with pytest.raises(RefusedFileError, match=f"cls_insert {layer}"):
            read(late(), given=dataclasses.replace(given, cls_insert=layer))
    with pytest.raises(RefusedFileError, match="cls_insert 1: the position table"):
        read(vit(), given=said)
    early = read(vit(entry=False), given=given)
    assert early.module.cls_insert == 0 and "norm_equiv" in early.guessed["cls_insert"]
    assert not np.any(early.variables["params"]["cls_pos_embed"])


def test_what_decides_the_features_is_in_the_digest(read):
    base = Given(num_heads=2)
    variants = [
        base,
        Given(num_heads=4),
        dataclasses.replace(base, norm_eps=1e-5),
        dataclasses.replace(base, positions="timm"),
        dataclasses.replace(base, normalize=HALF),
        dataclasses.replace(base, positions="dino", image_size=12),
    ]
    found = [read(vit(), given=given) for given in variants]
    assert len({x.digest for x in found}) == len(variants)
    assert len({x.sha256 for x in found}) == 1
    assert all(0 <= x.digest < 2**63 for x in found)
    assert found[4].mean == HALF[0] and "as asked" in found[4].given["normalize"]


def test_another_image_size_needs_the_filter(read):
    given = Given(num_heads=2, image_size=12)
    with pytest.raises(RefusedFileError, match="8 px, and 12 px .* give --positions"):
        read(vit(), given=given)
    found = read(vit(), given=dataclasses.replace(given, positions="timm"))
    assert found.module.image_size == 12
    assert found.variables["params"]["pos_embed"].shape == (9, 8)
    with pytest.raises(RefusedFileError, match="14 px is not a multiple of 4"):
        read(vit(), given=dataclasses.replace(given, image_size=14))
    same = read(vit(), given=dataclasses.replace(given, image_size=8))
    again = at_image_size(same, 8)
    assert again.digest == same.digest, "its own table, bit for bit"


def test_layer_scale_scales_kernels_and_biases(read):
    arrays, gamma = vit(depth=1), np.linspace(0.5, 2, 8, dtype=np.float32)
    scaled = arrays | {"blocks.0.ls1.gamma": gamma, "blocks.0.ls2.gamma": gamma[::-1]}
    plain, found = (
        read(x, given=Given(num_heads=2)).variables["params"]["blocks"]
        for x in (arrays, scaled)
    )
    for part, layer, by in (("attn", "proj", gamma), ("mlp", "fc2", gamma[::-1])):
        for leaf, array in plain[part][layer].items():
            expected = array * by.reshape((1,) * (array.ndim - 1) + (-1,))
            np.testing.assert_array_equal(found[part][layer][leaf], expected)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"blocks.1.attn.proj.bias": None}, r"blocks\.1\.attn\.proj\.bias is missing"),
        ({"norm.weight": np.ones(7, np.float32)}, r"\[7\] where \[8\] was expected"),
        ({"norm.weight": np.ones(8, np.int32)}, "int32, where a float"),
        ({"norm.bias": np.full(8, np.inf, np.float32)}, "holds 8 values .* not finite"),
        ({"norm.bias": np.full(8, 1e300)}, "holds 8 values .* not finite"),
        ({"cls_token": None}, "without a class token"),
        ({"pos_embed": np.ones((1, 7, 8), np.float32)}, "square number"),
        (
            {"blocks.0.ls1.gamma": np.ones(8, np.float32)},
            r"blocks\.1\.ls1\.gamma is miss",
        ),
        ({"blocks.3.norm1.weight": np.ones(8, np.float32)}, "block 2 .* is missing"),
        ({"blocks.0.attn.extra": np.ones(8, np.float32)}, "not known"),
        ({"patch_embed.proj.weight": np.ones((8, 1, 4, 4), np.float32)}, "RGB"),
        ({"blocks.0.mlp.fc1.weight": np.ones((), np.float32)}, r"is \[\] where"),
        ({"pos_embed_2": np.ones(8, np.float32)}, "'pos_embed_2'"),
    ],
)
def test_arrays_that_are_refused(read, change, message):
    arrays = {k: v for k, v in (vit() | change).items() if v is not None}
    with pytest.raises(RefusedFileError, match=message):
        read(arrays, given=Given(num_heads=2))


def test_absent_biases_are_zero(read):
    arrays = {k: v for k, v in vit().items() if "qkv.bias" not in k}
    found = read(arrays, given=Given(num_heads=2))
    assert not np.any(found.variables["params"]["blocks"]["attn"]["qkv"]["bias"])


def test_roles_and_layouts(read):
    def two(given):
        first, second = vit(), vit(width=12)
        return read(
            prefixed(first, "backbone.") | prefixed(second, "momentum_backbone."),
            ("state_dict",),
            given,
            **{"pytorch-lightning_version": "1"},
        )

    given = Given(num_heads=2)
    found = two(given)
    assert (found.role, found.roles, found.module.width) == ("online", ("momentum",), 8)
    assert "not momentum" in found.guessed["role"]
    for role in ("momentum", "target"):
        found = two(dataclasses.replace(given, role=role))
        assert (found.role, found.module.width) == ("momentum", 12)
    with pytest.raises(RefusedFileError, match="no encoder that is 'ema'"):
        two(dataclasses.replace(given, role="ema"))
    for name, resample, mean in (("timm", "timm", None), ("dino", "dino", IMAGENET[0])):
        found = read(vit(), given=dataclasses.replace(given, layout=name))
        assert (found.layout, found.module.resample, found.mean) == (
            name,
            resample,
            mean,
        )
    with pytest.raises(RefusedFileError, match="timm_or_dino or timm or dino"):
        read(vit(), given=dataclasses.replace(given, layout="vissl"))
    with pytest.raises(RefusedFileError, match="layout is one of vissl, "):
        read(vit(), given=dataclasses.replace(given, layout="keras"))
    with pytest.raises(RefusedFileError, match="none of them the key that proves"):
        read({"weight": np.ones(3, np.float32)})


TIMM = {
    "architecture": "vit_small_patch16_224",
    "model_args": {
        **{"num_heads": 4, "embed_dim": 8, "depth": 2},
        **{"mlp_ratio": 2.05, "img_size": [8, 8]},
    },
    "pretrained_cfg": {"mean": HALF[0], "std": HALF[1], "crop_pct": 0.9},
}


def test_timm_folder(read, tmp_path):
    write_json(tmp_path / "config.json", TIMM)
    write_safetensors(tmp_path / "model.safetensors", vit(), {})
    found = import_weights(tmp_path)
    module = found.module
    assert (found.layout, module.num_heads, module.resample) == (
        "timm_folder",
        4,
        "timm",
    )
    assert (found.mean, found.std) == HALF
    assert (
        found.given["num_heads"] == "4, config.json" and "0.9" in found.guessed["crop"]
    )
    for change, message in (
        ({"model_args": {"embed_dim": 16}}, "says embed_dim 16, its arrays 8"),
        ({"model_args": {"mlp_ratio": 4}}, "says mlp_ratio 4, its arrays 2.0"),
        ({"model_args": {"img_size": [8, 4]}}, "says img_size"),
        ({"model_args": {"act_layer": "relu"}}, "model_args.act_layer 'relu'"),
        ({"global_pool": "avg"}, "pooled"),
    ):
        with pytest.raises(RefusedFileError, match=message):
            read(vit(), config=TIMM | change)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(RefusedFileError, match="config.json: is no JSON"):
        import_weights(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(RefusedFileError, match="has no model.safetensors"):
        import_weights(tmp_path)


HF = {
    "model_type": "vit",
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 4,
    "image_size": 8,
    "intermediate_size": 16,
}


def test_hugging_face(read):
    about = {"image_mean": HALF[0], "image_std": HALF[1]}
    found = read(hugging_face(), config=HF, preprocessor=about)
    assert (found.layout, found.module.norm_eps, found.mean) == ("hf", 1e-12, HALF[0])
    assert found.module.resample == "hf"
    about["do_normalize"] = False
    found = read(hugging_face(), config=HF, preprocessor=about)
    assert (found.mean, found.std) == ((0, 0, 0), (1, 1, 1))
    dinov2 = HF | {"model_type": "dinov2", "mlp_ratio": 2}
    assert read(hugging_face(), config=dinov2).module.norm_eps == 1e-6
    same = read(vit(), given=Given(num_heads=2))
    jax.tree.map(
        np.testing.assert_array_equal,
        found.variables["params"],
        same.variables["params"],
    )
    assert (
        read(hugging_face(), config=HF | {"layer_norm_eps": 1e-5}).module.norm_eps
        == 1e-5
    )
    for change, message in (
        ({"hidden_act": "relu"}, "hidden_act 'relu'"),
        ({"hidden_size": 16}, "says hidden_size 16, its arrays 8"),
        ({"layer_norm_eps": "x"}, "layer_norm_eps"),
    ):
        with pytest.raises(RefusedFileError, match=message):
            read(hugging_face(), config=HF | change)
    arrays = hugging_face()
    del arrays["encoder.layer.1.intermediate.dense.weight"]
    with pytest.raises(
        RefusedFileError, match=r"1\.intermediate\.dense\.weight is miss"
    ):
        read(arrays, config=HF)


def test_every_layout_is_in_the_docs():
    text = (ROOT / "docs" / "weights.md").read_text()
    for layout in LAYOUTS:
        assert f"| `{layout.name}` | {layout.about.rstrip(',')} |" in text
