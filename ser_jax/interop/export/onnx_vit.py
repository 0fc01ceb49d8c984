"""A ViT as a graph of ONNX."""

import numpy as np

from ser_jax.interop.export.graph import Graph
from ser_jax.interop.export.outgoing import Outgoing
from ser_jax.interop.export.torch_keys import patch_kernel
from ser_jax.models.outputs import (
    BLOCKS,
    FINAL_NORM,
    PATCH_EMBED,
    norm_cls,
    norm_grid,
)
from ser_jax.models.pos_embed import sincos_table
from ser_jax.models.vit import ViT
from ser_jax.storage.tables import flatten


def add_vit(graph: Graph, encoder: Outgoing) -> dict[str, str]:
    """Adds the encoder's nodes, which read "images", `[b, 3, s, s]`.

    Args:
        graph: Without nodes.
        encoder: A ViT.

    Returns:
        Names in the graph of what `named` has.
    """
    return _Builder(graph, encoder).outputs()


class _Builder:
    def __init__(self, graph: Graph, encoder: Outgoing):
        assert isinstance(encoder.module, ViT)
        self.graph, self.encoder, self.module = graph, encoder, encoder.module
        self.params = flatten(encoder.params, ".")

    def outputs(self) -> dict[str, str]:
        graph, module = self.graph, self.module
        x, found = self._embed(), {}
        for layer in range(module.depth + 1):
            if layer > 0:
                x = self._block(x, layer - 1)
            if layer == module.cls_insert:
                cls = self._cls_of_batch()
                x = graph("Concat", cls, x, axis=1)
            has_cls, last = layer >= module.cls_insert, layer == module.depth
            if layer in module.grid_layers:
                norm = FINAL_NORM if last else norm_grid(layer)
                found[f"grid{layer}"] = self._norm(self._patches(x, has_cls), norm)
            if layer in module.cls_layers:
                norm = FINAL_NORM if last else norm_cls(layer)
                found[f"cls{layer}"] = self._norm(self._first(x), norm)
        x = self._norm(x, FINAL_NORM)
        return {"cls": self._first(x), "tokens": self._patches(x, True)} | found

    def _array(self, name: str) -> str:
        return self.graph.constant(name, self.params[name])

    def _embed(self) -> str:
        """The patches' tokens with positions, `[b, n, d]`."""
        graph, module = self.graph, self.module
        side = module.image_size // module.patch_size
        kernel = graph.constant(f"{PATCH_EMBED}.kernel", patch_kernel(self.encoder))
        bias, strides = self._array(f"{PATCH_EMBED}.bias"), [module.patch_size] * 2
        maps = graph("Conv", "images", kernel, bias, strides=strides)
        rows = graph.reshape(maps, 0, module.width, side**2)
        tokens = graph("Transpose", rows, perm=[0, 2, 1])
        if module.pos_embed == "sincos":
            table = sincos_table(side, module.width)
        else:
            table = self.params["pos_embed"]
        return graph("Add", tokens, graph.constant("pos_embed", table[None]))

    def _cls_of_batch(self) -> str:
        """The class token for each image, `[b, 1, d]`."""
        graph, token = self.graph, self.params["cls_token"]
        token = token + self.params.get("cls_pos_embed", np.float32(0))
        batch = graph("Shape", "images", start=0, end=1)
        one = graph.constant("cls_shape", [1, self.module.width])
        shape = graph("Concat", batch, one, axis=0)
        return graph("Expand", graph.constant("cls_token", token), shape)

    def _block(self, x: str, i: int) -> str:
        graph = self.graph
        branch = self._attention(self._block_norm(x, i, "norm1"), i)
        x = graph("Add", x, branch)
        hidden = self._gelu(self._dense(self._block_norm(x, i, "norm2"), i, "mlp.fc1"))
        return graph("Add", x, self._dense(hidden, i, "mlp.fc2"))

    def _attention(self, x: str, i: int) -> str:
        graph, heads = self.graph, self.module.num_heads
        size = self.module.width // heads
        packed = self._dense(x, i, "attn.qkv")
        q, k, v = (
            graph.reshape(part, 0, 0, heads, size)
            for part in graph.several(3, "Split", packed, axis=2)
        )
        q, v = (graph("Transpose", x, perm=[0, 2, 1, 3]) for x in (q, v))
        k = graph("Transpose", k, perm=[0, 2, 3, 1])
        scale = graph.constant("attention_scale", np.float32(size**-0.5))
        logits = graph("Mul", graph("MatMul", q, k), scale)
        mixed = graph("MatMul", graph("Softmax", logits, axis=-1), v)
        mixed = graph("Transpose", mixed, perm=[0, 2, 1, 3])
        mixed = graph.reshape(mixed, 0, 0, self.module.width)
        return self._dense(mixed, i, "attn.proj")

    def _gelu(self, x: str) -> str:
        graph = self.graph
        root, one, half = (
            graph.constant(name, np.float32(value))
            for name, value in (("root_half", 0.5**0.5), ("one", 1), ("half", 0.5))
        )
        wide = graph("Add", graph("Erf", graph("Mul", x, root)), one)
        return graph("Mul", graph("Mul", x, half), wide)

    def _dense(self, x: str, i: int, layer: str) -> str:
        kernel = self._of_block(i, f"{layer}.kernel")
        bias = self._of_block(i, f"{layer}.bias")
        return self.graph("Add", self.graph("MatMul", x, kernel), bias)

    def _of_block(self, i: int, name: str) -> str:
        stacked = self.params[f"{BLOCKS}.{name}"]
        return self.graph.constant(f"{BLOCKS}.{i}.{name}", stacked[i])

    def _block_norm(self, x: str, i: int, name: str) -> str:
        scale, bias = (
            self._of_block(i, f"{name}.{leaf}") for leaf in ("scale", "bias")
        )
        epsilon = self.module.norm_eps
        return self.graph("LayerNormalization", x, scale, bias, epsilon=epsilon)

    def _norm(self, x: str, name: str) -> str:
        scale, bias = (self._array(f"{name}.{leaf}") for leaf in ("scale", "bias"))
        epsilon = self.module.norm_eps
        return self.graph("LayerNormalization", x, scale, bias, epsilon=epsilon)

    def _first(self, x: str) -> str:
        """The class token, `[b, d]`."""
        zero = self.graph.constant("zero", np.int64(0))
        return self.graph("Gather", x, zero, axis=1)

    def _patches(self, x: str, has_cls: bool) -> str:
        if not has_cls:
            return x
        names = {"first_patch": [1], "end": [np.iinfo(np.int64).max], "axis_1": [1]}
        limits = (self.graph.constant(name, value) for name, value in names.items())
        return self.graph("Slice", x, *limits)
