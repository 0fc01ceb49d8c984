import io
import threading

import numpy as np
import pytest
from helpers.prepare_files import bomb_jpeg
from PIL import ExifTags, Image, ImageOps, PngImagePlugin

from ser_jax.data import decode


def photo(height, width):
    """A smooth coloured image: noise enlarged, so that codecs treat it kindly."""
    noise = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    resized = Image.fromarray(noise).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized)


def encode(image, file_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


RGB = photo(30, 40)
JPEG = encode(Image.fromarray(RGB), "JPEG", quality=100, subsampling=0)
PNG = encode(Image.fromarray(RGB), "PNG")


@pytest.mark.parametrize(
    ("data", "tolerance"),
    [
        (PNG, 0),
        (encode(Image.fromarray(RGB), "WEBP", lossless=True), 0),
        (encode(Image.fromarray(np.dstack([RGB, RGB[..., :1]])), "PNG"), 0),
        (JPEG, 4),
        (encode(Image.fromarray(RGB).convert("CMYK"), "JPEG", quality=95), 6),
    ],
    ids=["png", "webp", "alpha", "jpeg", "cmyk"],
)
def test_decodes_colour_as_rgb(data, tolerance):
    """Red if the channels are swapped or CMYK is passed through as it is."""
    decoded = decode.decode_image(data)
    assert decoded.shape == (30, 40, 3) and decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - RGB).max() <= tolerance


def test_decodes_grey_palette_and_16_bit():
    """Red if 16-bit grey is clipped (all white) or a channel is missing."""
    grey = RGB[..., 0]
    as_rgb = np.repeat(grey[..., None], 3, axis=-1)
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    np.testing.assert_array_equal(decode.decode_image(encode(deep, "PNG")), as_rgb)
    np.testing.assert_array_equal(
        decode.decode_image(encode(Image.fromarray(grey), "PNG")), as_rgb
    )
    jpeg = decode.decode_image(encode(Image.fromarray(grey), "JPEG", quality=95))
    assert np.abs(jpeg.astype(int) - as_rgb).max() <= 4
    palette = Image.fromarray(RGB).quantize(16)
    expected = np.asarray(palette.convert("RGB"))
    for options in ({}, {"transparency": bytes(range(16))}):
        decoded = decode.decode_image(encode(palette, "PNG", **options))
        np.testing.assert_array_equal(decoded, expected)


def test_jpeg_with_stray_bytes_is_read():
    """Red without the second try: libjpeg warns, simplejpeg refuses."""
    marker = JPEG.index(b"\xff\xdb")
    stray = JPEG[:marker] + b"\x00\x00" + JPEG[marker:]
    np.testing.assert_array_equal(decode.decode_image(stray), decode.decode_image(JPEG))


@pytest.mark.parametrize(
    "data", [b"", b"not an image", JPEG[: len(JPEG) // 2], PNG[: len(PNG) // 2]]
)
def test_undecodable_bytes_raise_with_a_reason(data):
    with pytest.raises(decode.UnreadableImageError, match="."):
        decode.decode_image(data)


@pytest.mark.parametrize("file_format", ["GIF", "TIFF", "BMP", "PPM", "JPEG2000"])
def test_other_formats_are_read(file_format):
    grey = Image.fromarray(RGB).convert("L")  # which GIF keeps as it is
    decoded = decode.decode_image(encode(grey, file_format))
    np.testing.assert_array_equal(decoded, np.asarray(grey.convert("RGB")))
    assert decode.read_header(encode(grey, file_format)).format == file_format


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "TIFF", "PNG"])
def test_of_several_frames_the_first_is_read(file_format):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("white", "red", "black")]
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = encode(
        frames[0], file_format, save_all=True, append_images=frames[1:], **options
    )
    assert decode.read_header(data).has_more_frames
    assert (decode.decode_image(data) == 255).all()


@pytest.mark.parametrize("mode", ["LA", "PA", "RGBA"])
def test_alpha_is_dropped_and_told(mode):
    colour = Image.new("RGB", (8, 8), (200, 200, 200)).convert("RGBA")
    colour.putalpha(7)
    data = encode(colour.convert(mode), "TIFF" if mode == "PA" else "PNG")
    assert decode.read_header(data).has_alpha
    np.testing.assert_array_equal(decode.decode_image(data), np.full((8, 8, 3), 200))


def test_16_bits_are_halved_wherever_they_come_from():
    """Red if a format's way of saying 16 bits is clipped, or taken for 32."""
    deep = Image.fromarray((np.arange(54, dtype=np.uint16) * 1200).reshape(6, 9))
    expected = np.repeat((np.asarray(deep) >> 8)[..., None], 3, axis=-1)
    for file_format in ("PNG", "TIFF", "PPM", "JPEG2000"):
        decoded = decode.decode_image(encode(deep, file_format))
        np.testing.assert_array_equal(decoded, expected)


