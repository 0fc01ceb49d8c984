"""From an encoded picture, whoever made it, to RGB; how much is read is bounded."""

import contextlib
import io
import threading
import warnings
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import ExifTags, Image, JpegImagePlugin, UnidentifiedImageError

# Whole pictures of more pixels than this are not read: Pillow's own mark of a
# "decompression bomb", 256 MiB of RGB. ImageNet's largest has 61 million.
MAX_PIXELS = 89_478_485
# A JPEG that is not progressive is decoded row by row, so that more can be read small.
MAX_JPEG_PIXELS = 2**29
# Of the formats Pillow knows, those that no other program is started for.
_SAFE = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "JPEG2000", "AVIF")
Image.init()
_FORMATS = [name for name in _SAFE if name in Image.OPEN]  # AVIF from Pillow 11.3
# Pillow warns of pictures that are refused below, and of broken EXIF, which is upright.
warnings.filterwarnings("ignore", module=r"PIL\.")

_LARGE_PIXELS = 2**25
_one_large = threading.Lock()  # Or each thread would hold half a gigabyte.


class UnreadableImageError(ValueError):
    """The bytes hold no image that can be decoded."""


class Header(NamedTuple):
    """What a picture says of itself before it is decoded.

    Attributes:
        format: Pillow's name of the format: "JPEG", "PNG".
        mode: Pillow's name of the pixels: "RGB", "P", "I;16".
        orientation: EXIF's, 1 to 8; 1 is upright.
        has_alpha: It has alpha or a transparent colour.
        has_16_bits: A channel has.
        has_more_frames: It moves or has pages.
        factor: By what its sides are divided in decoding: 1, 2 or 4.
    """

    format: str
    mode: str
    orientation: int
    has_alpha: bool
    has_16_bits: bool
    has_more_frames: bool
    factor: int


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Height and width, px, of a JPEG that `decode_image` can reduce; else None."""
    try:
        height, width = simplejpeg.decode_jpeg_header(data)[:2]
    except ValueError:  # no JPEG, or one that only Pillow reads
        return None
    return (height, width) if height * width <= MAX_PIXELS else None


def decode_image(data: bytes, factor: int = 1) -> np.ndarray:
    """The image as RGB.

    Grey is repeated over the channels, a palette looked up, CMYK converted, alpha
    dropped, of 16 bits the upper 8 kept, of several frames the first. EXIF rotation is
    not applied: neither torchvision nor TFDS does. A JPEG of more than `MAX_PIXELS` is
    decoded at a half or a quarter of its sides.

    Args:
        data: An encoded image: JPEG, PNG, WebP, GIF, TIFF, BMP, PPM, JPEG 2000, AVIF.
        factor: By what the sides are divided, rounded up: 1, 2, 4 or 8. More than 1
            only of an image that has a `jpeg_size`.

    Returns:
        Pixels, `[h, w, 3]`, uint8.

    Raises:
        UnreadableImageError: If the bytes cannot be decoded in full, have more pixels
            than are read, or pixels of no stated range (floats, 32-bit integers).
    """
    try:
        if simplejpeg.is_jpeg(data):
            try:
                height, width = simplejpeg.decode_jpeg_header(data)[:2]
                if height * width <= MAX_PIXELS:
                    with _turn(height * width):
                        return simplejpeg.decode_jpeg(
                            data,
                            colorspace="RGB",
                            min_height=-(-height // factor),
                            min_width=-(-width // factor),
                        )
            except ValueError:
                # It refuses what libjpeg only warns about (stray bytes between markers,
                # as in a few ImageNet files); Pillow reads those and has the last word.
                pass
        with _open(data) as image, _turn(image.width * image.height):
            pixels = _pixels(image)
            if factor == 1:
                return pixels
            return np.asarray(Image.fromarray(pixels).reduce(factor))
    except Exception as error:  # on broken bytes a codec may raise anything
        raise UnreadableImageError(_reason(error, data)) from error


def read_header(data: bytes) -> Header:
    """What a picture says of itself; its pixels are not decoded.

    Args:
        data: An encoded image.

    Returns:
        The header.

    Raises:
        UnreadableImageError: If it is none of the formats that are read.
    """
    try:
        with _open(data) as image:
            factor = _factor(image)
            # Pillow turns a TIFF itself: there the tag is part of the format.
            turn = 1 if image.format == "TIFF" else _orientation(image)
            return Header(
                image.format or "",
                image.mode,
                turn,
                image.mode.endswith(("A", "a")) or "transparency" in image.info,
                _has_16_bits(image, data),
                getattr(image, "is_animated", False),
                factor,
            )
    except Exception as error:
        raise UnreadableImageError(_reason(error, data)) from error


def read_size(data: bytes) -> tuple[int, int]:
    """Height and width that a picture says it has; its pixels are not decoded.

    Args:
        data: An encoded image.

    Returns:
        Height and width, px, as stored: before EXIF's turn.

    Raises:
        UnreadableImageError: If it is none of the formats that are read.
    """
    try:
        with _open(data) as image:
            return image.height, image.width
    except Exception as error:
        raise UnreadableImageError(_reason(error, data)) from error


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """The image as EXIF says that it is to be shown.

    Args:
        image: `[h, w, 3]`.
        orientation: EXIF's, 1 to 8.

    Returns:
        The image, mirrored and turned by quarters.
    """
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def _open(data: bytes) -> Image.Image:
    if simplejpeg.is_jpeg(data):
        # Its class, not `Image.open`, which refuses a size that can be read reduced.
        return JpegImagePlugin.JpegImageFile(io.BytesIO(data))
    return Image.open(io.BytesIO(data), formats=_FORMATS)


def _turn(num_pixels: int) -> contextlib.AbstractContextManager:
    """Lets large pictures be decoded one at a time."""
    return _one_large if num_pixels > _LARGE_PIXELS else contextlib.nullcontext()


def _factor(image: Image.Image) -> int:
    """By what the sides are divided, so that no more than `MAX_PIXELS` come out."""
    num_pixels = image.width * image.height
    reducible = image.format == "JPEG" and not image.info.get("progressive")
    most = MAX_JPEG_PIXELS if reducible else MAX_PIXELS
    if num_pixels > most:
        raise UnreadableImageError(
            f"{image.width} x {image.height} pixels, where at most {most:,} of a "
            f"{image.format} are read; make it smaller"
        )
    return next(f for f in (1, 2, 4) if num_pixels <= f * f * MAX_PIXELS)


def _pixels(image: Image.Image) -> np.ndarray:
    factor = _factor(image)
    if factor > 1:
        image.draft("RGB", (image.width // factor, image.height // factor))
    image.load()
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        grey = (np.asarray(image) >> 8).astype(np.uint8)  # convert() would clip
        return np.repeat(grey[..., None], 3, axis=-1)
    if image.mode in ("I", "F"):
        kind = "32-bit integers" if image.mode == "I" else "floating-point numbers"
        raise UnreadableImageError(
            f"its pixels are {kind}, and which are black and white is not said; save "
            "it with 8 or 16 bits"
        )
    if "transparency" in image.info or image.mode in ("RGBa", "La"):
        return np.asarray(image.convert("RGBA"))[..., :3].copy()
    return np.asarray(image.convert("RGB"))


def _has_16_bits(image: Image.Image, data: bytes) -> bool:
    if image.format == "PNG":
        return data[24] == 16  # where each PNG has it; Pillow does not tell for colour
    return image.mode.startswith("I")


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # of broken EXIF; the pixels are what they are
        return 1
    return value if value in range(1, 9) else 1


def _reason(error: Exception, data: bytes) -> str:
    if not data:
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return f"by its first bytes none of {', '.join(_FORMATS)}"
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
