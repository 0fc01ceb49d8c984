"""Encoders as ONNX, as JAX programs, as our own file; what is refused."""

import functools
import json

import jax
import numpy as np
import pytest
from helpers import interop_torch
from helpers.outgoing import (
    ABOUT,
    ENCODERS,
    MEAN,
    STD,
    images,
    read_safetensors,
    run_card,
    variables,
    vit,
)

from ser_jax.interop.export import write
from ser_jax.interop.export.outgoing import named
from ser_jax.interop.export.write import export
from ser_jax.interop.imported import import_weights
from ser_jax.models.resnet import ResNet
from ser_jax.storage.tables import flatten

TOLERANCE = 1e-5
RESNET = ResNet((1, 1), "basic", 8, num_filters=2)


def export_to(folder, module, to, about=ABOUT, weights=None):
    weights = variables(module) if weights is None else weights
    return export(module, weights, MEAN, STD, folder, to=to, about=about)


@functools.cache
def expected(module, batch):
    """What the encoder gives, compiled once for each."""
    out = jax.jit(lambda x: named(module.apply(variables(module), x)))
    return jax.device_get(out(images(module, batch)))


def assert_equal_features(actual, wanted):
    assert actual.keys() == wanted.keys()
    for name, array in wanted.items():
        assert actual[name].shape == array.shape
        assert np.abs(actual[name] - array).max() <= TOLERANCE, name


@pytest.mark.parametrize("name", ENCODERS)
def test_onnx_gives_the_encoders_features(name, tmp_path):
    import onnx
    import onnxruntime

    module, folder = ENCODERS[name], tmp_path / name
    export_to(folder, module, "onnx")
    model = onnx.load(folder / "model.onnx")
    assert [x.version for x in model.opset_import] == [17]
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    session = onnxruntime.InferenceSession(
        folder / "model.onnx", providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    for batch in (1, 3):
        x = images(module, batch).transpose(0, 3, 1, 2)
        actual = dict(zip(names, session.run(names, {"images": x}), strict=True))
        assert_equal_features(actual, expected(module, batch))


@pytest.mark.parametrize("name", ["late", "resnet"])
def test_a_program_of_jax_gives_the_encoders_features(name, tmp_path):
    module, folder = ENCODERS[name], tmp_path / name
    export_to(folder, module, "jax")
    program = jax.export.deserialize(bytearray((folder / "encoder.jax").read_bytes()))
    assert program.platforms == ("cpu", "cuda", "tpu")
    for batch in (1, 3):
        actual = jax.device_get(program.call(images(module, batch)))
        assert_equal_features(actual, expected(module, batch))


def test_exports_compute_in_float32(tmp_path):
    module = vit(dtype=jax.numpy.bfloat16, attention="fused", remat="blocks")
    export_to(tmp_path / "out", module, "jax")
    data = (tmp_path / "out" / "encoder.jax").read_bytes()
    actual = jax.device_get(jax.export.deserialize(bytearray(data)).call(images(vit())))
    assert_equal_features(actual, expected(vit(), 3))


@pytest.mark.parametrize("name", ["late", "resnet"])
def test_our_own_file_holds_every_bit(name, tmp_path):
    module = ENCODERS[name]
    export_to(tmp_path / "a", module, "safetensors")
    path = tmp_path / "a" / "model.safetensors"
    again = import_weights(path)
    assert again.module == module and (again.mean, again.std) == (MEAN, STD)
    jax.tree.map(np.testing.assert_array_equal, again.variables, variables(module))
    arrays, metadata = read_safetensors(path)
    wanted = flatten(variables(module))
    assert arrays.keys() == wanted.keys()
    for key, array in wanted.items():
        np.testing.assert_array_equal(arrays[key], array)
    assert metadata["format"] == "ser_jax"
    assert json.loads(metadata["mean"]) == list(MEAN)
    assert json.loads(metadata["std"]) == list(STD)
    found = json.loads(metadata["module"])
    attributes = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in found["attributes"].items()
    }
    assert (
        type(module)(**attributes) == module and found["class"] == type(module).__name__
    )


