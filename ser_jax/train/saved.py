"""Parts of a run's state, out of its checkpoint."""

from typing import Any

import jax
from jax.sharding import Mesh

from ser_jax.methods.variables import encoder_paths
from ser_jax.storage.reader import SavedState
from ser_jax.train.experiment import Experiment
from ser_jax.train.sharding import replicated


def load_part(saved: SavedState, part: str, shapes: Any, mesh: Mesh) -> Any:
    """A part of a checkpoint's variables, verified, on every device.

    Args:
        saved: The checkpoint.
        part: Path in `Variables`: "params/encoder".
        shapes: Its leaves' shapes and dtypes; without leaves there is nothing to read.
        mesh: The mesh.

    Returns:
        The arrays.

    Raises:
        ValueError: If the checkpoint is damaged, or has no such part.
    """
    sharding = replicated(mesh)
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes
    )
    if not jax.tree.leaves(abstract):  # a ViT has no statistics, nor its checkpoint
        return abstract
    return saved.restore(abstract, f"variables/{part}")


def load_encoder(
    saved: SavedState, experiment: Experiment, target: bool, mesh: Mesh
) -> dict[str, Any]:
    """The variables of an encoder, on every device.

    Args:
        saved: The checkpoint.
        experiment: What was trained.
        target: Whether of the target network, not the online one.
        mesh: The mesh.

    Returns:
        {"params", "batch_stats"}.

    Raises:
        ValueError: As `load_part` does.
    """
    state = jax.eval_shape(experiment.init_state, experiment.init_rng)
    shapes = state.variables.encoder(target)
    paths = encoder_paths(target)
    return {k: load_part(saved, part, shapes[k], mesh) for k, part in paths.items()}
