"""Every config builds and trains two tiny steps; the paper's lowers for TPU, GPU."""

import json
import pathlib
import runpy

import jax
import pytest
from helpers.support import narrow, trace_loss, trace_start, train_two_steps
from ml_collections import ConfigDict

from ser_jax.config.defaults import base_config, finalize
from ser_jax.config.differences import differences, flatten
from ser_jax.config.presets import PRESETS
from ser_jax.methods.objectives import OBJECTIVES
from ser_jax.methods.regularizers import REGULARIZERS
from ser_jax.models import variants
from ser_jax.train import sharding
from ser_jax.train.experiment import build
from ser_jax.train.step import make_train_step

ROOT = pathlib.Path(__file__).parents[2]
FILES = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
NUM_EXAMPLES = {
    "digits": 1500,
    "cifar10": 50_000,
    "imagenet2012": 1_281_167,
}


def load(name):
    """The config of "file" or "file:preset", as on the command line."""
    file, _, preset = name.partition(":")
    get_config = runpy.run_path(str(ROOT / "configs" / f"{file}.py"))["get_config"]
    return get_config(preset) if preset else get_config()


def takes_base(file):
    return file in ("digits", "cifar10", "cifar10_small", "cifar10_resnet18")


def every_name():
    """Each file as it is; each with each preset it takes."""
    for file in FILES:
        yield file
        if takes_base(file):  # every base, and every preset on one of them
            yield from (f"{file}:{base}" for base in OBJECTIVES)
            yield from (f"{file}:simclr/{p}" for p in PRESETS)
        elif file in OBJECTIVES:
            yield from (f"{file}:{p}" for p in PRESETS)
    yield "dino:multicrop"


def shrink(config):
    """The same experiment with a small model, picture and batch."""
    split = config.regularizer.get("invariance") == "split"
    config.batch_size = 16 if split else 8  # b2 is half of it, or 8
    config.augment.image_size = 16
    config.augment.local_size = 8
    if config.regularizer.name != "augself":  # it needs colours to tell apart
        config.augment.recipe = "plain"
    resnet = "resnet" in config.model.variant
    if not resnet:
        config.model.update(variant="Ti/4", depth=2, num_heads=2)
        # Only what is early and what is late is kept of the layers.
        narrow(
            config.regularizer, layers=(1, 2) * bool(config.regularizer.get("layers"))
        )
        if config.regularizer.get("layer"):
            config.regularizer.layer = 1 if config.regularizer.layer <= 3 else 2
    config.model.width = 8 if resnet else 16
    config.model.small_images = resnet
    narrow(config.objective, hidden_dim=16, output_dim=8, bottleneck_dim=8)
    narrow(config.objective, num_local=min(config.objective.get("num_local", 0), 2))
    narrow(
        config.regularizer,
        projector_dim=8,
        hidden_dim=8,
        output_dim=8,
        bottleneck_dim=8,
        trans_dim=8,
    )
    return config


@pytest.fixture
def short_resnets(monkeypatch):
    """One block a stage: they compile in a quarter of the time."""
    for name, (_, block) in variants.RESNETS.items():
        monkeypatch.setitem(variants.RESNETS, name, ((1, 1, 1, 1), block))


def distinct(names):
    """Of configs that are one when shrunk, the first."""
    found = {}
    for name in names:
        found.setdefault(shrink(load(name)).to_json(), name)
    return list(found.values())


ON_RESNETS = [f"cifar10_resnet18:{p}" for p in ("byol/ser", "dino/essl_decoupled")]
# They differ from a preset that is trained in a number, a layer or a part of the group.
OF_ONE_SETTING = {
    *(f"moco_v3:{name}_decoupled" for name in ("equimod", "augself", "essl", "stl")),
    *("moco_v3:ser_lambda0", "moco_v3:ser_layer9", "moco_v3:ser_last_layer"),
    *("moco_v3:ser_opposite", "moco_v3:ser_forward", "moco_v3:ser_bilinear"),
    *("moco_v3:ser_nearest", "moco_v3:ser_rotations", "moco_v3:ser_flips"),
    *("moco_v3:ser_scale", "moco_v3:ser_share10", "moco_v3:ser_ascend"),
    *("moco_v3:ser_descend", "moco_v3:ser_weight_ascend", "moco_v3:ser_d4"),
    *(f"moco_v3:{name}_release" for name in ("ser_2plus4", "augself", "stl")),
    *("moco_v3:augself_rotation", "moco_v3:ser_release_parity"),
    "digits_ser",  # it is trained by the first command of README
}
# What methods/ or train/ trains or differentiates, with others or in other pairs.
IN_OTHER_TESTS = {
    *("moco_v3_ser", "moco_v3:2plus4", "moco_v3:ser_all_layers"),
    *("dino_ser", "barlow_twins_ser", "moco_v3:ser_paper"),
    *("moco_v3", "dino", "barlow_twins", "simclr", "byol", "digits", "cifar10"),
    *(f"moco_v3:{name}" for name in ("equimod", "augself", "essl", "stl")),
    *("cifar10_resnet18", "cifar10_resnet18:dino/essl_decoupled"),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    distinct(
        [*FILES, "dino:multicrop", *(f"moco_v3:{p}" for p in PRESETS), *ON_RESNETS]
    ),
)
def test_config_trains_two_tiny_steps(name, short_resnets, release):
    """All of them for a release, else a sample; of the others the loss is traced."""
    experiment = build(shrink(load(name)), 400)
    if release or name not in OF_ONE_SETTING | IN_OTHER_TESTS:
        train_two_steps(experiment)
    elif name in OF_ONE_SETTING:
        assert trace_start(experiment)
    else:
        assert trace_loss(experiment)


