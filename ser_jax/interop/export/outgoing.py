"""What is exported, and what a format has to say to it."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from ser_jax.interop.identity import settings, sha256
from ser_jax.models.outputs import EncoderOutput
from ser_jax.models.resnet import ResNet
from ser_jax.models.vit import ViT
from ser_jax.storage.tables import flatten


@dataclasses.dataclass(frozen=True, eq=False)
class Outgoing:
    """An encoder on its way out.

    Attributes:
        module: The encoder; it computes in float32 (`outgoing`).
        variables: {"params"}, and "batch_stats" of a ResNet: host arrays, float32.
        mean: Channel means of normalised images.
        std: Channel standard deviations.
    """

    module: ViT | ResNet
    variables: Mapping[str, Any]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def params(self) -> Mapping[str, Any]:
        """The parameters."""
        return self.variables["params"]

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """Class and attributes that decide what the encoder gives, for JSON."""
        return settings(self.module)

    @functools.cached_property
    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each of `named`, for one image, without the batch's axis."""
        side = self.module.image_size
        images = jax.ShapeDtypeStruct((1, side, side, 3), np.float32)
        out = jax.eval_shape(self.module.apply, self.variables, images)
        return {name: x.shape[1:] for name, x in named(out).items()}

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the arrays, `config` and normalisation, in hexadecimal digits."""
        return sha256(self.config, self.variables, self.mean, self.std)


@dataclasses.dataclass(frozen=True)
class Target:
    """A format that encoders are written in.

    Attributes:
        name: What the user calls it.
        library: Which library reads it, as the model card's head says.
        refusal: Why it cannot hold an encoder, in one line; "" if it can.
        write: Writes its files into a folder.
        notes: What a reader should know: what was left out, what differs.
        load: Python that loads the files from the folder it is run in, and calls the
            encoder.
    """

    name: str
    library: str
    refusal: Callable[[Outgoing], str]
    write: Callable[[Outgoing, epath.Path], None]
    notes: Callable[[Outgoing], list[str]]
    load: Callable[[Outgoing], str]


def outgoing(module: Any, variables: Any, mean: Any, std: Any) -> Outgoing:
    """An encoder as exporters take it.

    Args:
        module: A `ViT` or a `ResNet`.
        variables: Its variables.
        mean: Channel means, three.
        std: Channel standard deviations, three.

    Returns:
        The encoder, in float32.

    Raises:
        ValueError: If it is another module, or the variables are not its own or not
            finite.
    """
    if not isinstance(module, ViT | ResNet):
        raise ValueError(
            f"a ViT or a ResNet can be exported, not a {type(module).__name__}."
        )
    how: dict[str, Any] = {"dtype": np.dtype(np.float32)}
    if isinstance(module, ViT):  # what runs on every device
        how |= {"attention": "xla", "remat": "none", "scan": True}
    module = module.clone(**how)
    arrays = jax.tree.map(lambda x: np.asarray(x, np.float32), _plain(variables))
    side = module.image_size
    images = jax.ShapeDtypeStruct((1, side, side, 3), np.float32)
    expected = jax.eval_shape(module.init, jax.random.key(0), images)
    _check(flatten(arrays), flatten(_plain(expected)))
    return Outgoing(module, arrays, _floats(mean), _floats(std))


def named(out: EncoderOutput) -> dict[str, Any]:
    """What an encoder gives, by the names that exports have for it.

    Args:
        out: Of a call.

    Returns:
        "cls" `[b, d]` and "tokens" `[b, n, d]`; "grid3" `[b, n, d]` and "cls3" `[b, d]`
        of each layer that is read, through its norm.
    """
    grids = {f"grid{k}": grid.tokens for k, grid in sorted(out.grids.items())}
    cls_at = {f"cls{k}": cls for k, cls in sorted(out.cls_at.items())}
    return {"cls": out.cls, "tokens": out.tokens, **grids, **cls_at}


def gives(encoder: Outgoing) -> str:
    """What an exported program returns, for the model card.

    Args:
        encoder: What is exported.

    Returns:
        A sentence: names and shapes.
    """
    shapes = {
        name: ", ".join(["b", *map(str, shape)])
        for name, shape in encoder.output_shapes.items()
    }
    listed = ", ".join(f"{name} [{shape}]" for name, shape in shapes.items())
    return f"The encoder gives, float32: {listed}."


def _plain(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {name: _plain(below) for name, below in tree.items()}
    return tree


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _check(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuses arrays that are not the module's, by name."""
    if names := sorted(found.keys() ^ expected.keys()):
        state = "missing" if names[0] in expected else "not the module's"
        raise ValueError(
            f"the weights do not belong to the module: {names[0]} is {state}; give "
            "variables and module of one encoder."
        )
    for name, array in found.items():
        if array.shape != expected[name].shape:
            raise ValueError(
                f"the weights do not belong to the module: {name} is "
                f"{list(array.shape)}, the module's {list(expected[name].shape)}; give "
                "variables and module of one encoder."
            )
        if not np.isfinite(array).all():
            raise ValueError(
                f"the weights are not exported: {name} is not finite; training had "
                "diverged."
            )
