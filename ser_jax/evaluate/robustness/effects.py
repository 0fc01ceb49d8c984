"""The corruptions of ImageNet-C and CIFAR-10-C as functions of an image.

Each takes `image`, float32 `[size, size, 3]` in [0, 1], a generator and its named
strength, and returns the corrupted image in the same form, possibly beyond [0, 1].
Lengths are in pixels, angles in degrees.

Reference:
    Hendrycks and Dietterich (arXiv 1903.12261), Sec. 4.1 and App. B.
"""

import io

import cv2
import numpy as np
from PIL import Image
from scipy import ndimage

Rng = np.random.Generator


def gaussian_noise(image: np.ndarray, rng: Rng, *, std: float) -> np.ndarray:
    """Noise of a camera in low light."""
    return image + rng.normal(scale=std, size=image.shape)


def shot_noise(image: np.ndarray, rng: Rng, *, photons: float) -> np.ndarray:
    """Poisson noise where white is `photons` photons."""
    return rng.poisson(image * photons) / photons


def impulse_noise(image: np.ndarray, rng: Rng, *, share: float) -> np.ndarray:
    """Salt and pepper on a share of the values, each channel on its own."""
    salt_or_pepper = rng.integers(0, 2, image.shape)
    return np.where(rng.random(image.shape) < share, salt_or_pepper, image)


def defocus_blur(
    image: np.ndarray, rng: Rng, *, radius_px: float, soften_px: float
) -> np.ndarray:
    """Blur by a disk whose edge is softened by a Gaussian."""
    half = max(8, int(radius_px))  # room for the softened edge of a small disk
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    disk = (x**2 + y**2 <= radius_px**2).astype(np.float32)
    window = (3, 3) if radius_px <= 8 else (5, 5)
    kernel = cv2.GaussianBlur(disk / disk.sum(), window, soften_px)
    return cv2.filter2D(image, -1, kernel)


def glass_blur(
    image: np.ndarray, rng: Rng, *, sigma_px: float, reach_px: int, num_passes: int
) -> np.ndarray:
    """Blur, pixels that take the place of near ones, blur."""
    size = len(image)
    scan = np.arange(size - reach_px, reach_px, -1)
    places = (scan[:, None] * size + scan).ravel()
    source = list(range(size * size))
    for _ in range(num_passes):
        dx, dy = rng.integers(-reach_px, reach_px, (2, len(places)))
        # One after the other, as a pixel may take what another has just taken. The
        # paper says "swap"; its program copies, and so made the published images.
        for place, other in zip(
            places.tolist(), (places + dy * size + dx).tolist(), strict=True
        ):
            source[place] = source[other]
    shuffled = _gaussian_blur(image, sigma_px).reshape(-1, 3)[source]
    return _gaussian_blur(shuffled.reshape(image.shape), sigma_px)


def motion_blur(
    image: np.ndarray, rng: Rng, *, radius_px: int, sigma_px: float
) -> np.ndarray:
    """Blur along a line up to 45 degrees off the horizontal."""
    return streak(image, radius_px, sigma_px, rng.uniform(-45, 45))


def zoom_blur(image: np.ndarray, rng: Rng, *, stop: float, step: float) -> np.ndarray:
    """Mean of the image and enlargements of it, from 1 to about `stop` times."""
    factors = np.arange(1, stop, step)  # holds `stop` or not, as in the publication
    enlarged = sum(_zoom(image, factor) for factor in factors)
    return (image + enlarged) / (len(factors) + 1)


def snow(
    image: np.ndarray,
    rng: Rng,
    *,
    mean: float,
    std: float,
    flake_zoom: float,
    threshold: float,
    radius_px: int,
    sigma_px: float,
    keep: float,
) -> np.ndarray:
    """Whitened image with two layers of falling flakes."""
    layer = flakes(image.shape[:2], rng, mean, std, flake_zoom, threshold)
    falling = streak(layer, radius_px, sigma_px, rng.uniform(-135, -45))
    return snowed(image, falling, keep)


def flakes(
    shape: tuple[int, ...],
    rng: Rng,
    mean: float,
    std: float,
    flake_zoom: float,
    threshold: float,
) -> np.ndarray:
    """A layer of flakes at rest, float `shape` in [0, 1]: the peaks of zoomed noise."""
    noise = _zoom(rng.normal(mean, std, shape), flake_zoom)
    return np.clip(np.where(noise < threshold, 0, noise), 0, 1)


def snowed(image: np.ndarray, falling: np.ndarray, keep: float) -> np.ndarray:
    """The image whitened but for a share, under flakes and the same turned round."""
    falling = falling[..., None]
    white = 1.5 * cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None] + 0.5
    whitened = keep * image + (1 - keep) * np.maximum(image, white)
    return whitened + falling + np.rot90(falling, 2)


def fog(image: np.ndarray, rng: Rng, *, density: float, decay: float) -> np.ndarray:
    """A cloudy layer over the image, as bright at most as the image was."""
    size, brightest = len(image), image.max()
    cloud = _plasma(size, decay, rng)[:size, :size, None]
    return (image + density * cloud) * brightest / (brightest + density)


def brightness(image: np.ndarray, rng: Rng, *, shift: float) -> np.ndarray:
    """A higher or lower value in HSV, with hue and saturation kept."""
    hue, saturation, value = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))
    brighter = cv2.merge((hue, saturation, np.minimum(value + np.float32(shift), 1)))
    return cv2.cvtColor(brighter, cv2.COLOR_HSV2RGB)


