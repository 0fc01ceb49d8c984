"""An ONNX graph that is built node by node."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

_IR_VERSION = 8  # of opset 17: what is newer, older programs do not read


class Graph:
    """Nodes and constants, in the order in which they were added."""

    def __init__(self, opset: int):
        """A graph without nodes.

        Args:
            opset: Version of ONNX's operators.
        """
        self._opset = opset
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, array: npt.ArrayLike) -> str:
        """Adds a constant.

        Args:
            name: Its name; one that is there already stays.
            array: A float32 array or scalar, or integers: int64.

        Returns:
            The name.
        """
        if name not in self._constants:
            # Not `ascontiguousarray`, which gives numbers an axis.
            value = np.asarray(array, order="C")
            self._constants[name] = onnx.numpy_helper.from_array(value, name)
        return name

    def __call__(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node with one output.

        Args:
            operator: Of ONNX's own domain.
            *inputs: Names.
            **attributes: The operator's.

        Returns:
            The output's name.
        """
        return self.several(1, operator, *inputs, **attributes)[0]

    def several(
        self, count: int, operator: str, *inputs: str, **attributes: Any
    ) -> list[str]:
        """Adds a node with `count` outputs; arguments as of a call.

        Returns:
            Their names.
        """
        outputs = [f"{operator}_{len(self._nodes)}_{i}" for i in range(count)]
        self._nodes.append(
            onnx.helper.make_node(operator, list(inputs), outputs, **attributes)
        )
        return outputs

    def reshape(self, x: str, *shape: int) -> str:
        """Name of `x` in another shape; 0 keeps an axis, -1 takes what is left."""
        name = "shape_" + "_".join(map(str, shape)).replace("-", "m")
        return self("Reshape", x, self.constant(name, shape))

    def model(
        self,
        images: tuple[int, ...],
        outputs: Mapping[str, str],
        shapes: Mapping[str, tuple[int, ...]],
        metadata: Mapping[str, str],
    ) -> onnx.ModelProto:
        """The graph as a checked model.

        Args:
            images: Shape of the input "images" without the batch's axis.
            outputs: What each output is called -> its name in the graph.
            shapes: Shape of each output without the batch's axis.
            metadata: Texts by name.

        Returns:
            The model; its batch is free.
        """

        def info(name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
            kind = onnx.TensorProto.FLOAT
            return onnx.helper.make_tensor_value_info(name, kind, ["batch", *shape])

        for name, inner in outputs.items():
            self._nodes.append(onnx.helper.make_node("Identity", [inner], [name]))
        graph = onnx.helper.make_graph(
            self._nodes,
            "encoder",
            [info("images", images)],
            [info(name, shapes[name]) for name in outputs],
            list(self._constants.values()),
        )
        model = onnx.helper.make_model(
            graph,
            producer_name="ser_jax",
            ir_version=_IR_VERSION,
            opset_imports=[onnx.helper.make_opsetid("", self._opset)],
        )
        onnx.helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model)
        return model