@pytest.mark.parametrize(("mode", "name"), [("I", "32-bit"), ("F", "floating-point")])
def test_pixels_of_no_stated_range_are_refused_by_name(mode, name):
    data = encode(Image.fromarray(RGB).convert("L").convert(mode), "TIFF")
    with pytest.raises(decode.UnreadableImageError, match=name):
        decode.decode_image(data)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_is_what_pillow_shows(file_format, orientation):
    """Red if a turn is mirrored, or a TIFF, which Pillow turns, is turned twice."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    options = {"quality": 95} if file_format == "JPEG" else {}
    options |= {"lossless": True} if file_format == "WEBP" else {}
    data = encode(Image.fromarray(RGB), file_format, exif=exif, **options)
    header = decode.read_header(data)
    shown = decode.upright(decode.decode_image(data), header.orientation)
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(shown, np.asarray(ImageOps.exif_transpose(image)))


@pytest.mark.parametrize("value", [0, 9, 4000])
def test_an_orientation_that_is_none_is_upright(value):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = value
    data = encode(Image.fromarray(RGB), "PNG", exif=exif)
    assert decode.read_header(data).orientation == 1


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("exif", [b"II*\0\xff\xff\xff\xff", b"no TIFF"])
def test_broken_exif_is_upright(file_format, exif):
    data = encode(Image.fromarray(RGB), file_format, exif=b"Exif\0\0" + exif)
    assert decode.read_header(data).orientation == 1


def png_of_size(width, height):
    """A PNG that says it is that large and holds one pixel's worth."""
    data = bytearray(encode(Image.new("L", (1, 1)), "PNG"))
    ihdr = data.index(b"IHDR")
    data[ihdr + 4 : ihdr + 12] = width.to_bytes(4) + height.to_bytes(4)
    checksum = PngImagePlugin._crc32(bytes(data[ihdr : ihdr + 17]))
    data[ihdr + 17 : ihdr + 21] = checksum.to_bytes(4)
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        png_of_size(10_000, 10_000),
        png_of_size(30_000, 30_000),
        bomb_jpeg(24_000, 24_000),
        bomb_jpeg(45_000, 45_000),
    ],
)
@pytest.mark.filterwarnings("ignore:Image size")
def test_a_bomb_is_refused_before_it_is_decoded(data, monkeypatch):
    monkeypatch.setattr(
        Image.Image, "load", lambda image: pytest.fail("it was decoded")
    )
    with pytest.raises(decode.UnreadableImageError, match="pixels"):
        decode.decode_image(data)


@pytest.mark.parametrize(("most", "factor"), [(1200, 1), (1199, 2), (299, 4)])
def test_a_large_jpeg_is_decoded_at_a_part_of_its_sides(monkeypatch, most, factor):
    """The limits lowered. Red if it is decoded whole, or its factor not told."""
    monkeypatch.setattr(decode, "MAX_PIXELS", most)
    expected = (30 + factor - 1) // factor, 40 // factor, 3
    assert decode.decode_image(JPEG).shape == expected
    assert decode.read_header(JPEG).factor == factor
    progressive = encode(Image.fromarray(RGB), "JPEG", progressive=True)
    if factor > 1:  # all of it would be held at once
        with pytest.raises(decode.UnreadableImageError, match="30 pixels, where at"):
            decode.decode_image(progressive)


def test_large_pictures_are_decoded_one_at_a_time(monkeypatch):
    monkeypatch.setattr(decode, "_LARGE_PIXELS", 1199)
    for data in (JPEG, PNG):
        with decode._one_large:
            thread = threading.Thread(target=decode.decode_image, args=(data,))
            thread.start()
            thread.join(0.02)
            assert thread.is_alive()
        thread.join()


POSTSCRIPT = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
)


@pytest.mark.parametrize(
    "data", [POSTSCRIPT, b"text named .jpg", b"II*\0" + b"\0" * 40]
)
def test_what_is_no_picture_starts_no_program(monkeypatch, data):
    monkeypatch.setattr("subprocess.Popen", lambda *a, **k: pytest.fail("started"))
    monkeypatch.setattr("subprocess.check_call", lambda *a, **k: pytest.fail("started"))
    with pytest.raises(decode.UnreadableImageError) as caught:
        decode.decode_image(data)
    assert "\n" not in str(caught.value) and "object at" not in str(caught.value)
    with pytest.raises(decode.UnreadableImageError):
        decode.read_header(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_size_without_pixels(kind):
    stream = io.BytesIO()
    Image.new("RGB", (7, 5)).save(stream, kind)
    assert decode.read_size(stream.getvalue()) == (5, 7)
    assert decode.read_size(stream.getvalue()[:-8]) == (5, 7)
    with pytest.raises(decode.UnreadableImageError, match="none of JPEG"):
        decode.read_size(b"no picture")


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_jpegs_are_decoded_at_a_part_of_their_sides(factor):
    """Also one that simplejpeg refuses."""
    picture = photo(83, 121)
    jpeg = encode(Image.fromarray(picture), "JPEG", quality=95)
    assert decode.jpeg_size(jpeg) == (83, 121)
    marker = jpeg.index(b"\xff\xdb")
    small = np.asarray(Image.fromarray(picture).reduce(factor))  # rounded up
    assert small.shape == (-(-83 // factor), -(-121 // factor), 3)
    for data in (jpeg, jpeg[:marker] + b"\x00\x00" + jpeg[marker:]):
        decoded = decode.decode_image(data, factor)
        assert decoded.shape == small.shape and decoded.dtype == np.uint8
        assert np.abs(decoded.astype(int) - small)[:-1, :-1].mean() < 3


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (7, 7), (9, 2)])
def test_tiny_jpegs_are_decoded_whole(size):
    """Not at 7/8, though that rounds up to as many pixels."""
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    jpeg = encode(Image.fromarray(noise), "JPEG", quality=95)
    expected = np.asarray(Image.open(io.BytesIO(jpeg)))
    np.testing.assert_array_equal(decode.decode_image(jpeg), expected)


def test_what_cannot_be_reduced_has_no_jpeg_size():
    huge = bomb_jpeg(30_000, 30_000)
    assert [decode.jpeg_size(data) for data in (PNG, b"", huge)] == [None] * 3
