"""Training from weights: they fit or the flags are named; a run needs them once."""

import json
import logging
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import made_up_weights, outgoing
from helpers.runs import final_state, save_made_up
from helpers.support import tiny_config, trace_loss

from ser_jax.interop.answers import Given
from ser_jax.interop.export.write import export
from ser_jax.interop.files.safetensors import write_safetensors
from ser_jax.interop.identity import settings
from ser_jax.interop.imported import at_image_size, import_weights
from ser_jax.methods.objectives import OBJECTIVES
from ser_jax.models import variants
from ser_jax.models.pos_embed import sincos_table
from ser_jax.models.resnet import ResNet
from ser_jax.storage.reader import read_meta
from ser_jax.train import loop, resume
from ser_jax.train.experiment import build, encoder_of
from ser_jax.train.sharding import make_mesh
from ser_jax.train.weights import start_weights

SMALL_RESNET = ResNet((1, 1, 1, 1), "basic", 64, num_filters=2, small_images=True)


@pytest.fixture
def file(tmp_path):
    """A ViT of tiny_config's sizes for pictures of 8 px: positions are 2 x 2."""
    path = tmp_path / "dino.safetensors"
    write_safetensors(path, made_up_weights.vit(width=16, side=2, hidden=64), {})
    return path


@pytest.fixture
def short_resnet(monkeypatch):
    monkeypatch.setitem(variants.RESNETS, "resnet18", ((1, 1, 1, 1), "basic"))


def fitting(config, file):
    """The config with what the file asks for."""
    config.init, config.model.pos_embed = str(file), "learned"
    if "cls_layer" in config.regularizer:
        config.regularizer.cls_layer = 0
    return config


def exported(module, folder):
    numbers = outgoing.variables(module), outgoing.MEAN, outgoing.STD
    export(module, *numbers, folder, to="safetensors", about=outgoing.ABOUT)
    return folder


def started(config):
    return start_weights(config.to_dict(), "none")


@pytest.mark.slow
def test_a_run_starts_from_the_file_and_needs_it_once(
    plain, file, tmp_path, monkeypatch
):
    """Red if a weight is drawn or another's, or a resumed run reads the file."""
    starts = []

    def restored(*args, restore=loop.restore_or_init):
        start = restore(*args)
        starts.append((start.step, jax.device_get(start.state.variables)))
        return start

    def step(state, batch):
        metrics = dict.fromkeys(("loss", "grad_norm"), jnp.zeros(()))
        return state.replace(step=state.step + 1), metrics

    monkeypatch.setattr(loop, "restore_or_init", restored)
    monkeypatch.setattr(loop, "compile_train_step", lambda *_: step)
    monkeypatch.setattr(loop, "account", lambda _: {})
    config, workdir = fitting(plain, file), tmp_path / "run"
    config.max_steps = 1
    summary = loop.train(config, workdir)
    given = Given(num_heads=2, positions="dino")
    resized = at_image_size(import_weights(file, given), 16)
    assert settings(encoder_of(config)[0]) == settings(resized.module)
    for target in (False, True):
        params = starts[0][1].encoder(target)["params"]
        jax.tree.map(np.testing.assert_array_equal, params, resized.variables["params"])
    about = read_meta(workdir / "checkpoints")["init"]
    assert about["file"] == str(file) and about["sha256"] == resized.sha256
    assert about["guessed"]["num_heads"].startswith("2, ")
    assert about["given"]["image_size"] == "16, positions were of 8"
    assert summary["init"] == about

    file.unlink()
    config.max_steps = 2
    again = loop.train(config, workdir)
    assert starts[1][0] == 1 and again["init"] == about
    assert read_meta(workdir / "checkpoints")["init"] == about
    assert json.loads((workdir / "summary.json").read_text())["init"] == about
    config.init = ""
    with pytest.raises(ValueError, match=r"init: '.*dino.safetensors' -> ''"):
        loop.train(config, workdir)