def test_the_digest_tells_what_arrays_do_not(tmp_path):
    """One file with 3 or 6 heads has the same arrays."""
    changed = {
        "same": (vit(), {}),
        "heads": (vit(num_heads=6), {}),
        "eps": (vit(norm_eps=1e-5), {}),
        "resample": (vit(resample="hf"), {}),
        "mean": (vit(), {"mean": STD}),
        "weights": (vit(), {"variables": jax.tree.map(lambda x: -x, variables(vit()))}),
        "training": (vit(drop_path_rate=0.1, scan=False), {}),
    }
    digests = {}
    for name, (module, other) in changed.items():
        given = {"variables": variables(vit()), "mean": MEAN, "std": STD} | other
        folder = tmp_path / name
        export(module, folder=folder, to="safetensors", about={}, **given)
        _, metadata = read_safetensors(folder / "model.safetensors")
        digests[name] = metadata["digest"]
    assert digests.pop("training") == digests["same"]
    assert len(set(digests.values())) == len(digests)


def test_the_same_encoder_gives_the_same_bytes(tmp_path):
    def backwards(tree):
        if not isinstance(tree, dict):
            return tree
        return {name: backwards(tree[name]) for name in reversed(tree)}

    for to in ("safetensors", "onnx", "timm"):
        files = []
        for i, weights in enumerate([variables(vit()), backwards(variables(vit()))]):
            paths = export_to(tmp_path / str(i) / to, vit(), to, weights=weights)
            files.append({path.name: path.read_bytes() for path in paths})
        assert files[0] == files[1]


@pytest.mark.parametrize("name", ["sincos", "learned"])
def test_timms_names(name, tmp_path):
    module = ENCODERS[name].clone(norm_eps=1e-6)
    export_to(tmp_path / "out", module, "timm")
    arrays, _ = read_safetensors(tmp_path / "out" / "model.safetensors")
    actual = flatten(interop_torch.vit(arrays, None))
    for path, array in flatten(variables(module)["params"]).items():
        if not path.startswith("norm_"):
            np.testing.assert_array_equal(actual.pop(path), array)
    if name == "sincos":
        assert not actual.pop("cls_pos_embed").any()
        assert actual.pop("pos_embed").shape == (16, module.width)
    assert not actual
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["model_args"]["num_heads"] == module.num_heads
    assert config["pretrained_cfg"]["mean"] == list(MEAN)
    left_out = "Left out: norm_cls_1, norm_grid_1, of layers"
    assert (left_out in (tmp_path / "out" / "README.md").read_text()) == bool(
        module.grid_layers
    )


def test_hugging_faces_names(tmp_path):
    module = ENCODERS["learned"]
    paths = export_to(tmp_path / "out", module, "hf")
    assert [path.name for path in paths] == [
        *("README.md", "config.json", "model.safetensors", "preprocessor_config.json")
    ]
    arrays, _ = read_safetensors(tmp_path / "out" / "model.safetensors")
    qkv = variables(module)["params"]["blocks"]["attn"]["qkv"]
    layers = "encoder.layer.{}.attention.attention.{}.{}"
    for i in range(module.depth):
        for leaf, ours in (("weight", qkv["kernel"]), ("bias", qkv["bias"])):
            parts = [
                arrays[layers.format(i, x, leaf)].T for x in ("query", "key", "value")
            ]
            np.testing.assert_array_equal(np.concatenate(parts, axis=-1), ours[i])
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["layer_norm_eps"] == 1e-5 and config["intermediate_size"] == 96


