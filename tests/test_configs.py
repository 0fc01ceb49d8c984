"""Every config builds and trains two tiny steps; the paper's lowers for TPU, GPU."""

import importlib.util
import json
import pathlib

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from support import real_batch

from ser_jax import sharding
from ser_jax.config import base_config, differences, finalize
from ser_jax.equivariance.registry import REGULARIZERS
from ser_jax.experiment import build
from ser_jax.objectives import OBJECTIVES
from ser_jax.train_step import make_train_step

ROOT = pathlib.Path(__file__).parents[1]
CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


def shrink(config):
    """The same experiment with a small model, picture and batch."""
    config.batch_size = 8
    config.augment.image_size = 16
    patch = config.model.variant.split("/")[1]
    patch = min(int(patch), 4)
    config.model.update(variant=f"Ti/{patch}", width=16, depth=2, num_heads=2)
    config.objective.update(hidden_dim=16, output_dim=8)
    if config.regularizer.name == "ser":
        config.regularizer.update(layer=1, projector_dim=8)
    return config


@pytest.mark.parametrize("name", CONFIGS)
def test_config_trains_two_tiny_steps(name):
    experiment = build(shrink(load(name)), 400)
    state = jax.jit(experiment.init_state)(experiment.init_rng)
    step = jax.jit(
        make_train_step(
            experiment.learner,
            experiment.optimizer,
            experiment.learning_rate,
            experiment.step_rng,
        )
    )
    for seed in range(2):
        state, metrics = step(state, real_batch(experiment, seed))
        assert all(np.isfinite(value) for value in metrics.values())
    assert int(state.step) == 2


@pytest.mark.parametrize("name", CONFIGS)
def test_resolved_config_is_the_recorded_one(name):
    """Any change of any hyper-parameter shows here and in the diff of the record.

    Write the records anew with `python tests/test_configs.py`.
    """
    path = ROOT / "tests" / "resolved_configs" / f"{name}.json"
    assert json.loads(path.read_text()) == resolved(name)


def resolved(name):
    config = load(name)
    sizes = {"digits": 1500, "cifar10": 50_000, "imagenet2012": 1_281_167}
    numbers = finalize(config, sizes[config.dataset.name])
    return json.loads(
        json.dumps({"resolved": vars(numbers), "config": config.to_dict()})
    )


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_the_paper_step_lowers_for_accelerators(platform):
    experiment = build(load("moco_v3_ser"), 1_281_167)
    assert experiment.config.batch_size == 2048
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
    traced = jitted.trace(state, experiment.abstract_batch())
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert "2048x224x224x3xui8" in text and "bf16" in text


def test_names_and_settings_are_checked_with_a_suggestion():
    with pytest.raises(ValueError, match="did you mean 'moco_v3'"):
        base_config(objective="moco_v4")
    with pytest.raises(ValueError, match="there are: none, ser"):
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
        ("knn.every_epochs", -1.0, "every_epochs"),
        ("model.dtype", "bf16", "dtype"),
        ("optimizer.warmup_epochs", 100.0, "shorter than total_epochs"),
        ("augment.image_size", 225, "patch_size"),
        ("regularizer.layer", 13, "1..depth"),
        ("regularizer.temperature", 0.0, "temperature"),
        ("regularizer.share", 0.7, "share"),
        ("regularizer.negatives", "all", "negatives"),
        ("regularizer.equiv_grad", "key", "equiv_grad"),
        ("regularizer.sampling", "same", "sampling"),
        ("augment.recipe", "moco", "recipe"),
        ("model.variant", "S16", "variant"),
    ],
)
def test_bad_values_are_refused(key, value, message):
    config = base_config("moco_v3", "ser")
    config.update_from_flattened_dict({key: value})
    with pytest.raises(ValueError, match=message):
        build(config, 10_000)


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


def test_release_parity_preset():
    config = base_config("moco_v3", "ser.release_parity")
    released = build(config, 10_000).learner.regularizer
    assert (released.equiv_grad, released.negatives, released.sampling) == (
        "none",
        "opposite",
        "release",
    )
    assert config.regularizer.name == "ser"


def test_registries_hold_what_their_keys_say():
    for registry in (OBJECTIVES, REGULARIZERS):
        for cls in registry.values():
            cls()  # every setting has a default


if __name__ == "__main__":
    for name in CONFIGS:
        path = ROOT / "tests" / "resolved_configs" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(resolved(name), indent=1) + "\n")
