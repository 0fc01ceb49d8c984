"""What every encoder answers, whatever it is."""

import jax
import jax.numpy as jnp
import pytest

from ser_jax.methods.objectives.dino import DINO
from ser_jax.models import outputs
from ser_jax.models.resnet import ResNet
from ser_jax.models.vit import ViT

VIT = ViT(
    width=16,
    depth=3,
    num_heads=2,
    patch_size=4,
    image_size=16,
    cls_insert=1,
    grid_layers=(1,),
    cls_layers=(2,),
    freeze_patch_embed=True,
)
RESNET = ResNet((1, 1), "basic", 16, small_images=True, grid_layers=(1,))


@pytest.mark.parametrize("encoder", [VIT, RESNET])
def test_to_finetune_reads_nothing_off_and_freezes_nothing(encoder):
    tuned = encoder.to_finetune(drop_path_rate=0.3)
    assert tuned.grid_layers == tuned.cls_layers == ()
    assert not getattr(tuned, "freeze_patch_embed", False)
    assert getattr(tuned, "drop_path_rate", 0.3) == 0.3
    assert tuned.depth == encoder.depth and tuned.cls_insert == encoder.cls_insert


def test_only_a_resnet_has_no_class_token():
    assert VIT.cls_insert == 1 and RESNET.cls_insert is None
    assert RESNET.has_batch_norm and not VIT.has_batch_norm


def test_names_of_parameters_are_those_of_old_checkpoints():
    """Red if one changes: its weights in a checkpoint would not be found."""
    image = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)

    def names(encoder):
        return set(jax.eval_shape(encoder.init, jax.random.key(0), image)["params"])

    assert names(VIT) == {
        *("patch_embed", "cls_token", "blocks", "norm"),
        *("norm_grid_1", "norm_cls_2"),
    }
    assert "norm_grid_1" in names(RESNET)
    heads = DINO(hidden_dim=8, bottleneck_dim=4, output_dim=8).make_heads()
    params = jax.eval_shape(
        lambda rng, cls: heads.init(rng, cls, True, method="student")["params"],
        jax.random.key(0),
        jnp.zeros((2, 8)),
    )
    assert set(params) == {"mlp", "prototypes"}
    assert outputs.PROTOTYPES in params
