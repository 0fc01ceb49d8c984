"""What EquiMod's predictor makes of an augmentation's parameters after training."""

import itertools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.data.crops import Batch
from ser_jax.data.host_transforms import RandomCrops
from ser_jax.data.loader import train_loader
from ser_jax.evaluate.run import TrainedRun
from ser_jax.evaluate.subject import Subject
from ser_jax.evaluate.task import Task, no_images, no_run
from ser_jax.methods.learner import Learner
from ser_jax.methods.objectives.base import GLOBAL_VIEWS
from ser_jax.methods.regularizers.equimod import EquiMod, equivariance_measures
from ser_jax.methods.variables import Variables

_BATCH_SIZE = 64


def equimod_scores(
    learner: Learner, variables: Variables, batches: Iterable[Batch], rng: jax.Array
) -> dict[str, float]:
    """EquiMod's measures of equivariance on held-out images.

    Encoder and heads run in evaluation mode: on the running statistics, without
    stochastic depth.

    Args:
        learner: A learner whose regularizer is EquiMod.
        variables: What it has learned; the online encoder's part is read.
        batches: Images as the loader makes them, "crops" and "crop_params", in
            batches of one size.
        rng: Key of the augmentations.

    Returns:
        `gain`: mean cos(view, prediction) - cos(view, plain image), > 0 if the
        prediction is closer. `ratio`: mean (1 - cos(view, plain)) / (1 - cos(view,
        prediction)).

    Raises:
        ValueError: If the regularizer is not EquiMod.

    Reference:
        EquiMod (arXiv 2211.01244), absolute and relative equivariance measures.
    """
    regularizer = learner.regularizer
    if not isinstance(regularizer, EquiMod):
        raise ValueError(
            "only a run with regularizer.name = 'equimod' has a predictor to measure; "
            f"this one's is {type(regularizer).__name__}."
        )
    plain = regularizer.views(learner.objective.views)
    names = (*GLOBAL_VIEWS, *(spec.name for spec in plain))
    heads = regularizer.make_heads()

    @jax.jit
    def measures(variables: Variables, batch: Batch, rng: jax.Array):
        views = learner.make_views(rng, batch, jnp.zeros((), jnp.int32))
        encoder = variables.encoder(target=False)
        features = {
            name: learner.encoder.apply(encoder, views[name].images) for name in names
        }
        outputs: Any = heads.apply(
            {
                "params": variables.params["regularizer"],
                "batch_stats": variables.batch_stats["student"]["regularizer"],
            },
            features,
            {},
            views,
            False,
        )
        return equivariance_measures(outputs)

    found = [
        jax.device_get(measures(variables, batch, jax.random.fold_in(rng, number)))
        for number, batch in enumerate(batches)
    ]
    return {
        name: float(np.mean([of[f"equimod_{name}"] for of in found]))
        for name in ("gain", "ratio")
    }


def _obstacle(subject: Subject, options: Any) -> str | None:
    """The measures are of a predictor, which reads the online encoder."""
    if not isinstance(subject, TrainedRun):
        return no_run(subject, options)
    if not isinstance(subject.experiment.learner.regularizer, EquiMod):
        return "only runs with EquiMod have a predictor to measure."
    if subject.encoder_name != "online":
        return "EquiMod's predictor reads the online encoder: --encoder=online."
    return no_images(subject, options)


def _measure(subject: Subject, options: Any) -> dict[str, Any]:
    """Gain and ratio on augmented images of the evaluation split."""
    del options
    assert isinstance(subject, TrainedRun)
    experiment, source = subject.experiment, subject.data.images
    num_images = min(subject.num_pictures, len(source))
    num_batches = -(-num_images // _BATCH_SIZE)
    loader = train_loader(
        source,
        RandomCrops(experiment.crops, experiment.pair_seed),
        batch_size=num_images // num_batches,
        seed=subject.seed,
        num_threads=subject.num_threads,
        prefetch_batches=1,
    )
    batches = (
        {key: batch[key] for key in ("crops", "crop_params")}
        for batch in itertools.islice(loader, num_batches)
    )
    try:
        return equimod_scores(
            experiment.learner, _load(subject), batches, experiment.step_rng
        )
    finally:
        loader.close()


def _load(run: TrainedRun) -> Variables:
    """The online encoder and its predictor."""
    init_state, rng = run.experiment.init_state, run.experiment.init_rng
    shapes = jax.eval_shape(init_state, rng).variables
    parts = ("encoder", "regularizer")
    stats = shapes.batch_stats["student"]
    return Variables(
        params={
            name: run.load(f"params/{name}", shapes.params[name]) for name in parts
        },
        target_params={},
        batch_stats={
            "student": {
                name: run.load(f"batch_stats/student/{name}", stats[name])
                for name in parts
            }
        },
        method_state={},
    )


TASK = Task(
    name="equimod",
    section="Equivariance",
    caption="EquiMod's predictor against none.",
    measure=_measure,
    obstacle=_obstacle,
    optional=True,
)
