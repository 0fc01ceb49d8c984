"""Fine-tuning: encoder and linear head trained together on labels."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from ser_jax.data.host_transforms import RandomCrops
from ser_jax.data.loader import train_loader
from ser_jax.evaluate.classify.classifier import checked_logits
from ser_jax.evaluate.classify.heads import Head, head_logits, logit_accuracy
from ser_jax.evaluate.options import option
from ser_jax.evaluate.run import TrainedRun
from ser_jax.evaluate.subject import Subject
from ser_jax.evaluate.task import Task, no_labels, no_run
from ser_jax.models.outputs import BLOCKS, FINAL_NORM, Encoder
from ser_jax.train.optim.optimizers import make_optimizer
from ser_jax.train.optim.schedules import warmup_cosine
from ser_jax.train.progress import Progress
from ser_jax.train.sharding import batch_sharded, replicated, shard_batch

_LAYER_DECAY = 0.65
_INIT_STD = 0.01  # of the head's kernel
_BASE_LR = 5e-4  # for 256 images
_WARMUP_FRAC = 0.1


@dataclasses.dataclass(frozen=True)
class FinetuneSettings:
    """How an encoder is fine-tuned: AdamW, cosine, smoothed labels.

    Attributes:
        total_steps: Optimizer steps, >= 1.
        warmup_steps: Of these, steps of linear warm-up.
        learning_rate: Peak learning rate of the head and, in a ViT, of what follows the
            last block; a block's is 0.65 of that of the block after it.
        weight_decay: AdamW's, not on biases and norms.
        label_smoothing: Share of a label spread over all classes.
        drop_path_rate: Stochastic depth of a ViT's last block.
    """

    total_steps: int
    warmup_steps: int
    learning_rate: float
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    drop_path_rate: float = 0.1


def finetune(
    encoder: Encoder,
    variables: Mapping[str, Any],
    batches: Iterable[tuple[Any, Any]],
    normalize: Callable[[jax.Array], jax.Array],
    mesh: Mesh,
    *,
    settings: FinetuneSettings,
    num_classes: int,
    seed: int,
    on_step: Callable[[int, Mapping[str, float]], None],
) -> tuple[dict[str, Any], Head]:
    """Trains encoder and head from pretrained weights.

    Args:
        encoder: The encoder.
        variables: Its pretrained variables, on every device; left as they are.
        batches: (images `[b, h, w, 3]` uint8, classes `[b]` int): this process's
            rows of `total_steps` batches or more.
        normalize: From uint8 images to what the encoder takes.
        mesh: The mesh.
        settings: How.
        num_classes: Number of classes.
        seed: Of the head's weights and of stochastic depth.
        on_step: Called after each step with its number and {"loss"}.

    Returns:
        The encoder's variables and the head on its class token.

    Raises:
        FloatingPointError: If the loss is not finite.

    Reference:
        Layer-wise decay and settings after BEiT (arXiv 2106.08254) and MAE (arXiv
        2111.06377), without mixup, CutMix and RandAugment: for comparing encoders, not
        for a record.
    """
    encoder = encoder.to_finetune(settings.drop_path_rate)
    optimizer = optax.chain(
        make_optimizer(
            "adamw",
            warmup_cosine(
                settings.learning_rate,
                warmup_steps=settings.warmup_steps,
                total_steps=settings.total_steps,
            ),
            weight_decay=settings.weight_decay,
            decay_mask="no_1d",
        ),
        optax.stateless(lambda updates, _: _slower_below(updates)),
    )

    init_rng, step_rng = jax.random.split(jax.random.key(seed))

    def init(variables):
        image = jnp.zeros((1, encoder.image_size, encoder.image_size, 3))
        width = jax.eval_shape(encoder.apply, variables, image).cls.shape[1]
        kernel = _INIT_STD * jax.random.normal(init_rng, (width, num_classes))
        head = Head(kernel, jnp.zeros(num_classes))
        params = {"encoder": variables["params"], "head": head}
        params = jax.tree.map(jnp.copy, params)  # the state is donated
        stats = jax.tree.map(jnp.copy, variables.get("batch_stats", {}))
        return params, stats, optimizer.init(params)

    def loss_fn(params, stats, images, labels, rng):
        out, updated = encoder.apply(
            {"params": params["encoder"], "batch_stats": stats},
            normalize(images),
            train=True,
            rngs={"drop_path": rng},
            mutable=["batch_stats"],
        )
        logits = head_logits(params["head"], out.cls)
        targets = optax.smooth_labels(
            jax.nn.one_hot(labels, num_classes), settings.label_smoothing
        )
        loss = optax.softmax_cross_entropy(logits, targets).mean()
        return loss, updated.get("batch_stats", {})

    def train_step(state, images, labels, step):
        params, stats, opt_state = state
        rng = jax.random.fold_in(step_rng, step)
        grad = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, stats), grads = grad(params, stats, images, labels, rng)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), stats, opt_state), loss

    everywhere, rows = replicated(mesh), batch_sharded(mesh)
    state = jax.jit(init, out_shardings=everywhere)(variables)
    jitted = jax.jit(
        train_step,
        in_shardings=(everywhere, rows, rows, None),
        out_shardings=everywhere,
        donate_argnums=0,
    )
    pending = None
    for step, batch in zip(range(settings.total_steps), batches, strict=False):
        images, labels = shard_batch(batch, mesh)
        state, loss = jitted(state, images, labels, step)
        # Fetching the last step's loss only now keeps the device busy.
        if pending is not None:
            _report(*pending, on_step)
        pending = (step + 1, loss)
    if pending is not None:
        _report(*pending, on_step)
    params, stats, _ = state
    return {"params": params["encoder"], "batch_stats": stats}, params["head"]


def _report(
    step: int, loss: jax.Array, on_step: Callable[[int, Mapping[str, float]], None]
) -> None:
    if not jnp.isfinite(loss):
        raise FloatingPointError(
            f"fine-tuning has diverged at step {step}: the loss is {float(loss)}."
        )
    on_step(step, {"loss": float(loss)})


def _slower_below(updates: Any) -> Any:
    """Updates of a ViT's blocks, and of what is before them, scaled down by depth."""
    blocks = updates["encoder"].get(BLOCKS)
    if blocks is None:
        return updates
    depth = jax.tree.leaves(blocks)[0].shape[0]
    factors = _LAYER_DECAY ** jnp.arange(depth, 0, -1)

    def scaled(path, update):
        name = path[0].key
        if name == FINAL_NORM:
            return update
        if name == BLOCKS:
            return update * factors.reshape(-1, *[1] * (update.ndim - 1))
        return update * _LAYER_DECAY ** (depth + 1)

    slower = jax.tree_util.tree_map_with_path(scaled, updates["encoder"])
    return updates | {"encoder": slower}


