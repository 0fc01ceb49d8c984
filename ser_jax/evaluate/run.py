"""A trained run in evaluation: an encoder with its run's data, config and heads."""

import dataclasses
from typing import Any

import jax
from etils import epath

from ser_jax.evaluate.encoder import check_weights
from ser_jax.evaluate.subject import Subject
from ser_jax.storage.reader import SavedState
from ser_jax.train.experiment import Experiment
from ser_jax.train.saved import load_part


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TrainedRun(Subject):
    """A checkpoint of a run and what it is evaluated on.

    Attributes:
        workdir: The run.
        step: Step of the checkpoint.
        encoder_name: "online" or "target": whose weights are evaluated.
        experiment: What was trained.
        saved: The checkpoint.
    """

    workdir: epath.Path
    step: int
    encoder_name: str
    experiment: Experiment
    saved: SavedState

    def about(self) -> dict[str, Any]:
        """What results are of, for their file."""
        config = self.experiment.config
        run = {
            "run": str(self.workdir),
            "step": self.step,
            "encoder": self.encoder_name,
        }
        settings = {
            "dataset": config["dataset"]["name"],
            "objective": config["objective"]["name"],
            "regularizer": config["regularizer"]["name"],
            "model": config["model"]["variant"],
        }
        return run | super().about() | {"settings": settings}

    def load(self, part: str, shapes: Any) -> Any:
        """Another part of the checkpoint, verified.

        Args:
            part: Its path in `Variables`: "params/regularizer".
            shapes: Its leaves' shapes and dtypes.

        Returns:
            The arrays, on the host.

        Raises:
            ValueError: If the checkpoint is damaged, or has no such part.
            FloatingPointError: If a number in it is not finite.
        """
        arrays = load_part(self.saved, part, shapes, self.mesh)
        check_weights(arrays)
        return jax.device_get(arrays)
