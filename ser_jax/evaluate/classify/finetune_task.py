"""The task that trains the encoder further, on labels."""

import dataclasses
from typing import Any

import jax

from ser_jax.data.host_transforms import RandomCrops
from ser_jax.data.loader import train_loader
from ser_jax.evaluate.classify.classifier import checked_logits
from ser_jax.evaluate.classify.finetune import FinetuneSettings
from ser_jax.evaluate.classify.finetune import finetune as train_further
from ser_jax.evaluate.classify.heads import logit_accuracy
from ser_jax.evaluate.run import TrainedRun
from ser_jax.evaluate.task import Options
from ser_jax.train.progress import Progress

_BASE_LR = 5e-4  # for 256 images
_WARMUP_FRAC = 0.1


def finetune(run: TrainedRun, options: Options) -> dict[str, Any]:
    """Top-1 and top-5 after training encoder and head together on the train split.

    Pictures are cropped and flipped as in pretraining, and not changed in colour.

    Args:
        run: The run; its checkpoint stays as it is.
        options: `finetune_epochs`.

    Returns:
        "top1", "top5", "loss_last", and the settings.
    """
    experiment, source = run.experiment, run.data.train
    config, batch_size = experiment.config, run.batch_size
    steps_per_epoch = max(1, len(source) // batch_size)
    total_steps = max(1, round(options.finetune_epochs * steps_per_epoch))
    settings = FinetuneSettings(
        total_steps=total_steps,
        warmup_steps=int(_WARMUP_FRAC * total_steps),
        learning_rate=_BASE_LR * batch_size / 256,
    )
    name = "picture"
    loader = train_loader(
        source,
        RandomCrops((dataclasses.replace(experiment.crops[0], name=name),)),
        batch_size=batch_size,
        seed=run.seed,
        num_threads=config.loader.num_threads,
        prefetch_batches=config.loader.prefetch_batches,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    progress = Progress(
        total_steps,
        0,
        batch_size,
        log_every_s=30,
        is_primary=jax.process_index() == 0,
    )
    losses = []

    def on_step(step: int, metrics: Any) -> None:
        progress.update(step, metrics)
        losses.append(metrics["loss"])

    try:
        variables, head = train_further(
            run.encoder,
            run.variables,
            ((batch["crops"][name], batch["label"]) for batch in loader),
            experiment.normalize,
            run.mesh,
            settings=settings,
            num_classes=run.data.num_classes,
            seed=run.seed,
            on_step=on_step,
        )
    finally:
        loader.close()
    classify = run.classifier(head, "cls1", variables)
    top1, top5 = logit_accuracy(
        *checked_logits(classify, run.data.held_out, run.transform)
    )
    return {
        "top1": top1,
        "top5": top5,
        "loss_last": losses[-1],
        "epochs": options.finetune_epochs,
    } | dataclasses.asdict(settings)
