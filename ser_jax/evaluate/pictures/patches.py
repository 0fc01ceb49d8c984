"""Patches of pictures: what the class token looks at, and what their tokens say."""

import dataclasses

import numpy as np
from etils import epath

from ser_jax.evaluate.pictures import figures


@dataclasses.dataclass(frozen=True)
class TokenColors:
    """Tokens as colours: red, green and blue are three principal components.

    Attributes:
        mean: Of the tokens it was fitted on, `[d]`.
        axes: First three principal components, `[d, 3]`; the largest entry of each is
            positive. Zero where the tokens span less.
        low: What becomes 0 in each, `[3]`.
        high: What becomes 1, `[3]`.
    """

    mean: np.ndarray
    axes: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def fit(cls, tokens: np.ndarray) -> "TokenColors":
        """Colours that spread these tokens from their 1st to their 99th percentile.

        Args:
            tokens: `[n, d]`.

        Returns:
            The map.
        """
        tokens = np.asarray(tokens, np.float64)
        mean = tokens.mean(axis=0)
        # full_matrices adds directions in which nothing varies to those of few tokens
        _, scales, directions = np.linalg.svd(tokens - mean, full_matrices=False)
        axes = np.zeros((tokens.shape[1], 3))
        num_axes = min(3, int(np.sum(scales > 1e-6 * max(scales[0], 1e-6))))
        for i, axis in enumerate(directions[:num_axes]):
            axes[:, i] = axis * np.sign(axis[np.argmax(np.abs(axis))])
        low, high = np.quantile((tokens - mean) @ axes, [0.01, 0.99], axis=0)
        return cls(mean, axes, low, high)

    def __call__(self, tokens: np.ndarray) -> np.ndarray:
        """Colours of tokens.

        Args:
            tokens: `[..., d]`.

        Returns:
            `[..., 3]`, float, in [0, 1]; half where the fitted tokens did not vary.
        """
        places = (np.asarray(tokens, np.float64) - self.mean) @ self.axes
        spread = self.high - self.low
        varies = spread > 0
        scaled = (places - self.low) / np.where(varies, spread, 1)
        return np.where(varies, np.clip(scaled, 0, 1), 0.5)


def attention_picture(
    path: epath.Path, images: np.ndarray, attention: np.ndarray
) -> epath.Path:
    """Path of a PNG: each picture beside its heads' attention, one map a head.

    Args:
        path: The file; replaced as a whole.
        images: `[b, h, w, 3]`, uint8.
        attention: Of the class token to the patches in the last block,
            `[b, heads, rows, cols]`, >= 0. Each map is drawn from 0 to its own largest
            value.

    Returns:
        The path.

    Reference:
        Caron et al. (arXiv 2104.14294), Fig. 1.
    """
    b, num_heads, rows, cols = attention.shape
    figure, axes = figures.panels(b, 1 + num_heads)
    axes[0, 0].set_title("picture", fontsize=8)
    for head in range(num_heads):
        axes[0, 1 + head].set_title(f"head {head + 1}", fontsize=8)
    for row, image, maps in zip(axes, images, attention, strict=True):
        figures.show(row[0], image, (rows, cols))
        for ax, heat in zip(row[1:], maps, strict=True):
            figures.show(ax, heat, (rows, cols), cmap="inferno", vmin=0)
    return figures.save(figure, path)


def patch_pca_picture(
    path: epath.Path, images: np.ndarray, tokens: np.ndarray
) -> epath.Path:
    """Path of a PNG: pictures, and below them their tokens in joint colours.

    Args:
        path: The file; replaced as a whole.
        images: `[b, h, w, 3]`, uint8.
        tokens: Patch tokens, `[b, rows, cols, d]`; the colours are fitted on all.

    Returns:
        The path.

    Reference:
        Oquab et al. (arXiv 2304.07193), Fig. 1, without its cut of the background.
    """
    b, rows, cols, d = tokens.shape
    colors = TokenColors.fit(tokens.reshape(-1, d))
    figure, axes = figures.panels(2, b)
    axes[0, 0].set_ylabel("picture", fontsize=8)
    axes[1, 0].set_ylabel("tokens", fontsize=8)
    for column, image, grid in zip(axes.T, images, tokens, strict=True):
        figures.show(column[0], image, (rows, cols))
        figures.show(column[1], colors(grid), (rows, cols))
    return figures.save(figure, path)
