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
class Apart:
    """Each size an array `[b, n, d]`, or `[b, 1 + n, d]`: the class token is first.

    Attributes:
        counts: How many tokens an image of each size has, its first, `[b]`, int32; None
            where they are all n.
        has_cls: Whether the class token has joined (static).
    """

    counts: tuple[jax.Array | None, ...]
    has_cls: bool = flax.struct.field(pytree_node=False, default=False)

    def join(self, tokens: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
        """What blocks run on, of the tokens `[b, n, d]` of each size."""
        return tuple(tokens)

    def with_cls(self, xs, token: jax.Array):
        """After the class token `[1, 1, d]` has joined; and how they then lie."""
        joined = []
        for x in xs:
            cls = jnp.broadcast_to(token, (x.shape[0], 1, x.shape[2])).astype(x.dtype)
            joined.append(jnp.concatenate([cls, x], axis=1))
        return tuple(joined), dataclasses.replace(self, has_cls=True)

    @property
    def lengths(self) -> list[jax.Array | None]:
        """What a block is told of each of its arrays."""
        return [None if n is None else n + self.has_cls for n in self.counts]

    def factors(self, keep: Sequence[jax.Array]) -> list[jax.Array]:
        """Of each array, what images `[b, 2]` are multiplied with."""
        return [part[:, None] for part in keep]

    def tokens(self, xs) -> list[jax.Array]:
        """Tokens of each size, `[b, n, d]`."""
        return [x[:, int(self.has_cls) :] for x in xs]

    def cls(self, xs) -> list[jax.Array]:
        """Class tokens of each size, `[b, d]`."""
        return [x[:, 0] for x in xs]


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
    def lengths(self) -> list["Packed"]:
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
            self._joined(
                [
                    jnp.broadcast_to(part[:, None], (*size, part.shape[1]))
                    for part, size in zip(keep, self.places, strict=True)
                ]
            )
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
        flat = []
        for x, (b, n) in zip(parts, self.places, strict=True):
            x = jnp.pad(x, [(0, 0), (0, n - x.shape[1]), (0, 0)])
            flat.append(x.reshape(b * n, -1))
        num = sum(b * n for b, n in self.places)
        flat.append(jnp.zeros((-num % _TILE, flat[0].shape[1]), flat[0].dtype))
        return jnp.concatenate(flat)

    def _split(self, xs) -> list[jax.Array]:
        (x,), parts, first = xs, [], 0
        for b, n in self.places:
            parts.append(x[first : first + b * n].reshape(b, n, -1))
            first += b * n
        return parts
