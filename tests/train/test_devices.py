"""What "auto" becomes on devices that are not here."""

import types

import pytest
from helpers.support import tiny_config

from ser_jax.train.devices import for_devices
from ser_jax.train.experiment import build
from ser_jax.train.sharding import make_mesh


def mesh_of(platform, kind, num_devices, limit=None):
    stats = {"bytes_limit": limit} if limit else None
    device = types.SimpleNamespace(
        platform=platform, device_kind=kind, memory_stats=lambda: stats
    )
    flat = [device] * num_devices
    devices = types.SimpleNamespace(flat=flat)
    return types.SimpleNamespace(devices=devices, size=num_devices)


V5E = ("tpu", "TPU v5 lite")


def experiment(**overrides):
    """ViT-S/16 at 224 px and the paper's batch, with small heads."""
    config = tiny_config(
        **{
            **{"model.variant": "S/16", "model.width": 0, "model.depth": 0},
            **{"model.num_heads": 0, "model.dtype": "bfloat16"},
            **{"augment.image_size": 224, "augment.local_size": 96},
            **{"batch_size": 2048, "regularizer.share": 0.01},
            **overrides,
        }
    )
    return build(config, 1_281_167)


@pytest.mark.parametrize(
    ("mesh", "expected"),
    [
        (mesh_of(*V5E, 8), ("fused", "products", False)),
        (mesh_of(*V5E, 4), ("fused", "blocks", False)),
        (mesh_of(*V5E, 64), ("fused", "products", False)),
        (mesh_of("tpu", "TPU v5", 8), ("fused", "products", False)),
        (mesh_of("gpu", "NVIDIA H100", 8, 75e9), ("xla", "none", True)),
        (mesh_of("gpu", "NVIDIA H100", 8, 30e9), ("xla", "products", True)),
        (mesh_of("gpu", "NVIDIA A10", 8, 11e9), ("xla", "blocks", True)),
        (mesh_of("cpu", "cpu", 8), ("xla", "none", False)),
    ],
)
def test_auto_is_chosen_by_the_devices(mesh, expected):
    encoder = for_devices(experiment(), mesh).learner.encoder
    assert (encoder.attention, encoder.remat, encoder.scan) == expected


def test_less_is_computed_again_where_the_batch_is_encoded_in_parts():
    on_one, many = mesh_of(*V5E, 1), {"optimizer.accumulate_steps": 16}
    assert for_devices(experiment(), on_one).learner.encoder.remat == "full"
    assert for_devices(experiment(**many), on_one).learner.encoder.remat == "products"


def test_what_is_set_stays():
    settings = {"model.attention": "xla", "model.remat": True, "model.scan": True}
    encoder = for_devices(experiment(**settings), mesh_of(*V5E, 64)).learner.encoder
    assert (encoder.attention, encoder.remat, encoder.scan) == ("xla", True, True)


def test_long_rows_take_no_kernel():
    large = experiment(**{"augment.image_size": 448})
    assert for_devices(large, mesh_of(*V5E, 64)).learner.encoder.attention == "xla"


def test_a_resnet_has_nothing_to_choose():
    config = tiny_config("simclr", "none")
    config.model.update(
        variant="resnet18", width=8, depth=0, num_heads=0, freeze_patch_embed=False
    )
    config.augment.image_size = 32
    resnet = build(config, 64)
    assert for_devices(resnet, make_mesh()).learner == resnet.learner
