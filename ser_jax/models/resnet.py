"""ResNet that is called as the ViT is and returns what it does."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ser_jax.geometry.action import canvas_to_slots, slot_cells
from ser_jax.models.blocks import layer_norm
from ser_jax.models.outputs import EncoderOutput, TokenGrid, norm_grid
from ser_jax.models.resnet_blocks import EXPANSION, ResidualBlock, Stem


class ResNet(nn.Module):
    """Residual network; its layers are its stages.

    Pictures in the corner of a canvas give what they give alone: maps are kept zero
    outside them, as the convolutions' own padding is, and BatchNorm and the final mean
    count nothing there.

    Attributes:
        stage_sizes: Blocks in each stage: (2, 2, 2, 2) of ResNet-18, (3, 4, 6, 3) of
            ResNet-50.
        block: "basic" (ResNet-18) or "bottleneck" (ResNet-50).
        image_size: Pixels a side of the training image.
        num_filters: Channels inside the first stage's blocks; each stage doubles them.
        small_images: Stem of CIFAR: 3 x 3 without stride or pooling, not 7 x 7 with
            both.
        grid_layers: Stages whose map is returned, through a LayerNorm of its own.
        cls_layers: The last stage or nothing: its mean is all there is of a class
            token.
        zero_init_residual: Whether the last BatchNorm scale of each block starts at 0,
            blocks then being identities.
        dtype: Compute dtype of convolutions; statistics, norms and means are float32.
        stem_padding: Zeros around the image; None: 1 for the 3 x 3, 3 for the 7 x 7.
            With others, like solo-learn's 2, maps have sides that do not divide the
            image's, and pictures fill their images.

    Raises:
        ValueError: If a setting is not one of those above.

    Reference:
        He et al. (arXiv 1512.03385) in torchvision's layout; CIFAR stem: SimCLR (arXiv
        2002.05709), App. B.9; zero scales: Goyal et al. (arXiv 1706.02677), Sec. 5.1.
        Running variances are of the batch as it is, where PyTorch's are unbiased.
    """

    has_batch_norm: ClassVar[bool] = True  # `encode` then sees to whose statistics
    cls_insert: ClassVar[None] = None

    stage_sizes: tuple[int, ...]
    block: str
    image_size: int
    num_filters: int = 64
    small_images: bool = False
    grid_layers: tuple[int, ...] = ()
    cls_layers: tuple[int, ...] = ()
    zero_init_residual: bool = True
    dtype: DTypeLike = jnp.float32
    stem_padding: int | None = None

    def __post_init__(self):
        """Checks the attributes."""
        if self.block not in EXPANSION:
            raise ValueError(
                f"block must be 'basic' or 'bottleneck', got {self.block!r}."
            )
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} px is not a multiple of the total "
                f"stride, {self.patch_size} px; choose one that is, or small_images."
            )
        for layer in (*self.grid_layers, *self.cls_layers):
            if not 1 <= layer <= self.depth:
                raise ValueError(
                    f"layer {layer} is not in 1..depth = 1..{self.depth}: layers of a "
                    "ResNet are its stages. Set regularizer.layer to one of these."
                )
        if set(self.cls_layers) - {self.depth}:
            raise ValueError(
                f"cls_layers {self.cls_layers}: a ResNet has no class token, only the "
                f"mean after its last stage, {self.depth}. Read an earlier stage with "
                'pool = "mean_patch".'
            )
        super().__post_init__()

    @property
    def depth(self) -> int:
        """Number of stages."""
        return len(self.stage_sizes)

    @property
    def patch_size(self) -> int:
        """Pixels a side of what a cell of the last map stands for: the total stride."""
        return (1 if self.small_images else 4) * 2 ** (self.depth - 1)

    @nn.nowrap
    def to_finetune(self, drop_path_rate: float) -> "ResNet":
        """The same with nothing read off layers; it has no stochastic depth."""
        return self.clone(grid_layers=(), cls_layers=())

    @nn.compact
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
            images: `[b, h, w, 3]`, float, normalised; h and w multiples of the patch
                size. With `grid_shape`, square canvases whose top left corner holds
                the picture, zero elsewhere.
            grid_shape: (rows, columns) of each picture in patches, `[b, 2]`, int32;
                None if pictures fill `images`.
            num_slots: Static number of token slots of the last stage; needed with
                `grid_shape`. A stage whose cells are m times smaller has m * m as many.
            train: Whether BatchNorm uses the batch's statistics, and updates the
                running ones (in "batch_stats", to be mutable).

        Returns:
            Mean of the last map as `cls`, the map as tokens, and the grids asked for.

        Raises:
            ValueError: If the image size is not a multiple of the patch size,
                `num_slots` is missing, or canvases meet a `stem_padding`.
        """
        b, height, width, _ = images.shape
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"images of {height} x {width} px do not divide by the total stride "
                f"of {self.patch_size} px; resize them to a multiple of it."
            )
        if grid_shape is None:
            inside, room = None, 0
        elif num_slots is None:
            raise ValueError("grid_shape needs num_slots, the static size to hold it.")
        elif self.stem_padding is not None:
            raise ValueError(
                f"stem_padding {self.stem_padding} moves a picture within its canvas: "
                "give pictures that fill their images, without grid_shape."
            )
        else:
            inside, room = _inside(grid_shape * self.patch_size, height), num_slots

        def token_grid(x: jax.Array, scale: int) -> TokenGrid:
            if grid_shape is None:
                slots = x.shape[1] * x.shape[2]
                cells = jnp.broadcast_to(jnp.array(x.shape[1:3]), (b, 2))
                tokens = x.reshape(b, slots, -1)  # [b, n, d]
            else:
                cells, slots = grid_shape * scale, room * scale**2
                tokens = canvas_to_slots(x, cells, slots)
            valid = slot_cells(cells, slots)[2]
            return TokenGrid(tokens, cells, valid, scale, self.dtype)

        x, now_inside = Stem(
            self.num_filters,
            self.small_images,
            self.dtype,
            self.stem_padding,
            name="stem",
        )(images, inside, train=train)
        grids: dict[int, TokenGrid] = {}
        for stage, num_blocks in enumerate(self.stage_sizes, start=1):
            for i in range(1, num_blocks + 1):
                x, now_inside = ResidualBlock(
                    self.block,
                    self.num_filters * 2 ** (stage - 1),
                    2 if stage > 1 and i == 1 else 1,
                    self.zero_init_residual,
                    self.dtype,
                    name=f"stage{stage}_block{i}",
                )(x, now_inside, train=train)
            if stage in self.grid_layers:
                normed = layer_norm(norm_grid(stage))(x)
                grids[stage] = token_grid(normed, 2 ** (self.depth - stage))

        x = x.astype(jnp.float32)  # fp32: mean
        last = token_grid(x, 1)
        num_cells = jnp.prod(last.grid_shape, axis=1, keepdims=True)
        cls = jnp.sum(x, axis=(1, 2)) / num_cells
        cls_at = dict.fromkeys(self.cls_layers, cls)
        return EncoderOutput(cls, last.tokens, last.valid, grids, cls_at)


def _inside(extent_px: jax.Array, side: int) -> jax.Array:
    """Which pixels of a canvas its picture covers: `[b, 2]` -> `[b, s, s, 1]`."""
    covered = jnp.arange(side)[None, None] < extent_px[..., None]  # [b, 2, s]
    return (covered[:, 0, :, None] & covered[:, 1, None, :])[..., None]
