"""Takes the arrays of an encoder; what is not taken must be on a short list."""

import re
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np

from ser_jax.interop.files.refused import UnreadableError, shown
from ser_jax.interop.files.tensors import BFLOAT16
from ser_jax.interop.finding import Place

# Not the encoder's: heads, projectors, masks, MAE's decoder, counters.
_IGNORED = re.compile(
    r"(heads?|fc|linear|pooler)\..*|(decoder_|projector).*|mask_token|masked_embed"
    r"|(projection_head|prototypes|predictor)\..*"
    r"|embeddings\.mask_token|(.*\.)?num_batches_tracked"
)
# Keys of models that the package does not have -> what they are.
_STRANGERS = {
    r"(reg_token|register_tokens|storage_tokens)$": "register tokens",
    r"(dist_token|distillation_token|head_dist\..*)$": "a distillation token (DeiT's)",
    r"fc_norm\.|attn_pool\.": "another pooling than the class token",
    r"norm_pre\.|ln_pre\.": "a norm before the first block (CLIP's)",
    r"\.(q_norm|k_norm)\.": "norms of queries and keys",
    r"(^|\.)rope|relative_position|rel_pos": "relative or rotary positions",
    r"\.(w12|w3|weights_in|fc1_g|fc1_x)\.": "a SwiGLU MLP",
    r"patch_embed\.proj\.\d": "a patch embedding of several convolutions",
    r"^conv1\.\d": "a stem of several convolutions (ResNet-D)",
    r"\.downsample\.[^01]": "a shortcut that pools first (ResNet-D)",
    r"\.(se|eca)\.": "squeeze-and-excitation",
}


class Keys:
    """The arrays of an encoder, by the names that its family has for them.

    Attributes:
        place: The encoder.
        spell: From a family's name of an array to the file's.
        taken: Keys that were asked for.
    """

    def __init__(self, place: Place, spell: Callable[[str], str] = str):
        """All of an encoder's keys, none taken.

        Raises:
            UnreadableError: If one belongs to a model that the package does not have.
        """
        self.place, self.spell = place, spell
        self.taken: set[str] = set()
        for key in sorted(place.keys):
            what = next((w for p, w in _STRANGERS.items() if re.search(p, key)), "")
            if what and not _IGNORED.fullmatch(key):
                raise UnreadableError(
                    f"has {place.prefix}{key}: {what}, which the package does not have"
                )

    def has(self, name: str) -> bool:
        """Whether there is such an array."""
        return self.spell(name) in self.place.keys

    def named(self, name: str) -> str:
        """The file's own name of an array, for messages."""
        return f"{self.place.prefix}{self.spell(name)}"

    def shape(self, name: str) -> tuple[int, ...]:
        """An array's shape.

        Args:
            name: The family's name of it.

        Returns:
            Its shape.

        Raises:
            UnreadableError: If it is missing.
        """
        if not self.has(name):
            raise UnreadableError(f"{self.named(name)} is missing")
        return self.place.keys[self.spell(name)].shape

    def precision(self, name: str) -> float:
        """The step between 1 and the next number of an array's type.

        Args:
            name: The family's name of it: a float.
        """
        return float(jnp.finfo(self.place.keys[self.spell(name)].dtype).eps)

    def take(self, name: str, *shape: int) -> np.ndarray:
        """An array.

        Args:
            name: The family's name of it.
            *shape: What it must be.

        Returns:
            `shape`, float32.

        Raises:
            UnreadableError: If it is missing, misshapen, no float, or not finite.
        """
        found = self.shape(name)
        if found != shape:
            raise UnreadableError(
                f"{self.named(name)} is {list(found)} where {list(shape)} was expected"
            )
        tensor = self.place.keys[self.spell(name)]
        if tensor.dtype.kind != "f" and tensor.dtype != BFLOAT16:
            raise UnreadableError(
                f"{self.named(name)} is {tensor.dtype}, where a float was expected"
            )
        with np.errstate(over="ignore"):
            array = tensor.numpy().astype(np.float32)
        if bad := array.size - int(np.isfinite(array).sum()):
            raise UnreadableError(
                f"{self.named(name)} holds {bad} values that are not finite"
            )
        self.taken.add(self.spell(name))
        return array

    def all_or_none(self, names: Sequence[str]) -> bool:
        """Whether arrays are there that some models lack.

        Args:
            names: The family's names of them.

        Returns:
            Whether all are there.

        Raises:
            UnreadableError: If only some are.
        """
        missing = [name for name in names if not self.has(name)]
        if missing and len(missing) < len(names):
            raise UnreadableError(f"{self.named(missing[0])} is missing")
        return not missing

    def finish(self) -> tuple[str, ...]:
        """Keys that were left, all of them on the list of what is ignored.

        Raises:
            UnreadableError: If another is left: the model is not known.
        """
        left = sorted(self.place.keys.keys() - self.taken)
        for key in left:
            if not _IGNORED.fullmatch(key):
                raise UnreadableError(
                    f"has {shown(self.place.prefix + key)}, which no encoder of the "
                    f"package has: a model that is not known"
                )
        return tuple(f"{self.place.prefix}{key}" for key in left)
