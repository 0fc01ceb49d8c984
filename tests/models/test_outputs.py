"""What every encoder answers, whatever it is."""

import pytest

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