def test_every_config_takes_every_preset_or_says_why_not():
    for name in every_name():
        try:
            config = load(name)
        except ValueError as error:
            assert "ser_layer9" in name and "layer 9; this encoder has" in str(error)
            continue
        build(config, NUM_EXAMPLES[config.dataset.name])


def test_unknown_preset_is_refused_with_a_suggestion():
    with pytest.raises(ValueError, match="Did you mean 'equimod'"):
        load("moco_v3:equimodd")
    with pytest.raises(ValueError, match="did you mean 'dino'"):
        load("digits:dinoo/ser")


@pytest.mark.parametrize("file", FILES)
def test_resolved_configs_are_the_recorded_ones(file):
    """Any change of any hyper-parameter shows here and in the diff of the record.

    Write the records anew with `PYTHONPATH=tests python tests/config/test_configs.py`.
    """
    path = ROOT / "tests" / "config" / "resolved_configs" / f"{file}.json"
    assert json.loads(path.read_text()) == resolved(file)


def resolved(file):
    """The file's config in full; of its presets, what they change."""
    plain = _flat_resolved(file)
    record = {"config": plain, "presets": {}}
    for name in every_name():
        if not name.startswith(f"{file}:"):
            continue
        try:
            values = _flat_resolved(name)
        except ValueError:
            continue
        record["presets"][name.partition(":")[2]] = {
            key: values.get(key, "(absent)")
            for key in sorted(values.keys() | plain.keys())
            if values.get(key, "(absent)") != plain.get(key, "(absent)")
        }
    return json.loads(json.dumps(record))


def _flat_resolved(name):
    config = load(name)
    numbers = finalize(config, NUM_EXAMPLES[config.dataset.name])
    return flatten({"resolved": vars(numbers)} | config.to_dict())


@pytest.fixture(scope="module")
def the_papers_step():
    """Traced for eight devices."""
    experiment = build(load("moco_v3_ser"), NUM_EXAMPLES["imagenet2012"])
    assert experiment.batch_size == 2048
    mesh = sharding.make_mesh()
    assert mesh.size == 8
    state_sharding = sharding.replicated(mesh)
    step = make_train_step(
        experiment.learner,
        experiment.optimizer,
        experiment.learning_rate,
        experiment.step_rng,
    )
    jitted = jax.jit(
        step,
        in_shardings=(state_sharding, sharding.batch_sharded(mesh)),
        out_shardings=(state_sharding, state_sharding),
        donate_argnums=0,
    )
    state = jax.eval_shape(experiment.init_state, experiment.init_rng)
    return jitted.trace(state, experiment.abstract_batch())


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_the_paper_step_lowers_for_accelerators(the_papers_step, platform):
    text = the_papers_step.lower(lowering_platforms=(platform,)).as_text()
    assert "2048x224x224x3xui8" in text and "bf16" in text


