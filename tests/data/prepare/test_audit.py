import io

import cv2
import numpy as np
import pytest
from helpers.prepare_files import RNG, bomb_jpeg, encode, picture
from PIL import ExifTags, Image

from ser_jax.data import decode
from ser_jax.data.decode import decode_image
from ser_jax.data.prepare.audit import Audit, to_storable
from ser_jax.data.prepare.image_set import ImageSplit, Item, PrepareError


def saved(image, file_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def turned_by(orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


RGB = Image.fromarray(picture())
DEEP = RNG.integers(0, 2**16, (5, 6, 3), dtype=np.uint16)


@pytest.mark.parametrize(
    ("data", "notes"),
    [
        (saved(RGB, "JPEG"), ()),
        (saved(RGB.convert("L"), "JPEG"), ()),
        (saved(RGB, "PNG"), ()),
        (saved(RGB, "JPEG", exif=turned_by(6)), ("not turned as EXIF says",)),
    ],
)
def test_what_every_reader_shows_as_rgb_is_kept_as_it_is(data, notes):
    assert to_storable(data) == (data, notes)


@pytest.mark.parametrize(
    ("data", "notes"),
    [
        (saved(RGB.convert("P"), "PNG"), ()),
        (saved(RGB, "BMP"), ()),
        (saved(RGB.convert("CMYK"), "JPEG"), ("CMYK converted",)),
        (saved(RGB.convert("LA"), "PNG"), ("alpha dropped",)),
        (saved(RGB, "PNG", transparency=(1, 2, 3)), ("alpha dropped",)),
        (
            saved(Image.fromarray(np.full((3, 3), 4000, np.uint16)), "TIFF"),
            ("16 bits cut to 8",),
        ),
        (cv2.imencode(".png", DEEP)[1].tobytes(), ("16 bits cut to 8",)),
        (
            saved(
                RGB, "GIF", save_all=True, append_images=[Image.new("RGB", (12, 10))]
            ),
            ("first of several frames",),
        ),
    ],
)
def test_the_rest_is_stored_as_png_and_told(data, notes):
    stored = to_storable(data)
    assert stored.notes == notes
    with Image.open(io.BytesIO(stored.data)) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
    np.testing.assert_array_equal(decode_image(stored.data), decode_image(data))


def test_a_picture_is_turned_if_that_is_wanted():
    data = saved(RGB, "JPEG", exif=turned_by(6))  # to be turned by 90 degrees clockwise
    stored = to_storable(data, turn=True)
    assert stored.notes == ("turned as EXIF says",)
    np.testing.assert_array_equal(
        decode_image(stored.data), np.rot90(decode_image(data), -1)
    )
    assert to_storable(stored.data, turn=True) == (stored.data, ())


def test_a_reduced_picture_is_stored_reduced(monkeypatch):
    monkeypatch.setattr(decode, "MAX_PIXELS", 60)
    stored = to_storable(encode(picture()))
    assert stored.notes == ("larger than is read, reduced",)
    assert decode_image(stored.data).shape == (5, 6, 3)


def no_memory():
    raise MemoryError


@pytest.mark.filterwarnings("ignore:Image size")
def test_every_bad_picture_is_one_line(tmp_path, capsys):
    """Red if what a codec raises ends the run, or a name breaks the report's lines."""
    loads = {
        "good.jpg": lambda: encode(picture()),
        "empty.jpg": bytes,
        "text.jpg": lambda: b"hello",
        "cut.jpg": lambda: encode(picture())[:300],
        "cut.gif": lambda: saved(RGB, "GIF")[:40],
        "two\nlines.png": lambda: b"\x89PNG\r\n\x1a\n",
        "bomb.jpg": lambda: bomb_jpeg(60_000, 60_000),
        "memory.jpg": no_memory,
    }
    items = [Item(name, load, {}, 1.0) for name, load in loads.items()]
    audit = Audit(["lost.heic\tnot read"])
    examples = list(audit.examples("train", ImageSplit(items, 0)))
    assert [name for name, _ in examples] == ["good.jpg"]
    assert audit.num_images == 1 + len(loads)
    phrase = audit.report(tmp_path / "list.txt")
    assert phrase.startswith("8 unreadable, listed in")
    lines = (tmp_path / "list.txt").read_text().splitlines()
    assert len(lines) == 8 and all(line.split("\t")[1] for line in lines)
    assert capsys.readouterr().err.count("unreadable: ") == 8


@pytest.mark.parametrize(
    "num_images, allowed, is_taken",
    [(4, False, True), (3, False, False), (3, True, True), (2, False, True)],
)
def test_nearly_all_of_a_published_set_is_refused(
    num_images, allowed, is_taken, capsys
):
    """Red if a cut archive passes, or a part of at most half needs a flag."""
    data = saved(RGB, "PNG")
    items = [Item(f"{i}", lambda: data, {}, 1.0) for i in range(num_images)]
    audit = Audit(allow_incomplete=allowed)
    split = ImageSplit(items, 1, num_published=4)
    if is_taken:
        assert len(list(audit.examples("train", split))) == num_images
        said = "4 images are published" in capsys.readouterr().err
        assert said == (num_images < 4)
    else:
        with pytest.raises(PrepareError, match="4 .* published, 3 .*allow_incomplete"):
            list(audit.examples("train", split))
