"""Where encoders are in a file of weights."""

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ser_jax.interop.files.inert import Inert
from ser_jax.interop.files.refused import UnreadableError, shown
from ser_jax.interop.files.tensors import Tensor

_MOST_DEPTH = 32
_MOST_LISTED = 6

# Key that proves a family -> the family. What stands before it is the prefix.
_PROOFS = {
    "embeddings.patch_embeddings.projection.weight": "hf",
    "patch_embed.proj.weight": "vit",
    "conv_proj.weight": "torchvision_vit",
    "patch_embed.projection.weight": "mmlab_vit",
    "layer1.0.conv1.weight": "resnet",
    "4.0.conv1.weight": "sequential",
}
# Parts of a key that compilation, sharding and recomputation put in.
_WRAPPERS = frozenset(
    ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
)
# Keys of models of which the proof of a family is another.
_RELATED = {
    r"patch_embed\.proj\.\d+\.": "a patch embedding of several convolutions",
    r"patch_embed\.(backbone|stem|conv)": "a patch embedding of several convolutions",
    r"(^|\.)(visual|vision_model)\.": "CLIP's model",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Place:
    """An encoder in a file.

    Attributes:
        path: Names of the dictionaries that lead to its own.
        prefix: What its keys begin with there.
        family: "vit", "hf", "torchvision_vit", "mmlab_vit", "resnet" or "sequential".
        keys: Its tensors, the prefix cut off.
        neighbours: The other keys of the dictionary.
        content: All of the file.
        keeps_paths: Whether files of this format have dictionaries in dictionaries.
        config: config.json beside the file; None: there is none.
        preprocessor: preprocessor_config.json beside it; None: there is none.
    """

    path: tuple[str, ...]
    prefix: str
    family: str
    keys: Mapping[str, Tensor]
    neighbours: frozenset[str]
    content: Mapping[Any, Any]
    keeps_paths: bool
    config: Mapping[str, Any] | None = None
    preprocessor: Mapping[str, Any] | None = None

    @property
    def where(self) -> str:
        """Path and prefix, for messages."""
        path = "".join(f"{name}/" for name in self.path)
        return f"{path}{self.prefix}*"

    @property
    def is_resnet(self) -> bool:
        """Whether it is a ResNet; else it is a ViT."""
        return self.family in ("resnet", "sequential")

    @functools.cached_property
    def has_norm_equiv(self) -> bool:
        """Whether a token grid is read through a norm of its own, as in SER."""
        return "norm_equiv.weight" in self.keys

    @property
    def module_prefix(self) -> str:
        """The prefix without the `module.` of distributed training."""
        return self.prefix.removeprefix("module.")

    @property
    def is_flat(self) -> bool:
        """Whether it is all that the file has, under no name."""
        return not self.path and not self.module_prefix

    def argument(self, name: str) -> Any:
        """What the file's training arguments say.

        Args:
            name: Of the argument.

        Returns:
            Its value; None if there are no arguments or it is not among them.
        """
        found = self.content.get("args")
        state = found.state if isinstance(found, Inert) else found
        return state.get(name) if isinstance(state, Mapping) else None


def find_places(
    content: Mapping[Any, Any],
    *,
    keeps_paths: bool,
    config: Mapping[str, Any] | None = None,
    preprocessor: Mapping[str, Any] | None = None,
) -> list[Place]:
    """Encoders of a file, by the keys that prove what they are.

    Args:
        content: What the file holds.
        keeps_paths: See `Place`.
        config: See `Place`.
        preprocessor: See `Place`.

    Returns:
        At least one, in the file's order.

    Raises:
        UnreadableError: If there is none, or a name is there twice.
    """
    places = []
    for path, tensors in _containers(content, (), set()):
        for prefix, family in _prefixes(tensors):
            keys = {
                k[len(prefix) :]: v
                for k, v in tensors.items()
                if k[: len(prefix)] == prefix
            }
            others = frozenset(k for k in tensors if not k.startswith(prefix))
            about = (content, keeps_paths, config, preprocessor)
            places.append(Place(path, prefix, family, keys, others, *about))
    if not places:
        raise UnreadableError(_nothing(content))
    return places


def _containers(
    node: Any, path: tuple[str, ...], done: set[int]
) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Dictionaries that hold tensors, each once, but for an optimizer's.

    Raises:
        UnreadableError: If two of one's tensors have one name.
    """
    if not isinstance(node, dict) or id(node) in done or len(path) > _MOST_DEPTH:
        return
    done.add(id(node))
    named = {name: value for name, value in node.items() if isinstance(name, str)}
    tensors: dict[str, Tensor] = {}
    for name, value in named.items():
        if isinstance(value, Tensor):
            key = _unwrapped(name)
            if key in tensors:
                raise UnreadableError(f"has {shown(key)} with and without a wrapper")
            tensors[key] = value
    if tensors:
        yield path, tensors
    for name, value in named.items():
        if not name.startswith("optimizer"):
            yield from _containers(value, (*path, name), done)


def _unwrapped(key: str) -> str:
    """A key without the names of wrappers."""
    return ".".join(part for part in key.split(".") if part not in _WRAPPERS)


def _prefixes(tensors: Mapping[str, Tensor]) -> list[tuple[str, str]]:
    """Prefix and family of each encoder in a dictionary."""
    found: dict[str, str] = {}
    for key in tensors:
        for proof, family in _PROOFS.items():
            prefix = key.removesuffix(proof)
            if prefix != key and (not prefix or prefix.endswith(".")):
                found.setdefault(prefix, family)
    return list(found.items())


def _nothing(content: Mapping[Any, Any]) -> str:
    """What is said of a file without encoders."""
    keys = [key for _, tensors in _containers(content, (), set()) for key in tensors]
    if not keys:
        names = ", ".join(shown(name) for name in list(content)[:_MOST_LISTED])
        return (
            f"holds no tensors by name ({names or 'nothing'}): give the state_dict of "
            "an encoder"
        )
    for pattern, what in _RELATED.items():
        if key := next((k for k in keys if re.search(pattern, k)), None):
            return f"has {shown(key)}: {what}, which the package does not have"
    listed = ", ".join(shown(key) for key in keys[:_MOST_LISTED])
    return (
        f"holds {len(keys)} tensors ({listed}), none of them the key that proves a ViT "
        f"or a ResNet: one that ends in {', '.join(_PROOFS)}"
    )
