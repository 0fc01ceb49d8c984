"""What can be asked of an encoder, by name."""

from ser_jax.evaluate.classify import (
    collapse,
    finetune,
    knn,
    layer_knn,
    linear,
    logreg,
)
from ser_jax.evaluate.cost import flops
from ser_jax.evaluate.detection import task as detection
from ser_jax.evaluate.features import embed
from ser_jax.evaluate.layers import (
    equimod,
    equivariance,
    lie_derivative,
    rotation_probe,
    seis,
)
from ser_jax.evaluate.pictures import task as pictures
from ser_jax.evaluate.robustness import corruptions, perturbations, shifted
from ser_jax.evaluate.task import Task

_IN_ORDER = (
    knn.TASK,
    linear.TASK,
    logreg.TASK,
    layer_knn.TASK,
    finetune.TASK,
    collapse.TASK,
    equivariance.TASK,
    seis.TASK,
    lie_derivative.TASK,
    rotation_probe.TASK,
    equimod.TASK,
    corruptions.TASK,
    perturbations.TASK,
    shifted.TASK,
    detection.TASK,
    flops.TASK,
    pictures.TASK,
    embed.TASK,
)
TASKS: dict[str, Task] = {task.name: task for task in _IN_ORDER}
