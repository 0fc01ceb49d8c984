"""What the pickles of `torch.save` name, and what becomes of it."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ser_jax.interop.files.inert import Inert, plain_key
from ser_jax.interop.files.machine import MOST_BYTES
from ser_jax.interop.files.refused import UnreadableError, shown
from ser_jax.interop.files.tensors import BFLOAT16, Storage, Tensor, tensor

STORAGES: dict[str, np.dtype] = {
    "torch.FloatStorage": np.dtype("f4"),
    "torch.DoubleStorage": np.dtype("f8"),
    "torch.HalfStorage": np.dtype("f2"),
    "torch.BFloat16Storage": BFLOAT16,
    "torch.LongStorage": np.dtype("i8"),
    "torch.IntStorage": np.dtype("i4"),
    "torch.ShortStorage": np.dtype("i2"),
    "torch.CharStorage": np.dtype("i1"),
    "torch.ByteStorage": np.dtype("u1"),
    "torch.BoolStorage": np.dtype("?"),
    "torch.ComplexFloatStorage": np.dtype("c8"),
    "torch.ComplexDoubleStorage": np.dtype("c16"),
    "torch.storage.UntypedStorage": np.dtype("u1"),
}
_DTYPES: dict[str, np.dtype] = {
    **{
        f"torch.{x}{8 * n}": np.dtype(f"{x[0]}{n}")
        for x in ("int", "uint")
        for n in (1, 2, 4, 8)
    },
    **{f"torch.float{8 * n}": np.dtype(f"f{n}") for n in (2, 4, 8)},
    **{f"torch.complex{8 * n}": np.dtype(f"c{n}") for n in (8, 16)},
    "torch.bfloat16": BFLOAT16,
    "torch.bool": np.dtype("?"),
}
_MOST_NAME_CHARACTERS = 1000
_ITEM_BYTES = 64  # of a dictionary
_PARAMETERS = (
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
)
_DICTIONARIES = (
    "collections.OrderedDict",
    "collections.defaultdict",
    "collections.Counter",
)
# What no checkpoint needs and an attack does: refused where it is only named.
_MODULES = frozenset(
    "os posix nt subprocess sys runpy importlib shutil socket ctypes webbrowser pty "
    "marshal signal imp pip".split()
)
_BUILTINS = frozenset("eval exec compile open __import__ input breakpoint".split())


class TorchCalls:
    """What a pickle of `torch.save` may name and call.

    Attributes:
        persistent: From a persistent id to a storage.
    """

    def __init__(self, persistent: Callable[[Any], Any]):
        """For one file."""
        self.persistent = persistent
        self._copied = 0

    def find(self, module: str, name: str) -> Inert:
        """A global, by name alone.

        Raises:
            UnreadableError: If it is one that runs programs, or endless.
        """
        if len(module) + len(name) > _MOST_NAME_CHARACTERS:
            raise UnreadableError("has a pickle that names something at great length")
        root, *through = module.partition(".")[0], *name.split(".")[:-1]
        if not _MODULES.isdisjoint((root, *through)) or (
            root in ("builtins", "__builtin__") and name.partition(".")[0] in _BUILTINS
        ):
            raise UnreadableError(
                f"has a pickle that would use {shown(f'{module}.{name}')}: that is no "
                "checkpoint. Nothing was run"
            )
        return Inert(f"{module}.{name}")

    def call(self, function: Inert, args: tuple[Any, ...]) -> Any:
        """A tensor, a container, or what is not made.

        Raises:
            UnreadableError: If it is a tensor of a kind that is not read, or made of
                something else.
        """
        name = function.name if function.args is None else ""
        if name == "torch._tensor._rebuild_from_type_v2" and len(args) > 2:
            name, args = getattr(args[0], "name", ""), args[2]
            if name not in (*_TENSORS, *_PARAMETERS) or not isinstance(args, tuple):
                return Inert(function.name, (name,))
        if name in _TENSORS:
            return _TENSORS[name](args)
        if name in _PARAMETERS and args:
            return args[0]
        if name in _DICTIONARIES:
            return self._dictionary(args)
        if name == "torch.Size" and len(args) == 1 and isinstance(args[0], tuple):
            return args[0]
        if name == "_codecs.encode" and args[1:] in (("latin1",), ("latin-1",)):
            return self._latin_1(args[0])
        if name.startswith("torch._utils._rebuild_") and "parameter" not in name:
            raise UnreadableError(
                f"has a tensor of {shown(name)}, which is not read: load it with torch "
                "and save plain tensors"
            )
        return Inert(function.name, args)

    def _dictionary(self, args: tuple[Any, ...]) -> dict[Any, Any]:
        """A dictionary; in Python 2 it came with its items as pairs."""
        pairs = [x for x in args if isinstance(x, list | dict)][:1]
        if not pairs:
            return {}
        self._charge(len(pairs[0]) * _ITEM_BYTES)
        items = pairs[0].items() if isinstance(pairs[0], dict) else pairs[0]
        if not all(isinstance(x, list | tuple) and len(x) == 2 for x in items):
            raise UnreadableError("has a dictionary made of something else than pairs")
        return {plain_key(key): value for key, value in items}

    def _latin_1(self, text: Any) -> bytes:
        if not isinstance(text, str):
            raise UnreadableError(f"has {shown(text)} where bytes were expected")
        self._charge(len(text))
        return text.encode("latin-1")

    def _charge(self, num_bytes: int) -> None:
        """Counts what is copied: a value can be copied as often as it is named."""
        self._copied += num_bytes
        if self._copied > MOST_BYTES:
            raise UnreadableError(
                f"has a pickle that copies more than {MOST_BYTES} bytes"
            )


def storage_id(key: Any) -> tuple[str, str, np.dtype, int]:
    """What a persistent id says of a storage.

    Args:
        key: The id: `('storage', kind, key, location, number of elements)`, and in
            legacy files what it is a view of.

    Returns:
        Kind, key, type, number of elements.

    Raises:
        UnreadableError: If it says something else.
    """
    if not isinstance(key, tuple) or len(key) not in (5, 6) or key[0] != "storage":
        raise UnreadableError("has a pickle with an id that is not of a storage")
    kind, name, numel = key[1], key[2], key[4]
    if not isinstance(kind, Inert) or kind.args is not None:
        raise UnreadableError("has a storage without a type")
    if kind.name not in STORAGES:
        raise UnreadableError(
            f"has a storage of {shown(kind.name)}, which is not read: load it with "
            "torch and save plain tensors"
        )
    if not isinstance(name, str) or type(numel) is not int or not 0 <= numel < 2**48:
        raise UnreadableError(f"has a storage of {shown(numel)} elements")
    if key[5:] not in ((), (None,)):
        raise UnreadableError(
            "has a storage that is a part of another: load it with torch and save "
            "plain tensors"
        )
    return kind.name, name, STORAGES[kind.name], numel


def _tensor_v2(args: Sequence[Any]) -> Tensor:
    """`storage, offset, size, stride[, requires_grad, hooks, metadata]`."""
    if len(args) < 4:
        raise UnreadableError("has a tensor without a shape")
    return _tensor(args[:4], None, args[6:7])


def _tensor_v3(args: Sequence[Any]) -> Tensor:
    """`storage, offset, size, stride, requires_grad, hooks, dtype[, metadata]`."""
    if len(args) < 7:
        raise UnreadableError("has a tensor without a type")
    name = args[6].name if isinstance(args[6], Inert) else ""
    if name not in _DTYPES:
        raise UnreadableError(
            f"has a tensor of {shown(name)}, which is not read: load it with torch and "
            "save plain tensors"
        )
    return _tensor(args[:4], _DTYPES[name], args[7:8])


def _tensor(
    place: Sequence[Any], dtype: np.dtype | None, metadata: Sequence[Any]
) -> Tensor:
    storage, offset, shape, strides = place
    if not isinstance(storage, Storage) or storage.dtype is None:
        raise UnreadableError("has a tensor without a storage")
    if not isinstance(strides, tuple | list):
        raise UnreadableError("has a tensor without strides")
    if any(metadata):
        raise UnreadableError(
            "has a tensor that is stored conjugated or negated: load it with torch and "
            "save resolve_conj().resolve_neg()"
        )
    return tensor(storage, dtype or storage.dtype, offset, shape, strides)


_TENSORS: dict[str, Callable[[Sequence[Any]], Tensor]] = {
    "torch._utils._rebuild_tensor": _tensor_v2,
    "torch._utils._rebuild_tensor_v2": _tensor_v2,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
}
