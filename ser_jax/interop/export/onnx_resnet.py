"""A ResNet as a graph of ONNX."""

from ser_jax.interop.export.graph import Graph
from ser_jax.interop.export.outgoing import Outgoing
from ser_jax.models.blocks import NORM_EPS
from ser_jax.models.outputs import norm_grid
from ser_jax.models.resnet import ResNet
from ser_jax.models.resnet_blocks import EXPANSION
from ser_jax.storage.tables import flatten

_BN_EPS = 1e-5


def add_resnet(graph: Graph, encoder: Outgoing) -> dict[str, str]:
    """Adds the encoder's nodes, which read "images", `[b, 3, s, s]`.

    Args:
        graph: Without nodes.
        encoder: A ResNet.

    Returns:
        Names in the graph of what `named` has.
    """
    return _Builder(graph, encoder).outputs()


class _Builder:
    def __init__(self, graph: Graph, encoder: Outgoing):
        assert isinstance(encoder.module, ResNet)
        self.graph, self.module = graph, encoder.module
        self.params = flatten(encoder.params, ".")
        self.statistics = flatten(encoder.variables["batch_stats"], ".")

    def outputs(self) -> dict[str, str]:
        graph, module = self.graph, self.module
        x, found = self._stem(), {}
        for stage, num_blocks in enumerate(module.stage_sizes, start=1):
            for i in range(1, num_blocks + 1):
                x = self._block(x, f"stage{stage}_block{i}", 2 if stage > i == 1 else 1)
            if stage in module.grid_layers:
                normed = self._norm(graph("Transpose", x, perm=[0, 2, 3, 1]), stage)
                found[f"grid{stage}"] = self._flat(normed, stage)
        cls = graph("ReduceMean", x, axes=[2, 3], keepdims=0)
        last = graph("Transpose", x, perm=[0, 2, 3, 1])
        tokens = self._flat(last, module.depth)
        of_cls = {f"cls{layer}": cls for layer in module.cls_layers}
        return {"cls": cls, "tokens": tokens} | found | of_cls

    def _stem(self) -> str:
        small, padding = self.module.small_images, self.module.stem_padding
        x = self._conv("images", "stem.layer1", 1 if small else 2, padding)
        x = self.graph("Relu", x)
        if small:
            return x
        window = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}
        return self.graph("MaxPool", x, **window)

    def _block(self, x: str, name: str, stride: int) -> str:
        basic, branch = self.module.block == "basic", x
        strides = (stride, 1) if basic else (1, stride, 1)
        for i, own in enumerate(strides, start=1):
            branch = self._conv(branch, f"{name}.layer{i}", own)
            if i < len(strides):
                branch = self.graph("Relu", branch)
        if f"{name}.shortcut.conv.kernel" in self.params:
            x = self._conv(x, f"{name}.shortcut", stride)
        return self.graph("Relu", self.graph("Add", x, branch))

    def _conv(self, x: str, name: str, stride: int, padding: int | None = None) -> str:
        """Convolution and BatchNorm."""
        graph, kernel = self.graph, self.params[f"{name}.conv.kernel"]
        padding = kernel.shape[0] // 2 if padding is None else padding
        weight = graph.constant(f"{name}.conv.kernel", kernel.transpose(3, 2, 0, 1))
        x = graph("Conv", x, weight, strides=[stride] * 2, pads=[padding] * 4)
        affine = (self._array(f"{name}.bn.{leaf}") for leaf in ("scale", "bias"))
        seen = (
            graph.constant(f"{name}.bn.{leaf}", self.statistics[f"{name}.bn.{leaf}"])
            for leaf in ("mean", "var")
        )
        return graph("BatchNormalization", x, *affine, *seen, epsilon=_BN_EPS)

    def _array(self, name: str) -> str:
        return self.graph.constant(name, self.params[name])

    def _norm(self, x: str, stage: int) -> str:
        names = (f"{norm_grid(stage)}.{leaf}" for leaf in ("scale", "bias"))
        affine = map(self._array, names)
        return self.graph("LayerNormalization", x, *affine, epsilon=NORM_EPS)

    def _flat(self, x: str, stage: int) -> str:
        """`[b, h, w, c]` of a stage -> `[b, h * w, c]`."""
        inner = self.module.num_filters * 2 ** (stage - 1)
        width = inner * EXPANSION[self.module.block]
        return self.graph.reshape(x, 0, -1, width)