@dataclasses.dataclass(frozen=True)
class FinetuneOptions:
    """Of the task.

    Attributes:
        finetune_epochs: Passes over the training split.
    """

    finetune_epochs: float = option(20.0, "Epochs of the task finetune.", lower_bound=0)


def _measure(subject: Subject, options: FinetuneOptions) -> dict[str, Any]:
    """Top-1 and top-5 after training on the train split, and the settings.

    Images are cropped and flipped as in pretraining, and not changed in colour. The
    run's checkpoint stays as it is.
    """
    assert isinstance(subject, TrainedRun)
    encoder, source, batch_size = (
        subject.encoder,
        subject.data.train,
        subject.batch_size,
    )
    steps_per_epoch = max(1, len(source) // batch_size)
    total_steps = max(1, round(options.finetune_epochs * steps_per_epoch))
    settings = FinetuneSettings(
        total_steps=total_steps,
        warmup_steps=int(_WARMUP_FRAC * total_steps),
        learning_rate=_BASE_LR * batch_size / 256,
    )
    crop = dataclasses.replace(subject.experiment.crops[0], name="image")
    loader = train_loader(
        source,
        RandomCrops((crop,)),
        batch_size=batch_size,
        seed=subject.seed,
        num_threads=subject.num_threads,
        num_workers=subject.num_workers,
        prefetch_batches=subject.experiment.prefetch_batches,
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

    def on_step(step: int, metrics: Mapping[str, float]) -> None:
        progress.update(step, metrics)
        losses.append(metrics["loss"])

    try:
        variables, head = finetune(
            encoder.module,
            encoder.variables,
            map(_labelled, loader),
            encoder.normalize,
            subject.mesh,
            settings=settings,
            num_classes=subject.data.num_classes,
            seed=subject.seed,
            on_step=on_step,
        )
    finally:
        loader.close()
    classify = subject.classifier(head, "cls1", variables)
    held_out = checked_logits(classify, subject.data.held_out, subject.transform)
    top1, top5 = logit_accuracy(*held_out)
    return {
        "top1": top1,
        "top5": top5,
        "loss_last": losses[-1],
        "epochs": options.finetune_epochs,
    } | dataclasses.asdict(settings)


def _labelled(batch: Mapping[str, Any]) -> tuple[Any, Any]:
    """Images and classes of a batch; raises if one has none."""
    if batch["label"].min() < 0:
        raise ValueError(
            "the train split has images without a label; fine-tuning needs a class for "
            "each: see --train_split."
        )
    return batch["crops"]["image"], batch["label"]


TASK = Task(
    name="finetune",
    section="Accuracy",
    caption="The whole encoder, fine-tuned.",
    measure=_measure,
    obstacle=lambda *asked: no_run(*asked) or no_labels(*asked),
    options=FinetuneOptions,
    in_all=False,  # It trains a network: hours, where the others read one.
    better={"top1": "higher", "top5": "higher"},
    headline=("fine-tuned top-1", "top1"),
)
