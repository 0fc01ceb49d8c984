"""Names for a graph's arrays that have none; what is drawn anew."""

import runpy

import numpy as np
import pytest
from helpers import ROOT

NAMED = {
    "embeddings.cls_token": (1, 1, 64),
    "embeddings.patch_embeddings.projection.weight": (64, 3, 14, 14),
    "encoder.layer.0.norm1.weight": (64,),
    "encoder.layer.0.mlp.fc1.bias": (256,),
}


@pytest.fixture(scope="module")
def script():
    """Names of `benchmarks/dinov2_onnx.py`."""
    return runpy.run_path(str(ROOT / "benchmarks" / "dinov2_onnx.py"))


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    shapes = {f"backbone.{name}": shape for name, shape in NAMED.items()} | {
        "onnx::MatMul_7": (64, 256),
        "onnx::Concat_8": (1, 1, 64),
        "onnx::Reshape_9": (1, 4, 64),
        "decoder.bn1.weight": (3,),
        "onnx::MatMul_10": (64, 3),
    }
    return {k: rng.standard_normal(x, np.float32) for k, x in shapes.items()}


@pytest.fixture(scope="module")
def found(script, arrays):
    from onnx import helper, numpy_helper

    begin = "/backbone/embeddings"
    nodes = [
        ("MatMul", "/backbone/encoder/layer.0/mlp/fc1/MatMul", "onnx::MatMul_7"),
        ("Concat", f"{begin}/Concat_6", "onnx::Concat_8"),
        ("Reshape", f"{begin}/Reshape_1", "onnx::Reshape_9"),
        ("MatMul", "/decoder/out/MatMul", "onnx::MatMul_10"),
    ]
    graph = helper.make_graph(
        [helper.make_node(op, ["x", array], [op], name) for op, name, array in nodes],
        "graph",
        [],
        [],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return script["arrays_of"](graph)


def test_arrays_have_the_names_of_their_modules(arrays, found):
    matrix, table = "encoder.layer.0.mlp.fc1.weight", "embeddings.position_embeddings"
    assert found.keys() == {*NAMED, matrix, table}
    np.testing.assert_array_equal(found[matrix], arrays["onnx::MatMul_7"].T)
    np.testing.assert_array_equal(found[table][:, :1], arrays["onnx::Concat_8"])
    np.testing.assert_array_equal(found[table][:, 1:], arrays["onnx::Reshape_9"])


def test_the_config_is_that_of_the_arrays(script, found):
    about = script["config_of"](found)
    sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "mlp_ratio")
    assert [about[x] for x in sizes] == [64, 1, 1, 4]
    assert (about["patch_size"], about["image_size"]) == (14, 28)


def test_arrays_are_drawn_anew(script, found):
    drawn = script["drawn"](found, 0)
    assert {k: x.shape for k, x in drawn.items()} == {
        k: x.shape for k, x in found.items()
    }
    assert (drawn["encoder.layer.0.norm1.weight"] == 1).all()
    assert not drawn["encoder.layer.0.mlp.fc1.bias"].any()
    assert abs(drawn["encoder.layer.0.mlp.fc1.weight"].std() - 0.02) < 1e-3
