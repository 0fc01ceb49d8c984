"""How tokens of images of several sizes lie while blocks work on them.

What a block does to each token alone, its norms and matrix products, it may do once for
all sizes, on one copy of its weights (`Packed`); attention alone looks at images. Or
each size is an array of its own (`Apart`).
"""

import dataclasses
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp

from ser_jax.models.attention import ALIGNED

_TILE = 128  # tokens: what a TPU reduces over the width of at a time


@flax.struct.dataclass
class Images:
    """Whose tokens an array `[t, d]` holds: images of one size.

    Attributes:
        size: (images b, tokens n of each), b * n = t (static).
        lengths: How many tokens an image has, its first, `[b]`, int32; None for all n.
    """

    size: tuple[int, int] = flax.struct.field(pytree_node=False)
    lengths: jax.Array | None = None


@flax.struct.dataclass
class Apart:
    """Each size an array `[b * n, d]`; the class token is an image's first.

    Attributes:
        counts: How many tokens an image of each size has, its first, `[b]`, int32; None
            where they are all n.
        sizes: (images b, tokens n) of each size (static).
        has_cls: Whether the class token has joined (static).
    """

    counts: tuple[jax.Array | None, ...]
    sizes: tuple[tuple[int, int], ...] = flax.struct.field(pytree_node=False)
    has_cls: bool = flax.struct.field(pytree_node=False, default=False)

    def join(self, tokens: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
        """What blocks run on, of the tokens `[b, n, d]` of each size."""
        return tuple(_flat(x) for x in tokens)

    def with_cls(self, xs, token: jax.Array):
        """After the class token `[1, 1, d]` has joined; and how they then lie."""
        joined = []
        for x in self.tokens(xs):
            cls = jnp.broadcast_to(token, (x.shape[0], 1, x.shape[2])).astype(x.dtype)
            joined.append(_flat(jnp.concatenate([cls, x], axis=1)))
        return tuple(joined), dataclasses.replace(self, has_cls=True)

    @property
    def images(self) -> list[Images]:
        """What a block is told of each of its arrays."""
        return [
            Images(size, None if count is None else count + self.has_cls)
            for count, size in zip(self.counts, self._places, strict=True)
        ]

    def factors(self, keep: Sequence[jax.Array]) -> list[jax.Array]:
        """Of each array, what the images' tokens are multiplied with, `[t, 2]`."""
        return [_repeated(*x) for x in zip(keep, self._places, strict=True)]

    def tokens(self, xs) -> list[jax.Array]:
        """Tokens of each size, `[b, n, d]`."""
        return [x[:, int(self.has_cls) :] for x in self._split(xs)]

    def cls(self, xs) -> list[jax.Array]:
        """Class tokens of each size, `[b, d]`."""
        return [x[:, 0] for x in self._split(xs)]

    @property
    def _places(self) -> list[tuple[int, int]]:
        return [(b, n + self.has_cls) for b, n in self.sizes]

    def _split(self, xs) -> list[jax.Array]:
        return [x.reshape(*size, -1) for x, size in zip(xs, self._places, strict=True)]


@flax.struct.dataclass
class Packed:
    """All in one array `[t, d]`, in which an image has as many places as are aligned.

    The class token takes an image's first free place: no other token moves.

    Attributes:
        counts: As of `Apart`.
        sizes: (images b, tokens n) of each size (static).
        has_cls: Whether the class token has joined (static).
    """

    counts: tuple[jax.Array | None, ...]
    sizes: tuple[tuple[int, int], ...] = flax.struct.field(pytree_node=False)
    has_cls: bool = flax.struct.field(pytree_node=False, default=False)

    @property
    def places(self) -> tuple[tuple[int, int], ...]:
        """(images, places of each) of every size."""
        return tuple((b, n + 1 + -(n + 1) % ALIGNED) for b, n in self.sizes)

    @property
    def attended(self) -> tuple[jax.Array, ...]:
        """How many tokens of an image are attended to, `[b]` of each size."""
        return tuple(count + self.has_cls for count in self._counts)

    @property
    def _counts(self) -> list[jax.Array]:
        return [
            jnp.full(b, n, jnp.int32) if count is None else count
            for count, (b, n) in zip(self.counts, self.sizes, strict=True)
        ]

    @property
    def images(self) -> list["Packed"]:
        """What a block is told of its array."""
        return [self]

    def join(self, tokens: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
        """What blocks run on, of the tokens `[b, n, d]` of each size."""
        return (self._joined(tokens),)

    def with_cls(self, xs, token: jax.Array):
        """After the class token `[1, 1, d]` has joined; and how they then lie."""
        (x,) = xs
        is_cls = self._joined(
            [
                (jnp.arange(n)[None] == count[:, None])[..., None]
                for count, (_, n) in zip(self._counts, self.places, strict=True)
            ]
        )
        x = jnp.where(is_cls, token[0].astype(x.dtype), x)
        return (x,), dataclasses.replace(self, has_cls=True)

    def factors(self, keep: Sequence[jax.Array]) -> list[jax.Array]:
        """Of each array, what the images' tokens are multiplied with, `[t, 2]`."""
        return [
            self._tiled([_repeated(*x) for x in zip(keep, self.places, strict=True)])
        ]

    def tokens(self, xs) -> list[jax.Array]:
        """Tokens of each size, `[b, n, d]`."""
        return [
            part[:, :n]
            for part, (_, n) in zip(self._split(xs), self.sizes, strict=True)
        ]

    def cls(self, xs) -> list[jax.Array]:
        """Class tokens of each size, `[b, d]`."""
        (x,), found, first = xs, [], 0
        for count, (b, n), (_, width) in zip(
            self.counts, self.sizes, self.places, strict=True
        ):
            if count is None:  # else all of x would be copied
                found.append(x[first + n : first + b * width : width])
            else:
                found.append(x[first + jnp.arange(b) * width + count])
            first += b * width
        return found

    def _joined(self, parts: Sequence[jax.Array]) -> jax.Array:
        return self._tiled(
            [
                _flat(jnp.pad(x, [(0, 0), (0, n - x.shape[1]), (0, 0)]))
                for x, (_, n) in zip(parts, self.places, strict=True)
            ]
        )

    def _tiled(self, flat: list[jax.Array]) -> jax.Array:
        num = sum(x.shape[0] for x in flat)
        rest = jnp.zeros((-num % _TILE, flat[0].shape[1]), flat[0].dtype)
        return jnp.concatenate([*flat, rest])

    def _split(self, xs) -> list[jax.Array]:
        (x,), parts, first = xs, [], 0
        for b, n in self.places:
            parts.append(x[first : first + b * n].reshape(b, n, -1))
            first += b * n
        return parts


def _flat(x: jax.Array) -> jax.Array:
    """`[b, n, d]` -> `[b * n, d]`."""
    return x.reshape(-1, x.shape[2])


def _repeated(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """What images `[b, k]` have, for each of their n tokens: `[b * n, k]`."""
    return _flat(jnp.broadcast_to(x[:, None], (*size, x.shape[1])))