@pytest.mark.slow
def test_statistics_of_a_resnet_start_from_the_file_on_any_devices(
    tmp_path, short_resnet, monkeypatch
):
    """Of the teacher, too."""
    config = tiny_config("dino", "none", **{"augment.image_size": 16})
    config.model.update(variant="resnet18", width=2, depth=0, num_heads=0)
    config.model.update(small_images=True, freeze_patch_embed=False)
    config.init = str(exported(SMALL_RESNET, tmp_path / "weights"))
    weights, experiment = started(config), build(config, 64)

    class Empty:
        def read_meta(self):
            raise ValueError("there is none")

        def restore(self, _):
            return None

    def fresh(num_devices):
        mesh = make_mesh(jax.devices()[:num_devices])
        state = resume.restore_or_init(experiment, Empty(), None, mesh, weights).state
        return state.variables

    found = fresh(8)
    jax.tree.map(np.testing.assert_array_equal, found, fresh(1))
    expected = outgoing.variables(SMALL_RESNET)
    for target in (False, True):
        encoder = found.encoder(target)
        jax.tree.map(np.testing.assert_array_equal, encoder, expected)


@pytest.mark.parametrize(
    "objective",
    [
        x if x == "barlow_twins" else pytest.param(x, marks=pytest.mark.slow)
        for x in OBJECTIVES
    ],
)
def test_every_base_starts_with_the_shapes_of_a_drawn_one(objective, file):
    config = fitting(tiny_config(objective, "ser"), file)
    weights, experiment = started(config), build(config, 64)
    assert weights.about["anew"] == ["norm_grid_1"]
    init, rng = experiment.init_state, experiment.init_rng
    assert jax.eval_shape(init, rng, weights.variables) == jax.eval_shape(init, rng)


def test_ser_reads_an_early_grid_beside_a_class_token_from_the_input():
    experiment = build(tiny_config(**{"regularizer.cls_layer": 0}), 64)
    encoder = experiment.learner.encoder
    assert (encoder.cls_insert, encoder.grid_layers) == (0, (1,))
    assert trace_loss(experiment)
    with pytest.raises(ValueError, match="cls_layer counts blocks"):
        build(tiny_config(**{"regularizer.cls_layer": -2}), 64)


OTHERS = {
    "sizes": outgoing.vit(pos_embed="learned", norm_eps=1e-5, resample="timm"),
    "late": outgoing.vit(cls_insert=1, grid_layers=(1,), depth=3),
    "patches": outgoing.vit(width=16, num_heads=2, patch_size=8),
    "resnet": SMALL_RESNET,
}


@pytest.mark.parametrize("config", ["vit", "resnet"])
@pytest.mark.parametrize("name", OTHERS)
def test_the_flags_that_are_named_make_it_fit(
    name, config, tmp_path, short_resnet, monkeypatch
):
    """All that differs is said at once; sizes that have a name by their name."""
    monkeypatch.setitem(variants.VARIANTS, "S", (24, 2, 3))
    is_vit = config == "vit"
    config = tiny_config("simclr", "ser" if is_vit else "none")
    if not is_vit:
        config = tiny_config("simclr", "ser", **{"regularizer.layer": 1})
        config.model.update(variant="resnet18", width=4, depth=0, num_heads=0)
        config.model.update(small_images=False, freeze_patch_embed=False)
        config.augment.image_size = 64
    config.init = str(exported(OTHERS[name], tmp_path / "weights"))
    with pytest.raises(ValueError, match="another encoder than the config") as error:
        started(config)
    flags = re.findall(r"--config\.([\w.]+)=(\S+)  \(.* now\)", str(error.value))
    assert flags and "No setting" not in str(error.value)
    for path, value in flags:
        *parts, key = path.split(".")
        part = config[parts[0]]
        kind = type(part[key])
        part[key] = value == "True" if kind is bool else kind(value)
    if name == "sizes" and is_vit:
        assert dict(flags)["model.variant"] == "S/4"
        assert {"model.norm_eps", "model.resample"} <= dict(flags).keys()
    weights = started(config)
    assert weights.about["sha256"] and "params" in weights.variables


