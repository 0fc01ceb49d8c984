"""One encoder under the names and in the dictionaries that libraries and users give."""

import jax
import numpy as np
import pytest
from helpers.made_up_weights import hugging_face, prefixed, vit

from ser_jax.interop.answers import Given
from ser_jax.interop.choosing import choose
from ser_jax.interop.families.vit import read_vit
from ser_jax.interop.files.read import read_weights_file
from ser_jax.interop.files.refused import UnreadableError
from ser_jax.interop.files.safetensors import write_safetensors
from ser_jax.interop.finding import find_places

pytestmark = pytest.mark.interop
ONE = np.ones(1, "f4")


@pytest.fixture
def places(tmp_path):
    """Encoders of a file that holds arrays in dictionaries."""

    def places(arrays, *path, **beside):
        file = tmp_path / f"{len(list(tmp_path.iterdir()))}.safetensors"
        write_safetensors(file, arrays, {})
        content = read_weights_file(file).content
        for name in reversed(path):
            content = {name: content}
        return find_places(content | beside, keeps_paths=True)

    return places


def renamed(arrays, pairs):
    """Arrays whose names have parts replaced, one after the other."""
    for old, new in pairs:
        arrays = {name.replace(old, new): array for name, array in arrays.items()}
    return arrays


def torchvision():
    own = [
        *((f"blocks.{i}.", f"encoder.layers.encoder_layer_{i}.") for i in (0, 1)),
        ("patch_embed.proj", "conv_proj"),
        ("cls_token", "class_token"),
        ("pos_embed", "encoder.pos_embedding"),
        ("norm1", "ln_1"),
        ("norm2", "ln_2"),
        ("norm.", "encoder.ln."),
        ("attn.qkv.", "self_attention.in_proj_"),
        ("attn.proj", "self_attention.out_proj"),
    ]
    return renamed(vit() | {"heads.head.weight": ONE}, own)


NAMES = {
    "torchvision": renamed(torchvision(), [("mlp.fc1", "mlp.0"), ("mlp.fc2", "mlp.3")]),
    "torchvision before 0.12": renamed(torchvision(), [("mlp.fc", "mlp.linear_")]),
    "OpenMMLab": renamed(
        vit(),
        [
            ("blocks.", "layers."),
            ("patch_embed.proj", "patch_embed.projection"),
            ("norm1", "ln1"),
            ("norm2", "ln2"),
            ("mlp.fc1", "ffn.layers.0.0"),
            ("mlp.fc2", "ffn.layers.1"),
            ("norm.", "ln1."),
        ],
    ),
    "transformers' state_dict": renamed(
        hugging_face(),
        [
            ("encoder.layer.", "layers."),
            ("attention.output.dense", "attention.o_proj"),
            ("attention.attention.", "attention."),
            ("query", "q_proj"),
            ("key", "k_proj"),
            ("value", "v_proj"),
            ("intermediate.dense", "mlp.fc1"),
            ("output.dense", "mlp.fc2"),
        ],
    ),
    "compiled": renamed(vit(), [("patch_embed", "_orig_mod.patch_embed")]),
    "recomputed": renamed(
        vit(), [("blocks.0.", "blocks.0._checkpoint_wrapped_module.")]
    ),
}


@pytest.mark.parametrize("names", NAMES)
def test_other_names_are_the_same(places, names):
    """Red if a name is another's, such as that of the second norm."""
    (place,), (expected,) = places(NAMES[names]), places(vit())
    found, wanted = read_vit(place), read_vit(expected)
    jax.tree.map(np.testing.assert_array_equal, found.params, wanted.params)
    np.testing.assert_array_equal(found.table, wanted.table)
    np.testing.assert_array_equal(found.cls_entry, wanted.cls_entry)


@pytest.mark.parametrize(
    "prefixes, path, beside, layout, role, others",
    [
        (["_orig_mod."], [], {}, "timm_or_dino", "online", ()),
        (["module."], [], {}, "timm_or_dino", "online", ()),
        (["_orig_mod.module."], ["model"], {}, "deit", "online", ()),
        (["module."], ["teacher"], {}, "other", "teacher", ()),
        ([""], ["state_dict"], {"version": 2}, "timm_training", "online", ()),
        ([""], ["state_dict"], {"epoch": 2}, "other", "online", ()),
        (["module."], ["state_dict"], {"arch": "vit"}, "other", "online", ()),
        (["backbone."], [], {}, "other", "online", ()),
        (["module.encoder."], ["state_dict"], {}, "other", "online", ()),
        (["net.", "net_ema."], [], {}, "other", "online", ("ema",)),
        (
            ["student.backbone.", "teacher.backbone."],
            ["model"],
            {},
            "other",
            "teacher",
            ("student",),
        ),
    ],
)
def test_wrappers(places, prefixes, path, beside, layout, role, others):
    arrays = {k: v for p in prefixes for k, v in prefixed(vit(), p).items()}
    chosen = choose(places(arrays, *path, **beside), Given())
    assert (chosen.layout.name, chosen.role, chosen.others) == (layout, role, others)


def test_a_name_with_and_without_a_wrapper_is_refused(places):
    with pytest.raises(UnreadableError, match="'cls_token' with and without"):
        places(vit() | {"_orig_mod.cls_token": ONE})


def test_two_that_nothing_tells_apart_are_refused(places):
    arrays = prefixed(vit(), "first.") | prefixed(vit(), "second.")
    with pytest.raises(UnreadableError, match=r"two encoders .*first\.\* and second"):
        choose(places(arrays), Given())
