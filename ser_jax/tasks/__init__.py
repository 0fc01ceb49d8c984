"""What can be asked of a trained run, by name."""

from ser_jax.tasks import features, finetune, layers, pictures, sets
from ser_jax.tasks.task import Task

TASKS: dict[str, Task] = {
    "knn": Task(features.knn),
    "linear": Task(features.linear),
    "logreg": Task(features.logreg),
    # It trains a network: hours, where the others read one.
    "finetune": Task(finetune.finetune, is_in_all=False),
    "health": Task(features.health),
    "equivariance": Task(layers.equivariance),
    "seis": Task(layers.seis),
    "lie_derivative": Task(layers.lie_derivative),
    "rotation_probe": Task(layers.rotation_probe),
    "equimod": Task(layers.equimod, layers.equimod_obstacle),
    "corruptions": Task(sets.corruptions, sets.corruptions_obstacle),
    "perturbations": Task(sets.perturbations, sets.perturbations_obstacle),
    "shifted": Task(sets.shifted, sets.shifted_obstacle),
    "flops": Task(pictures.flops),
    "pictures": Task(pictures.pictures),
}