def test_what_no_setting_describes_is_said(tmp_path, short_resnet):
    config = tiny_config("simclr", "none")
    config.init = str(exported(outgoing.ENCODERS["stem_padding"], tmp_path / "a"))
    with pytest.raises(ValueError, match="stem pads pictures by 2") as error:
        started(config)
    assert "it is a ResNet of basic blocks 1-2" in str(error.value)
    late = outgoing.vit(width=16, num_heads=2, cls_insert=1, mlp_ratio=3.0)
    config.init = str(exported(late, tmp_path / "b"))
    with pytest.raises(
        ValueError, match="joins after block 1, which only ser"
    ) as error:
        started(config)
    assert "its MLPs have 48 hidden units, not 64" in str(error.value)


def test_nothing_is_opened_or_written_before_weights_are_refused(file, tmp_path):
    config = tiny_config("simclr", "none", **{"dataset.name": "not_there"})
    config.init = str(file)
    with pytest.raises(ValueError, match="--config.model.pos_embed=learned"):
        loop.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_an_earlier_run_gives_the_encoder_that_it_is_evaluated_by(data_dir, tmp_path):
    """Of DINO the teacher's; a workdir and a checkpoint are one to it."""
    config = tiny_config("dino", "none", **{"dataset.data_dir": data_dir})
    save_made_up(config, tmp_path / "run", step=3)
    state, _ = final_state(config, tmp_path / "run")
    config = tiny_config("byol", "ser", **{"regularizer.cls_layer": 0})
    for path in (tmp_path / "run", tmp_path / "run" / "checkpoints" / "3"):
        config.init = str(path)
        weights = started(config)
        expected = state.variables.target_params["encoder"]
        assert weights.variables["params"].keys() == expected.keys()
        jax.tree.map(
            np.testing.assert_array_equal, weights.variables["params"], expected
        )
        about = weights.about
        assert about["given"]["step"].startswith("3, ") and about["sha256"]
        assert (about["encoder"], about["anew"]) == ("target", ["norm_grid_1"])
    config.regularizer.cls_layer = 1
    with pytest.raises(ValueError, match="regularizer.cls_layer=0"):
        started(config)


def test_a_guess_gives_way_to_the_config_and_knowledge_does_not(tmp_path):
    """Heads of width 192 are 3 by custom alone."""
    arrays = made_up_weights.vit(192, depth=1, hidden=768, patch=4)
    config = fitting(tiny_config("simclr", "none"), tmp_path / "a.safetensors")
    write_safetensors(tmp_path / "a.safetensors", arrays, {})
    config.model.update(variant="S/4", width=192, depth=1, num_heads=0)
    with pytest.raises(ValueError, match=r"model.num_heads=3  \(0 now\)"):
        started(config)
    config.model.num_heads = 12
    assert started(config).about["guessed"]["num_heads"] == "12, model.num_heads"
    module = outgoing.vit(pos_embed="learned")
    config.init = str(exported(module, tmp_path / "own"))
    config.model.update(variant="Ti/4", width=24, depth=2, num_heads=12)
    with pytest.raises(ValueError, match=r"model.num_heads=3  \(12 now\)"):
        started(config)


def test_fixed_positions_may_be_learnt_on_and_the_norm_of_a_grid_is_kept(
    tmp_path, caplog
):
    late = outgoing.vit(width=16, num_heads=2, cls_insert=1, grid_layers=(1,))
    config = tiny_config(**{"init": str(exported(late, tmp_path / "late"))})
    caplog.set_level(logging.INFO, "ser_jax")
    weights = started(config)
    assert weights.about["anew"] == [] and "anew        nothing" in caplog.text
    assert "pos_embed" not in weights.variables["params"]
    assert "norm_grid_1" in weights.variables["params"]
    assert f"--config.dataset.mean='{outgoing.MEAN}'" in caplog.text
    early = outgoing.vit(width=16, num_heads=2)
    config = fitting(tiny_config(), exported(early, tmp_path / "early"))
    params = started(config).variables["params"]
    np.testing.assert_array_equal(params["pos_embed"], sincos_table(4, 16))
    assert not params["cls_pos_embed"].any()
    caplog.clear()
    config.dataset.mean, config.dataset.std = outgoing.MEAN, outgoing.STD
    started(config)
    assert "normalised" not in caplog.text