def contrast(image: np.ndarray, rng: Rng, *, keep: float) -> np.ndarray:
    """Each channel drawn towards its mean; `keep` of the difference stays."""
    mean = image.mean(axis=(0, 1))
    return mean + keep * (image - mean)


def elastic_transform(
    image: np.ndarray,
    rng: Rng,
    *,
    displacement_px: float,
    sigma_px: float,
    corner_px: float,
) -> np.ndarray:
    """A random affine map, then smooth random displacements."""
    size = len(image)
    low, high = size // 2 - size // 3, size // 2 + size // 3
    corners = np.array([(high, high), (high, low), (low, low)], np.float32)
    moved = corners + rng.uniform(-corner_px, corner_px, (3, 2)).astype(np.float32)
    affine = cv2.getAffineTransform(corners, moved)
    image = cv2.warpAffine(
        image, affine, (size, size), borderMode=cv2.BORDER_REFLECT_101
    )
    noise = rng.uniform(-1, 1, (2, size, size))
    smooth = ndimage.gaussian_filter(noise, (0, sigma_px, sigma_px), truncate=3)
    source_y, source_x = np.mgrid[:size, :size] + displacement_px * smooth
    return cv2.remap(
        image,
        source_x.astype(np.float32),
        source_y.astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT,
    )


def pixelate(image: np.ndarray, rng: Rng, *, scale: float) -> np.ndarray:
    """Shrunk to `scale` of its side and enlarged again, without smoothing."""
    size = len(image)
    small = (int(size * scale),) * 2
    small_image = Image.fromarray(to_uint8(image)).resize(small, Image.Resampling.BOX)
    enlarged = small_image.resize((size, size), Image.Resampling.BOX)
    return np.asarray(enlarged, np.float32) / 255


def jpeg_compression(image: np.ndarray, rng: Rng, *, quality: int) -> np.ndarray:
    """Compressed and decompressed."""
    file = io.BytesIO()
    Image.fromarray(to_uint8(image)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file), np.float32) / 255


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Values 0..255, `[h, w, 3]`, uint8, of an image in [0, 1], clipped to it.

    Truncated, as in the code that made ImageNet-C and -P: half a level darker than
    rounded. A level over 255 comes back as it was.
    """
    return (255 * np.clip(image, 0, 1)).astype(np.uint8)


def _gaussian_blur(image: np.ndarray, sigma_px: float) -> np.ndarray:
    return ndimage.gaussian_filter(image, (sigma_px, sigma_px, 0), mode="nearest")


def _zoom(image: np.ndarray, factor: float) -> np.ndarray:
    """The middle of the image, enlarged to its whole size.

    Crop and enlarged crop are whole pixels, corner on corner, as in the publication:
    at 32 px this shifts it by up to a pixel, half the change that mild zoom blur makes.
    """
    size = len(image)
    crop = int(np.ceil(size / factor))
    enlarged = round(crop * factor)
    scale = (crop - 1) / (enlarged - 1)
    start = (size - crop) // 2 + (enlarged - size) // 2 * scale
    return cv2.warpAffine(
        image,
        np.array([(scale, 0, start), (0, scale, start)]),
        (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )


def streak(
    image: np.ndarray, radius_px: int, sigma_px: float, angle_deg: float
) -> np.ndarray:
    """Blur to one side along a line, as ImageMagick's motion blur does."""
    distance = np.arange(2 * radius_px + 1)
    weight = np.exp(-(distance**2) / (2 * sigma_px**2))
    angle = np.deg2rad(angle_deg)
    x, y = np.rint(np.outer((np.cos(angle), np.sin(angle)), distance)).astype(int)
    middle = len(distance) - 1
    kernel = np.zeros((2 * middle + 1,) * 2)
    np.add.at(kernel, (middle + y, middle + x), weight / weight.sum())
    return cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REPLICATE)


def _plasma(min_size: int, decay: float, rng: Rng) -> np.ndarray:
    """A periodic cloud in [0, 1], `[n, n]`, n the power of two from `min_size` on.

    The diamond-square algorithm: every doubling of the grid fills in the middles of
    squares, then of edges, with the mean of their four neighbours plus noise, whose
    range falls by `decay` squared.
    """
    coarse, noise_range = np.zeros((1, 1)), 1.0

    def mean_plus_noise(*neighbours):
        noise = rng.uniform(-noise_range, noise_range, coarse.shape)
        return sum(neighbours) / 4 + noise

    while len(coarse) < min_size:
        right, below = np.roll(coarse, -1, 1), np.roll(coarse, -1, 0)
        diagonal = np.roll(right, -1, 0)
        middle = mean_plus_noise(coarse, right, below, diagonal)
        fine = np.empty((2 * len(coarse),) * 2)
        fine[::2, ::2], fine[1::2, 1::2] = coarse, middle
        fine[::2, 1::2] = mean_plus_noise(coarse, right, middle, np.roll(middle, 1, 0))
        fine[1::2, ::2] = mean_plus_noise(coarse, below, middle, np.roll(middle, 1, 1))
        coarse, noise_range = fine, noise_range / decay**2
    return (coarse - coarse.min()) / np.ptp(coarse)