REFUSED = {
    "timm_late": (vit(cls_insert=1), "timm", "class token joins after block 1, which"),
    "hf_late": (vit(cls_insert=1), "hf", "class token joins after block 1, which"),
    "timm_eps": (vit(norm_eps=1e-12), "timm", "epsilon is 1e-12, and timm's 1e-06"),
    "hf_resnet": (RESNET, "hf", "this is a ResNet"),
    "timm_filters": (RESNET, "timm", "begins with 64 filters, not 2"),
    "timm_stages": (RESNET.clone(num_filters=64), "timm", "has 4 stages, not 2"),
    "timm_stem": (RESNET.clone(small_images=True), "timm", "no stem for small images"),
    "timm_padding": (RESNET.clone(stem_padding=2), "timm", "padded by 3 px, not 2"),
    "unknown": (vit(), "tflite", "expected one of timm, hf, safetensors, onnx, jax"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_format_cannot_say_is_refused_before_anything_is_written(name, tmp_path):
    module, to, message = REFUSED[name]
    with pytest.raises(ValueError, match=message) as error:
        export_to(tmp_path / "new" / "out", module, to)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


def test_weights_of_another_module_are_refused(tmp_path):
    def without(name):
        found = variables(vit())
        del found["params"][name]
        return found

    nan = variables(vit())
    nan["params"]["blocks"]["mlp"]["fc1"]["bias"][1, 2] = np.nan
    for weights, message in (
        (without("cls_token"), "params/cls_token is missing"),
        (variables(vit(pos_embed="learned")), "params/cls_pos_embed is not the module"),
        (variables(vit(width=12)), r"blocks/attn/proj/bias is \[2, 12\], the module's"),
        (nan, "params/blocks/mlp/fc1/bias is not finite"),
    ):
        with pytest.raises(ValueError, match=message):
            export_to(tmp_path / "out", vit(), "safetensors", weights=weights)
    with pytest.raises(ValueError, match="a ViT or a ResNet can be exported"):
        export_to(tmp_path / "out", object(), "onnx", weights={})
    assert not list(tmp_path.iterdir())


def test_onnx_is_asked_for_where_it_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'ser_jax\[onnx\]'"):
        export_to(tmp_path / "out", vit(), "onnx")


def test_a_folder_is_whole_or_not_there(tmp_path, monkeypatch):
    folder = tmp_path / "out"
    with monkeypatch.context() as context:
        context.setattr(write, "card", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            export_to(folder, vit(), "safetensors")
    assert not list(tmp_path.iterdir())
    left = tmp_path / ".out.partial"
    left.mkdir()
    (left / "model.safetensors").write_text("of one that was killed")
    folder.mkdir()
    export_to(folder, vit(), "safetensors")
    assert list(tmp_path.iterdir()) == [folder]
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert {path.name for path in before} == {"README.md", "model.safetensors"}
    with pytest.raises(FileExistsError, match="there is something in it"):
        export_to(folder, vit(num_heads=6), "timm")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("to", ["onnx", "jax", "safetensors"])
def test_the_cards_code_runs(to, tmp_path, monkeypatch):
    export_to(tmp_path / "out", ENCODERS["late"], to)
    features = run_card(tmp_path / "out", monkeypatch)["features"]
    features = named(features) if to == "safetensors" else features
    assert features["cls"].shape == (2, 24) and features["grid1"].shape == (2, 16, 24)


def test_the_card_says_what_it_is(tmp_path):
    about = ABOUT | {"measured": {"knn_top1": 0.123456, "images": 2000}}
    export_to(tmp_path / "out", ENCODERS["late"], "onnx", about)
    text = (tmp_path / "out" / "README.md").read_text()
    for part in (
        *("license: #", "library_name: onnx", "# out\n", "- seed: 3\n"),
        *("recipe: configs/moco_v3.py:ser", "class token joins after block 1"),
        *("mean = [0.5, 0.25, 0.125]", "std = [0.25, 0.5, 0.75]"),
        *("knn_top1 | 0.12346 |", "Opset 17", "grid1 [b, 16, 24]"),
    ):
        assert part in text, part
    assert "measured" not in text