def test_names_and_settings_are_checked_with_a_suggestion():
    with pytest.raises(ValueError, match="did you mean 'moco_v3'"):
        base_config(objective="moco_v4")
    with pytest.raises(
        ValueError, match="there are: augself, equimod, essl, none, ser"
    ):
        base_config(regularizer="equimod2")
    config = base_config("moco_v3", "ser")
    for part, typo in (
        (config, "batchsize"),
        (config.optimizer, "weight_decai"),
        (config.regularizer, "wieght"),
    ):
        with pytest.raises(AttributeError, match="Did you mean"):
            setattr(part, typo, 2.0)
    config.regularizer = ConfigDict({"name": "ser", "wieght": 2.0})  # as from a file
    with pytest.raises(ValueError, match="did you mean 'weight'"):
        build(config, 10_000)


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("batch_size", 0, "batch_size"),
        ("total_epochs", 0.0, "total_epochs"),
        ("max_steps", -1, "max_steps"),
        ("optimizer.lr_reference_batch", 0, "lr_reference_batch"),
        ("checkpoint.every_steps", 0, "every_steps"),
        ("loader.timeout_s", 0.0, "timeout_s"),
        ("knn.every_epochs", -1.0, "every_epochs"),
        ("knn.every_epochs", float("inf"), "every_epochs must be finite, got inf"),
        ("augment.crop_scale", (0.2, float("nan")), "crop_scale must be finite"),
        ("model.dtype", "bf16", "dtype"),
        ("model.num_heads", -1, "num_heads must be at least 0, got -1"),
        ("model.drop_path_rate", 1.0, "drop_path_rate must be at least 0 and below 1"),
        ("optimizer.base_lr", -1e-3, "base_lr must be at least 0"),
        ("optimizer.end_lr", None, "end_lr must have a value, got None; it is 0.0"),
        ("optimizer.weight_decay", -0.1, "weight_decay must be at least 0"),
        ("optimizer.end_weight_decay", -0.1, "end_weight_decay must be at least 0"),
        ("regularizer.share", None, "share must have a value, got None; it is 0."),
        ("model.variant", None, "variant must have a value"),
        ("optimizer.accumulate_steps", 0, "accumulate_steps must be at least 1, got 0"),
        ("optimizer.warmup_epochs", 100.0, "shorter than total_epochs"),
        ("augment.image_size", 225, "patch_size"),
        ("regularizer.layer", 13, "1..depth"),
        ("regularizer.temperature", 0.0, "temperature"),
        ("regularizer.share", 0.7, "share"),
        ("regularizer.negatives", "all", "negatives"),
        ("regularizer.equiv_grad", "key", "equiv_grad"),
        ("regularizer.sampling", "same", "sampling"),
        ("regularizer.projector_dim", 0, "projector_dim"),
        ("augment.crop_scale", (0.5,), "scale"),
        ("model.small_images", True, "stem of a ResNet"),
        ("optimizer.lars_form", "outer", "adamw has no lars_form"),
        ("augment.recipe", "moco", "recipe"),
        ("model.variant", "S16", "variant"),
    ],
)
def test_bad_values_are_refused(key, value, message):
    config = base_config("moco_v3", "ser")
    config.update_from_flattened_dict({key: value})
    with pytest.raises(ValueError, match=message):
        build(config, 10_000)


def test_a_resnet_refuses_what_only_a_vit_has():
    config = load("cifar10_resnet18")
    config.model.update(remat=True, depth=3)
    with pytest.raises(ValueError, match="no ViT: set model.depth, model.remat to 0"):
        build(config, 10_000)


def test_a_batch_with_statistics_in_the_encoder_is_not_accumulated():
    config = load("cifar10_resnet18")
    config.optimizer.accumulate_steps = 2
    with pytest.raises(ValueError, match="resnet18 has BatchNorm.* Set it to 1"):
        build(config, 10_000)


@pytest.mark.parametrize("steps", [2.5, "2", True])
def test_steps_are_accumulated_in_whole_numbers(steps):
    record = base_config().to_dict()
    record["optimizer"]["accumulate_steps"] = steps
    with pytest.raises(ValueError, match="accumulate_steps must be a whole number"):
        build(record, 10_000)


def test_peak_learning_rate_scales_with_the_batch():
    config = base_config()
    config.batch_size, config.optimizer.base_lr = 2048, 3e-4
    assert finalize(config, 1_281_167).peak_lr == pytest.approx(2.4e-3)


def test_differences_name_what_matters_and_only_that():
    old = base_config("moco_v3", "ser").to_dict()
    new = base_config("moco_v3", "ser")
    new.objective.temperature = 0.3
    new.model.scan = False
    new.dataset.data_dir = "/elsewhere"
    new.max_steps = 5
    assert differences(old, new.to_dict()) == ["objective.temperature: 0.2 -> 0.3"]


def test_registries_hold_what_their_keys_say():
    for registry in (OBJECTIVES, REGULARIZERS):
        for cls in registry.values():
            cls()  # every setting has a default


if __name__ == "__main__":
    for name in FILES:
        path = ROOT / "tests" / "config" / "resolved_configs" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(resolved(name), indent=1) + "\n")
