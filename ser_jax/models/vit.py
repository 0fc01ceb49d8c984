"""Vision transformer whose class token joins after a chosen block."""

import functools
from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from ser_jax.geometry.action import canvas_to_slots, slot_cells
from ser_jax.models.attention import IMPLEMENTATIONS
from ser_jax.models.blocks import (
    NORM_EPS,
    Block,
    block_initializers,
    layer_norm,
    patch_initializers,
)
from ser_jax.models.outputs import (
    BLOCKS,
    FINAL_NORM,
    PATCH_EMBED,
    EncoderOutput,
    Pictures,
    TokenGrid,
    norm_cls,
    norm_grid,
)
from ser_jax.models.packing import Apart, Images, Packed
from ser_jax.models.pos_embed import RESAMPLING, resample_positions, sincos_table
from ser_jax.models.stack import KEPT, run_blocks


class ViT(nn.Module):
    """Vision transformer.

    Attributes:
        width: Token width d.
        depth: Number of blocks.
        num_heads: Attention heads; a divisor of `width`.
        patch_size: Pixels a side of a patch.
        image_size: Pixels a side of the image that the position table belongs to.
        cls_insert: The class token joins after this many blocks; 0 is at the input.
            With `cls_insert = equiv_layer` the early grid stays purely spatial.
        grid_layers: Layers whose token grid is returned, in 1..depth; layer k is after
            k blocks.
        cls_layers: Layers whose class token is returned, in cls_insert + 1..depth.
        pos_embed: "sincos" (fixed) or "learned". A table entry for the class token
            exists only if it is learned and the token joins at the input.
        init_scheme: Of kernels and class token: "moco_v3"; "ser", the same but for the
            patch embedding; "dino" (its normal, cut at a hundred deviations, uncut).
        freeze_patch_embed: Whether the patch embedding takes no gradient.
        mlp_ratio: Hidden width of the MLPs over d.
        drop_path_rate: Stochastic depth of the last block; grows linearly from 0.
        dtype: Compute dtype of matrix products; norms and softmax stay float32.
        attention: How attention is computed, see `attend`; "auto" is "xla" until
            training chooses by the devices (`ser_jax/train/devices.py`).
        remat: What the backward pass computes again to save memory: "none"; "products",
            all but the results of most matrix products and of attention; "blocks", the
            MLP too; "full", all but each block's input. True is "full", False "none",
            "auto" the same until training chooses.
        scan: Whether blocks run in a `lax.scan` (compiles faster) or unrolled. The
            parameters have the same form, stacked along the first axis, either way.
            "auto" is a loop until training chooses.
        norm_eps: What every LayerNorm adds to the variance.
        resample: How the position table is resampled to other grids than its own, see
            `resample_positions`.

    Reference:
        Dosovitskiy et al. (arXiv 2010.11929); SER (arXiv 2603.06693), Sec. 3: class
        token after `equiv_layer`.
    """

    has_batch_norm: ClassVar[bool] = False

    width: int
    depth: int
    num_heads: int
    patch_size: int
    image_size: int
    cls_insert: int = 0
    grid_layers: tuple[int, ...] = ()
    cls_layers: tuple[int, ...] = ()
    pos_embed: str = "sincos"
    init_scheme: str = "moco_v3"
    freeze_patch_embed: bool = False
    mlp_ratio: float = 4.0
    drop_path_rate: float = 0.0
    dtype: DTypeLike = jnp.float32
    attention: str = "xla"
    remat: str | bool = "none"
    scan: bool | str = True
    norm_eps: float = NORM_EPS
    resample: str = "dino"

    def __post_init__(self):
        """Checks the attributes."""
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} px is not a multiple of patch_size "
                f"{self.patch_size} px; choose one that is."
            )
        if self.width % self.num_heads:
            raise ValueError(
                f"num_heads {self.num_heads} does not divide width {self.width}."
            )
        for layer in (*self.grid_layers, *self.cls_layers):
            if not 1 <= layer <= self.depth:
                raise ValueError(
                    f"layer {layer} is not in 1..depth = 1..{self.depth}: there is no "
                    "such block. Set regularizer.layer to one there is, or use a "
                    "deeper model."
                )
        for layer in self.cls_layers:
            if layer <= self.cls_insert:
                raise ValueError(
                    f"there is no class token after block {layer}: it joins after "
                    f"block {self.cls_insert}. Read a later layer, or mean_patch."
                )
        if not 0 <= self.cls_insert < self.depth:
            raise ValueError(
                f"cls_insert must be in 0..depth - 1 = 0..{self.depth - 1}, got "
                f"{self.cls_insert}."
            )
        if self.pos_embed not in ("sincos", "learned"):
            raise ValueError(
                f"pos_embed must be 'sincos' or 'learned', got {self.pos_embed!r}."
            )
        if self.init_scheme not in ("moco_v3", "ser", "dino"):
            raise ValueError(
                f"init_scheme is 'moco_v3', 'ser' or 'dino', not {self.init_scheme!r}."
            )
        if self.attention not in IMPLEMENTATIONS:
            raise ValueError(
                f"attention is one of {', '.join(IMPLEMENTATIONS)}, not "
                f"{self.attention!r}."
            )
        if self.remat not in (*KEPT, True, False):
            raise ValueError(f"remat is one of {', '.join(KEPT)}, not {self.remat!r}.")
        if self.scan not in (True, False, "auto"):
            raise ValueError(f"scan is True, False or 'auto', not {self.scan!r}.")
        if self.resample not in RESAMPLING:
            raise ValueError(
                f"resample is one of {', '.join(RESAMPLING)}, not {self.resample!r}."
            )
        super().__post_init__()

    @nn.nowrap
    def to_finetune(self, drop_path_rate: float) -> "ViT":
        """The same with nothing frozen or read off layers, and stochastic depth."""
        alone: dict[str, Any] = {"grid_layers": (), "cls_layers": ()}
        return self.clone(
            freeze_patch_embed=False, drop_path_rate=drop_path_rate, **alone
        )

    def __call__(
        self,
        images: jax.Array,
        grid_shape: jax.Array | None = None,
        *,
        num_slots: int | None = None,
        train: bool = False,
    ) -> EncoderOutput:
        """Encodes images.

        Args:
            images: As of `Encoder`.
            grid_shape: As of `Encoder`.
            num_slots: As of `Encoder`.
            train: Whether stochastic depth is on, given a "drop_path" rng: a teacher
                trains without one.

        Returns:
            Class token, tokens and the grids asked for.

        Raises:
            ValueError: If the image size is not a multiple of the patch size.
        """
        keep = None
        if train and self.has_rng("drop_path"):
            keep = self.drop_path_factors(self.make_rng("drop_path"), images.shape[0])
        batch = Pictures(images, grid_shape, num_slots)
        return self.together([batch], None if keep is None else [keep])[0]

    @nn.compact
    def together(
        self, batches: Sequence[Pictures], keep: Sequence[jax.Array] | None = None
    ) -> list[EncoderOutput]:
        """Encodes images of several sizes in one pass through the blocks.

        Args:
            batches: Images of each size.
            keep: As of `RowEncoder`.

        Returns:
            Class token, tokens and the grids asked for, of each.

        Raises:
            ValueError: If an image size is not a multiple of the patch size.
        """
        embed = self._embedding()
        embedded = [embed(batch) for batch in batches]
        tokens, shapes, valid = (list(x) for x in zip(*embedded, strict=True))
        cls_init = nn.initializers.normal(0.02 if self.init_scheme == "dino" else 1e-6)
        cls_token = self.param("cls_token", cls_init, (1, 1, self.width))
        if self.cls_insert == 0 and self.pos_embed == "learned":
            cls_token = cls_token + self.param(
                "cls_pos_embed",
                nn.initializers.normal(0.02),
                (1, 1, self.width),
            )

        counts = tuple(
            None if batch.num_slots is None else jnp.sum(there, axis=1)
            for batch, there in zip(batches, valid, strict=True)
        )
        sizes = tuple(x.shape[:2] for x in tokens)
        lie = (Packed if self.attention == "fused" else Apart)(counts, sizes)
        grids: list[dict[int, TokenGrid]] = [{} for _ in batches]
        cls_at: list[dict[int, jax.Array]] = [{} for _ in batches]

        final = layer_norm(FINAL_NORM, self.norm_eps)

        def norm_after(stop: int, name: str) -> nn.LayerNorm:
            # After the last layer (an ablation's) it is the final norm.
            return final if stop == self.depth else layer_norm(name, self.norm_eps)

        xs, start = lie.join(tokens), 0
        stops = sorted(
            {self.cls_insert, *self.grid_layers, *self.cls_layers, self.depth}
        )
        for stop, params in zip(stops, self._segments(stops), strict=True):
            kept = None
            if keep is not None:
                kept = [jnp.moveaxis(x[:, start:stop], 1, 0) for x in keep]
            xs = run_blocks(self._block(), params, xs, lie, kept, self.remat, self.scan)
            start = stop
            if stop == self.cls_insert:
                xs, lie = lie.with_cls(xs, cls_token)
            if stop in self.grid_layers:
                norm = norm_after(stop, norm_grid(stop))
                for of, x, shape, there in zip(
                    grids, lie.tokens(xs), shapes, valid, strict=True
                ):
                    of[stop] = TokenGrid(norm(x), shape, there, dtype=self.dtype)
            if stop in self.cls_layers:
                norm = norm_after(stop, norm_cls(stop))
                for at, x in zip(cls_at, lie.cls(xs), strict=True):
                    at[stop] = norm(x)
        return [
            EncoderOutput(final(cls), final(x), *rest)
            for cls, x, *rest in zip(
                lie.cls(xs), lie.tokens(xs), valid, grids, cls_at, strict=True
            )
        ]

    def _embedding(self):
        """Pictures -> tokens with positions `[b, n, d]`, grid shape, validity."""
        p = self.patch_size
        side = self.image_size // p
        if self.pos_embed == "sincos":
            table = jnp.asarray(sincos_table(side, self.width))
        else:
            table = self.param(
                "pos_embed",
                nn.initializers.normal(0.02),
                (side**2, self.width),
            )
        kernel_init, bias_init = patch_initializers(self.init_scheme, p, self.width)
        dense = nn.Dense(
            self.width,
            dtype=self.dtype,
            kernel_init=kernel_init,
            bias_init=bias_init,
            name=PATCH_EMBED,
        )
        return functools.partial(self._embed, table, dense)

    def _embed(self, table, dense, batch):
        images, grid_shape, num_slots = batch.images, batch.grid_shape, batch.num_slots
        p, side = self.patch_size, self.image_size // self.patch_size
        b, h, w, c = images.shape
        if h % p or w % p:
            raise ValueError(
                f"images of {h} x {w} px do not divide into patches of {p} px; resize "
                "them to a multiple of the patch size."
            )
        rows, cols = h // p, w // p
        patches = images.reshape(b, rows, p, cols, p, c).swapaxes(2, 3)
        patches = patches.reshape(b, rows, cols, p * p * c)  # [b, rows, cols, p*p*c]
        if grid_shape is None:
            num_slots = rows * cols
            patches = patches.reshape(b, num_slots, -1)  # [b, n, p*p*c]
        else:
            patches = canvas_to_slots(patches, grid_shape, num_slots)

        if grid_shape is None and rows == cols == side:
            pos = table[None]  # [1, n, d]
        else:
            shape = jnp.array([[rows, cols]]) if grid_shape is None else grid_shape
            canvas = resample_positions(table, shape, max(rows, cols), self.resample)
            pos = canvas_to_slots(canvas, shape, num_slots)  # [1 or b, n, d]

        tokens = dense(patches)
        if self.freeze_patch_embed:  # nothing before it learns, so this is enough
            tokens = jax.lax.stop_gradient(tokens)
        tokens = (tokens + pos).astype(self.dtype)
        if grid_shape is None:
            grid_shape = jnp.broadcast_to(jnp.array([rows, cols]), (b, 2))
        valid = slot_cells(grid_shape, num_slots)[2]
        return tokens, grid_shape, valid

    def _block(self) -> Block:
        return Block(
            self.num_heads,
            self.mlp_ratio,
            self.dtype,
            *block_initializers(self.init_scheme),
            self.attention,
            self.norm_eps,
            parent=None,  # its parameters are stacked and passed by hand
        )

    def _segments(self, stops: list[int]):
        """Stacked block parameters, cut at `stops`."""

        def init(rng):
            x, image = jnp.zeros((1, self.width), self.dtype), Images((1, 1))
            return jax.vmap(lambda key: self._block().init(key, x, image)["params"])(
                jax.random.split(rng, self.depth)
            )

        if self.has_variable("params", BLOCKS):  # `param` would trace `init` anew
            stacked: Any = self.get_variable("params", BLOCKS)
        else:
            stacked = self.param(BLOCKS, init)
        sizes = np.diff([0, *stops]).tolist()
        # lax.split: its gradient is one concatenation, where slices would pad and add.
        leaves, tree = jax.tree.flatten(stacked)
        parts = zip(*(jax.lax.split(leaf, sizes) for leaf in leaves), strict=True)
        return [jax.tree.unflatten(tree, part) for part in parts]

    @nn.nowrap
    def drop_path_factors(self, rng: jax.Array, batch: int) -> jax.Array | None:
        """As of `RowEncoder`."""
        if not self.drop_path_rate:
            return None
        rates = jnp.linspace(0.0, self.drop_path_rate, self.depth)[None, :, None]
        shape = (batch, self.depth, 2)  # rows first: more of them change no other's
        return jax.random.bernoulli(rng, 1 - rates, shape) / (1 - rates)
