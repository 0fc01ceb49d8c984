"""Weights that a run's encoder starts from: they fit its config, or it is refused."""

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from ser_jax.interop import identity
from ser_jax.interop.answers import Given, Normalization
from ser_jax.interop.imported import Imported, at_image_size, import_weights
from ser_jax.models.outputs import Encoder
from ser_jax.models.pos_embed import sincos_table
from ser_jax.models.resnet import ResNet
from ser_jax.models.variants import RESNETS, VARIANTS, VIT_ONLY
from ser_jax.models.vit import ViT
from ser_jax.storage.files import PathLike, as_path
from ser_jax.storage.reader import SavedState, find_checkpoint, list_steps
from ser_jax.train.experiment import build, encoder_of
from ser_jax.train.saved import load_encoder
from ser_jax.train.sharding import make_mesh

_POSITIONS = ("pos_embed", "cls_pos_embed")
_ALIKE = 1e-3  # means and deviations that are one, rounded
_SMALLEST = "Ti"  # variant whose numbers stand for those of a ViT without a name

_logger = logging.getLogger(__name__)

Settings = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class StartWeights:
    """What an encoder starts from.

    Attributes:
        variables: {"params"}, and "batch_stats" of a ResNet: name -> host arrays,
            float32, of all that the encoder has but norms that a regularizer reads.
        about: For the run's record: which file it was, and what was assumed of it.
    """

    variables: Mapping[str, Mapping[str, Any]]
    about: dict[str, Any]


def start_weights(config: Mapping[str, Any], workdir: PathLike) -> StartWeights | None:
    """The weights that `init` of a config names.

    Args:
        config: The experiment, as plain dicts.
        workdir: Of the run. If it has a checkpoint the run goes on from there, and the
            file is not read: it may be gone.

    Returns:
        The weights; None if there is nothing to read.

    Raises:
        ValueError: If the file is refused, or its encoder is not the one that the
            config describes, naming the flags that make it so.
        OSError: If it is not there or cannot be read.
    """
    if not config.get("init") or list_steps(as_path(workdir) / "checkpoints"):
        return None
    encoder, settings = encoder_of(config)
    path = as_path(settings["init"])
    mean, std = (tuple(settings["dataset"][name]) for name in ("mean", "std"))
    if any((path / name).is_dir() for name in ("checkpoints", "meta")):
        imported = _of_run(path)
    else:
        imported = import_weights(path, otherwise=_otherwise(encoder, (mean, std)))
        imported = _with_the_users_heads(imported, settings["model"])
    _refuse_others(imported, encoder, settings)
    start = _taken(_at(imported, encoder.image_size), encoder, str(path))
    _logger.info(
        "The encoder starts from %s\n%s\nanew        %s",
        *(path, imported.describe(), ", ".join(start.about["anew"]) or "nothing"),
    )
    _warn_of_normalization(imported, mean, std)
    return start


def _of_run(path: epath.Path) -> Imported:
    """The encoder that an earlier run is evaluated by."""
    is_checkpoint = (path / "meta").is_dir()
    at = path if is_checkpoint else find_checkpoint(path / "checkpoints")
    saved = SavedState.at(at)
    meta = saved.record.meta
    experiment = build(meta["config"], meta["data"]["num_examples"])
    target = experiment.evaluates_target
    module: Any = experiment.learner.encoder
    variables = jax.device_get(load_encoder(saved, experiment, target, make_mesh()))
    normalization = experiment.mean, experiment.std
    return Imported(
        module,
        variables,
        *normalization,
        layout="run",
        role="target" if target else "online",
        roles=(),
        given={"step": f"{meta['step']}, {at}"},
        guessed={},
        asked={},
        ignored=(),
        is_sincos=isinstance(module, ViT) and module.pos_embed == "sincos",
        sha256=identity.sha256(identity.settings(module), variables, *normalization),
        digest=identity.digest(module, variables, *normalization),
    )


def _otherwise(encoder: Encoder, normalization: Normalization) -> Given:
    """What holds where a file says nothing: the config."""
    if not isinstance(encoder, ViT):
        return Given(normalize=normalization)
    return Given(
        num_heads=encoder.num_heads,
        cls_insert=encoder.cls_insert,
        norm_eps=encoder.norm_eps,
        positions=encoder.resample,
        normalize=normalization,
    )


def _with_the_users_heads(imported: Imported, model: Settings) -> Imported:
    """The same with the config's number of heads if the file's is a mere guess."""
    module, heads = imported.module, model["num_heads"]
    if "num_heads" not in imported.guessed or not heads or module.width % heads:
        return imported
    guessed = {**imported.guessed, "num_heads": f"{heads}, model.num_heads"}
    return dataclasses.replace(
        imported, module=module.clone(num_heads=heads), guessed=guessed
    )


