"""What can be asked of a trained run, by name."""

from ser_jax.evaluate import obstacles
from ser_jax.evaluate.classify import finetune_task as finetune
from ser_jax.evaluate.classify import linear as features
from ser_jax.evaluate.layers import tasks as layers
from ser_jax.evaluate.pictures import task as pictures
from ser_jax.evaluate.robustness import head as sets
from ser_jax.evaluate.task import Task

TASKS: dict[str, Task] = {
    "knn": Task(features.knn, obstacles.no_labels),
    "linear": Task(features.linear, obstacles.no_labels),
    "logreg": Task(features.logreg, obstacles.no_labels),
    # It trains a network: hours, where the others read one.
    "finetune": Task(finetune.finetune, obstacles.no_labels, is_in_all=False),
    "health": Task(features.health, obstacles.no_pictures),
    "equivariance": Task(layers.equivariance, obstacles.no_pictures),
    "seis": Task(layers.seis, obstacles.no_pictures),
    "lie_derivative": Task(layers.lie_derivative, obstacles.few_cells),
    "rotation_probe": Task(layers.rotation_probe, obstacles.no_pictures),
    "equimod": Task(layers.equimod, obstacles.no_equimod),
    "corruptions": Task(sets.corruptions, obstacles.no_corruptions),
    "perturbations": Task(sets.perturbations, obstacles.no_perturbations),
    "shifted": Task(sets.shifted, obstacles.no_shifted),
    "flops": Task(pictures.flops),
    "pictures": Task(pictures.pictures, obstacles.no_pictures),
}
