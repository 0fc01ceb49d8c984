"""Settings of linear evaluation in the papers."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import NamedTuple

from ser_jax.methods.settings import check_settings


class HeadSettings(NamedTuple):
    """What tells the heads on one feature apart.

    Attributes:
        base_learning_rate: For a batch of 256, > 0.
        weight_decay: L2 coefficient added to the gradient, >= 0.
    """

    base_learning_rate: float
    weight_decay: float


@dataclasses.dataclass(frozen=True)
class LinearProtocol:
    """How linear heads are trained; every combination of the tuples is a head.

    For another encoder or data set: `dataclasses.replace(protocol, ...)`.

    Attributes:
        features: Names of the features to try: "cls1" is the class token after the
            final norm, "cls4" those of the last four blocks side by side, "cls1_avg"
            the class token beside the mean patch token.
        base_learning_rates: For a batch of 256; scaled by batch_size / 256.
        weight_decays: As SGD has it: L2, on weights and biases.
        batch_size: Global batch size.
        num_epochs: Passes over what is not held out.
        held_out_frac: Share of train that chooses the head, in (0, 1).

    Raises:
        ValueError: If nothing is to be tried, or a size is below 1.
    """

    features: tuple[str, ...]
    base_learning_rates: tuple[float, ...]
    batch_size: int
    num_epochs: int
    weight_decays: tuple[float, ...] = (0.0,)
    held_out_frac: float = 0.05

    def __post_init__(self):
        """Checks the settings."""
        check_settings(self, counts=("batch_size", "num_epochs"))
        for name in ("features", "base_learning_rates", "weight_decays"):
            if not getattr(self, name):
                raise ValueError(
                    f"LinearProtocol: {name} must hold at least one value to try, got "
                    "()."
                )

    def settings(self) -> list[HeadSettings]:
        """The grid of one feature.

        Returns:
            Settings in the order of a stack of heads: weight decay varies fastest.
        """
        grid = itertools.product(self.base_learning_rates, self.weight_decays)
        return [HeadSettings(*values) for values in grid]

    def learning_rate(self, base: float) -> float:
        """Learning rate at the first step.

        Args:
            base: Learning rate for a batch of 256.

        Returns:
            The same for this batch size.
        """
        return base * self.batch_size / 256


_MOCO_V3 = LinearProtocol(
    features=("cls1",), base_learning_rates=(3.0,), batch_size=1024, num_epochs=90
)
_DINO = LinearProtocol(
    features=("cls4",), base_learning_rates=(1e-3,), batch_size=1024, num_epochs=100
)
_SER = LinearProtocol(
    features=("cls4",),
    base_learning_rates=(1.0, 3.0, 10.0),
    batch_size=2048,
    num_epochs=50,
)
# Not a paper's, in the manner of DINOv2's (arXiv 2304.07193): few epochs, and settings
# wide enough for any encoder, since 30 heads cost little more than one.
GRID = LinearProtocol(
    features=("cls1", "cls4", "cls1_avg"),
    base_learning_rates=(1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
    batch_size=1024,
    num_epochs=10,
)
# As published for small ViTs.
LINEAR_PROTOCOLS = {"grid": GRID, "moco_v3": _MOCO_V3, "dino": _DINO, "ser": _SER}
_VIT_B_WIDTH = 768


def linear_protocol(
    name: str, features: Mapping[str, int], *, is_vit: bool
) -> LinearProtocol:
    """A protocol as its authors fit it to the encoder.

    Args:
        name: One of `LINEAR_PROTOCOLS`.
        features: What the encoder gives -> width.
        is_vit: Whether it is a ViT.

    Returns:
        The protocol: MoCo v3's learning rate for ResNets, DINO's feature for ViT-B and
        larger; on the first feature where the encoder gives none that is asked for.
    """
    protocol = LINEAR_PROTOCOLS[name]
    if name == "moco_v3" and not is_vit:
        protocol = dataclasses.replace(protocol, base_learning_rates=(0.1,))
    if name == "dino" and is_vit and features.get("cls1", 0) >= _VIT_B_WIDTH:
        protocol = dataclasses.replace(protocol, features=("cls1_avg",))
    there = tuple(feature for feature in protocol.features if feature in features)
    return dataclasses.replace(protocol, features=there or tuple(features)[:1])