def _refuse_others(imported: Imported, encoder: Encoder, settings: Settings) -> None:
    """Raises if the file's encoder is not the config's, with all that differs."""
    module, model = imported.module, settings["model"]
    wanted, without = (
        _of_vit(imported, encoder, model)
        if isinstance(module, ViT)
        else _of_resnet(module, model)
    )
    rows = [
        f"--config.model.{name}={value}  ({model[name]} now)"
        for name, value in wanted.items()
        if value != model[name]
    ]
    if isinstance(module, ViT):
        own = settings["regularizer"].get("cls_layer")
        now = encoder.cls_insert if isinstance(encoder, ViT) else own or 0
        there = module.cls_insert
        if now != there and own is not None:
            rows.append(f"--config.regularizer.cls_layer={there}  ({now} now)")
        elif now != there:
            without.append(
                f"its class token joins after block {there}, which only ser has: take "
                "a preset of it"
            )
    if not rows and not without:
        return
    name = as_path(settings["init"]).name
    lines = [f"{name} holds another encoder than the config describes."]
    if rows:
        lines += ["These flags make it the same:", *(f"  {row}" for row in rows)]
    if without:
        lines += ["No setting does for this:", *(f"  {text}" for text in without)]
    raise ValueError("\n".join(lines))


def _of_vit(
    imported: Imported, encoder: Encoder, model: Settings
) -> tuple[dict[str, Any], list[str]]:
    """Settings of the model that describe a ViT; what none describes."""
    module, size = imported.module, model["variant"].partition("/")[0]
    sizes = {name: getattr(module, name) for name in ("width", "depth", "num_heads")}
    width, depth = module.width, module.depth
    if not isinstance(encoder, ViT) or (encoder.width, encoder.depth) != (width, depth):
        named = (x for x, its in VARIANTS.items() if its[:2] == (width, depth))
        size = next(named, size if size in VARIANTS else _SMALLEST)
    wanted = {"variant": f"{size}/{module.patch_size}", "small_images": False}
    for (name, value), own in zip(sizes.items(), VARIANTS[size], strict=True):
        same = (model[name] or own) == value
        wanted[name] = model[name] if same else value
    wanted |= {"norm_eps": module.norm_eps, "resample": module.resample}
    if model["pos_embed"] == "sincos" and not imported.is_sincos:
        wanted["pos_embed"] = "learned"
    hidden, ours = int(module.mlp_ratio * width), int(ViT.mlp_ratio * width)
    if hidden == ours:
        return wanted, []
    return wanted, [f"its MLPs have {hidden} hidden units, not {ours}"]


def _of_resnet(module: ResNet, model: Settings) -> tuple[dict[str, Any], list[str]]:
    """The same for a ResNet."""
    wanted: dict[str, Any] = {"small_images": module.small_images}
    without: list[str] = []
    for name in VIT_ONLY:
        off = "auto" if name in ("attention", "remat") else type(model[name])()
        wanted[name] = model[name] if model[name] in (0, "auto") else off
    if (model["width"] or 64) != module.num_filters:
        wanted["width"] = module.num_filters
    blocks = tuple(module.stage_sizes), module.block
    found = next((x for x, its in RESNETS.items() if its == blocks), None)
    if found is None:
        sizes = "-".join(map(str, blocks[0]))
        without.append(f"it is a ResNet of {module.block} blocks {sizes}")
    else:
        wanted["variant"] = found
    if module.stem_padding is not None:
        without.append(f"its stem pads pictures by {module.stem_padding}")
    return wanted, without


def _at(imported: Imported, image_size: int) -> Imported:
    """The same for the run's images."""
    old = imported.module.image_size
    said = {k: v for k, v in imported.guessed.items() if k != "image_size"}
    imported = dataclasses.replace(imported, guessed=said)
    if image_size == old or isinstance(imported.module, ResNet):
        return imported
    given = {**imported.given, "image_size": f"{image_size}, positions were of {old}"}
    return dataclasses.replace(at_image_size(imported, image_size), given=given)


def _taken(imported: Imported, encoder: Encoder, path: str) -> StartWeights:
    """What of the weights is the encoder's, and what is said of them."""
    found = {kind: dict(tree) for kind, tree in imported.variables.items()}
    if isinstance(encoder, ViT) and "pos_embed" not in found["params"]:  # fixed so far
        side = encoder.image_size // encoder.patch_size
        zero = np.zeros_like(found["params"]["cls_token"])
        table = sincos_table(side, encoder.width)
        found["params"] |= dict(zip(_POSITIONS, (table, zero), strict=True))
    images = jnp.zeros((1, encoder.image_size, encoder.image_size, 3))
    shapes = jax.eval_shape(encoder.init, jax.random.key(0), images)
    variables = {
        kind: {name: found[kind][name] for name in tree if name in found[kind]}
        for kind, tree in shapes.items()
    }
    names, there = set(shapes["params"]), set(found["params"]) - set(_POSITIONS)
    about = {
        "file": path,
        "sha256": imported.sha256,
        "layout": imported.layout,
        "encoder": imported.role,
        "given": dict(imported.given),
        "guessed": dict(imported.guessed),
        "anew": sorted(names - set(variables["params"])),
        "left_out": sorted(there - names),
    }
    return StartWeights(variables, about)


def _warn_of_normalization(imported: Imported, mean: Any, std: Any) -> None:
    its = imported.mean or mean, imported.std or std
    if np.allclose(its, (mean, std), atol=_ALIKE):
        return
    _logger.warning(
        "These weights are of pictures normalised by mean %s and deviation %s; this "
        "run's are by %s and %s. For the weights' own: --config.dataset.mean='%s' "
        "--config.dataset.std='%s'.",
        *(*its, mean, std, *its),
    )
