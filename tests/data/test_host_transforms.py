import io

import cv2
import numpy as np
import pytest
from PIL import Image

from ser_jax.data import host_transforms as ht
from ser_jax.data.crops import CROP_PARAMS, CropSpec


def photo(height, width):
    """A smooth coloured image: noise enlarged, so that codecs treat it kindly."""
    noise = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR)


def encode(image, file_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


RGB = photo(30, 40)
JPEG = encode(Image.fromarray(RGB), "JPEG", quality=100, subsampling=0)
PNG = encode(Image.fromarray(RGB), "PNG")


def example(data, **fields):
    return {"image": data, "label": 3, "index": 7, **fields}


def test_boxes_follow_the_rule():
    """Uniform area, log-uniform ratio, uniform place; red if ratio is inverted."""
    spec = CropSpec("a", 8, scale=(0.2, 0.4), ratio=(1.0, 2.0))
    rng = np.random.default_rng(0)
    boxes = np.array([ht.sample_box(rng, 300, 300, spec) for _ in range(2000)])
    top, left, height, width = boxes.T
    assert (top >= 0).all() and (top + height <= 300).all()
    assert (left >= 0).all() and (left + width <= 300).all()
    area_frac = height * width / 300**2
    np.testing.assert_allclose(
        np.quantile(area_frac, [0, 0.25, 0.5, 1]), [0.2, 0.25, 0.3, 0.4], atol=0.01
    )
    np.testing.assert_allclose(
        np.quantile(np.log2(width / height), [0, 0.25, 0.5, 1]),
        [0, 0.25, 0.5, 1],
        atol=0.04,
    )
    np.testing.assert_allclose((top / (300 - height)).mean(), 0.5, atol=0.02)
    np.testing.assert_allclose((left / (300 - width)).mean(), 0.5, atol=0.02)


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((30, 300), (0, 130, 30, 40)),  # too wide: as high as the image, ratio 4/3
        ((300, 30), (130, 0, 40, 30)),  # too high: as wide as the image, ratio 3/4
    ],
)
def test_box_falls_back_to_the_centre(size, box):
    """An area of 100 % never fits; red if the fallback takes the whole image."""
    spec = CropSpec("a", 8, scale=(1.0, 1.0))
    assert ht.sample_box(np.random.default_rng(0), *size, spec) == box


@pytest.mark.parametrize(
    ("size", "ratio"),
    [((1, 1), (0.75, 1.5)), ((1, 50), (0.2, 0.3)), ((50, 1), (3.0, 4.0))],
)
def test_tiny_images_give_a_box(size, ratio):
    """Red if the fallback can round a side to nothing."""
    spec = CropSpec("a", 8, ratio=ratio)
    box = ht.sample_box(np.random.default_rng(0), *size, spec)
    top, left, height, width = box
    assert height >= 1 and width >= 1
    assert top + height <= size[0] and left + width <= size[1]


def test_crops_are_what_their_params_say():
    """Redoes each crop from its params; red if flip or box is misreported."""
    specs = (
        CropSpec("small", 6, scale=(0.05, 0.3), resample="pil"),
        CropSpec("large", 12, scale=(0.3, 1.0), resample="pil"),
        CropSpec("bilinear", 12, scale=(0.3, 1.0), resample="bilinear"),
    )
    filters = {
        "pil": Image.Resampling.BICUBIC,
        "bilinear": Image.Resampling.BILINEAR,
    }
    transform = ht.RandomCrops(specs)
    flips = set()
    for seed in range(8):
        out = transform.random_map(example(PNG), np.random.default_rng(seed))
        assert out["index"] == 7 and out["index"].dtype == np.int64
        for spec in specs:
            params, crop = out["crop_params"][spec.name], out["crops"][spec.name]
            assert params.shape == (len(CROP_PARAMS),)
            assert params.dtype == np.float32 and crop.dtype == np.uint8
            named = dict(zip(CROP_PARAMS, params.astype(int), strict=True))
            assert (named["source_height"], named["source_width"]) == (30, 40)
            box = RGB[named["top"] :, named["left"] :]
            box = box[: named["height"], : named["width"]]
            size = (spec.size_px, spec.size_px)
            expected = np.asarray(
                Image.fromarray(box.copy()).resize(size, filters[spec.resample])
            )
            expected = expected[:, ::-1] if named["flip"] else expected
            np.testing.assert_array_equal(crop, expected)
            flips.add(named["flip"])
    assert flips == {0, 1}


def test_flip_probability_bounds():
    for flip_prob in (0.0, 1.0):
        transform = ht.RandomCrops((CropSpec("a", 8, flip_prob=flip_prob),))
        for seed in range(20):
            out = transform.random_map(example(PNG), np.random.default_rng(seed))
            assert out["crop_params"]["a"][-1] == flip_prob


def test_several_crops_from_one_decode(monkeypatch):
    calls = []
    whole = ht.decode_image
    monkeypatch.setattr(ht, "decode_image", lambda d: calls.append(1) or whole(d))
    transform = ht.RandomCrops(tuple(CropSpec(f"{i}", 8) for i in range(4)))
    out = transform.random_map(example(JPEG), np.random.default_rng(0))
    assert len(out["crops"]) == 4 and len(calls) == 1


def test_cv2_averages_when_shrinking_and_is_cubic_when_enlarging():
    """Red with CUBIC for both (a stripe aliases) or AREA for both (blocks)."""
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::4] = 200
    whole = dict(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip_prob=0.0)
    data = encode(Image.fromarray(stripes), "PNG")

    def crop(size_px):
        transform = ht.RandomCrops((CropSpec("a", size_px, **whole),))
        return transform.random_map(example(data), np.random.default_rng(0))["crops"][
            "a"
        ]

    np.testing.assert_array_equal(crop(8), np.full((8, 8, 3), 50, np.uint8))
    np.testing.assert_array_equal(crop(32), stripes)
    enlarged = cv2.resize(stripes, (64, 64), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_array_equal(crop(64), enlarged)


@pytest.mark.parametrize("turn", [False, True])
def test_centre_crop(turn):
    """Short side to 15, centre 10 of 20 x 15; red if the long side is resized to it."""
    image = RGB.transpose(1, 0, 2).copy() if turn else RGB
    size = (15, 20) if turn else (20, 15)  # width, height
    resized = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    # (15 - 10) / 2 = 2.5 rounds to even, as in torchvision.
    expected = resized[5:15, 2:12] if turn else resized[2:12, 5:15]
    data = encode(Image.fromarray(image), "PNG")
    out = ht.CentreCrop(size_px=10, resize_px=15).map(example(data))
    np.testing.assert_array_equal(out["image"], expected)
    assert (out["label"], out["index"]) == (3, 7)
    assert out["label"].dtype == out["index"].dtype == np.int64


@pytest.mark.parametrize("size", [(1, 60000), (60000, 1), (2, 9000)])
def test_strips_are_cut_before_they_are_enlarged(size, monkeypatch):
    """Red if the whole strip is enlarged: 60000 x 1 to 256 px would take 12 GB."""
    sizes = []
    resize = Image.Image.resize
    monkeypatch.setattr(
        Image.Image,
        "resize",
        lambda self, to, *rest: sizes.append(to) or resize(self, to, *rest),
    )
    image = np.zeros((*size, 3), np.uint8)
    image[size[0] // 2, size[1] // 2] = 255
    data = encode(Image.fromarray(image), "PNG")
    out = ht.CentreCrop(size_px=24, resize_px=32).map(example(data))["image"]
    assert out.shape == (24, 24, 3) and out.max() > 200  # its middle
    assert max(max(to) for to in sizes) <= 16 * 32
    for resample in ("cv2", "pil", "bilinear"):
        for pair_seed in (None, 0):
            spec = CropSpec("a", 8, resample=resample)
            transform = ht.RandomCrops((spec,), pair_seed)
            drawn = transform.random_map(
                example(data, position=0), np.random.default_rng(0)
            )
            assert drawn["crops"]["a"].shape == (8, 8, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CropSpec("a", 8, scale=(0.5, 1.5)), "scale .*1.5"),
        (lambda: CropSpec("a", 8, ratio=(2.0, 1.0)), "ratio"),
        (lambda: CropSpec("a", 8, centre_frac=1.5), "centre_frac"),
        (lambda: CropSpec("a", 8, resample="nearest"), "cv2.*nearest"),
        (lambda: ht.CentreCrop(size_px=8, resize_px=7), "resize_px .7. .*size_px"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def encoded(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "png")
    return buffer.getvalue()


def test_pairs_share_their_boxes_in_shares_of_the_image_and_not_their_flips():
    transform = ht.RandomCrops(
        (CropSpec("a", 8, scale=(0.1, 0.6)), CropSpec("b", 8)), pair_seed=3
    )
    sizes = [(64, 64), (128, 32), (64, 64), (64, 64)]
    boxes, flips = [], []
    for repeat in range(8):
        for position, size in enumerate(sizes):
            image = np.zeros((*size, 3), np.uint8)
            example = {
                "image": encoded(image),
                "label": 3,
                "index": 0,
                "position": position + 4 * repeat,
            }
            rng = np.random.default_rng((position, repeat))
            params = transform.random_map(example, rng)["crop_params"]["a"]
            boxes.append(params[:4] / np.tile(params[4:6], 2))
            flips.append(params[6])
    boxes, flips = np.array(boxes), np.array(flips)
    np.testing.assert_allclose(boxes[::2], boxes[1::2], atol=1 / 32)
    assert np.abs(boxes[0] - boxes[2]).max() > 1 / 16  # another pair, another box
    assert np.any(flips[::2] != flips[1::2])


def test_centre_crops_are_the_central_square_unflipped():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    transform = ht.RandomCrops((CropSpec("plain", 20, flip_prob=1.0, centre_frac=0.5),))
    example = {"image": encoded(image), "label": 3, "index": 0}
    out = transform.random_map(example, np.random.default_rng(0))
    assert (out["label"], out["index"]) == (3, 0)
    np.testing.assert_array_equal(out["crops"]["plain"], image[10:30, 20:40])
    np.testing.assert_array_equal(
        out["crop_params"]["plain"], [10, 20, 20, 20, 40, 60, 0]
    )


def test_large_jpegs_are_decoded_small_where_no_crop_loses_by_it(monkeypatch):
    """Crops are those of the whole picture in the same, reported boxes.

    Red if a picture is reduced below what a crop needs, or not at all, or boxes are
    not told as they were cut.
    """
    factors, whole = [], ht.decode_image
    monkeypatch.setattr(
        ht, "decode_image", lambda d, *f: factors.append(f) or whole(d, *f)
    )
    picture = photo(601, 803)
    jpeg = encode(Image.fromarray(picture), "JPEG", quality=95)
    pixels = whole(jpeg)
    for scale, size_px, least, most in (
        ((0.5, 1.0), 64, 4, 8),
        ((0.5, 1.0), 200, 1, 2),
        ((0.01, 0.02), 64, 1, 1),
    ):
        specs = tuple(
            CropSpec(name, size_px, scale, resample="cv2_reduced") for name in "ab"
        )
        factors.clear()
        for seed in range(12):
            rng = np.random.default_rng(seed)
            out = ht.RandomCrops(specs).random_map(example(jpeg), rng)
            ((factor,),) = factors[seed:]
            sides = []
            for name, crop in out["crops"].items():
                top, left, h, w, *size, flip = out["crop_params"][name].astype(int)
                assert size == [601, 803] and top + h <= 601 and left + w <= 803
                box = pixels[top : top + h, left : left + w]
                same = ht._resize(box, size_px, "cv2")
                same = same[:, ::-1] if flip else same
                assert np.abs(same.astype(int) - crop).mean() < 1
                sides += [h, w]
            assert least <= factor <= most
            assert min(sides) >= factor * size_px or factor == 1
            if factor < 8:  # no more was to be had
                assert min(sides) < 2 * factor * size_px


def test_what_is_no_jpeg_is_cropped_whole():
    """And a JPEG that other crops want whole."""
    png = encode(Image.fromarray(photo(300, 400)), "PNG")
    specs = [CropSpec("a", 8, resample=name) for name in ("cv2", "cv2_reduced")]
    plain, reduced = (
        ht.RandomCrops((spec,)).random_map(example(png), np.random.default_rng(0))
        for spec in specs
    )
    np.testing.assert_array_equal(plain["crops"]["a"], reduced["crops"]["a"])
    whole = dict(scale=(0.9, 1.0), flip_prob=0.0)
    mixed = [CropSpec(n, 8, resample=n, **whole) for n in ("cv2_reduced", "pil")]
    jpeg = encode(Image.fromarray(photo(301, 401)), "JPEG", quality=95)
    out = ht.RandomCrops(tuple(mixed)).random_map(
        example(jpeg), np.random.default_rng(0)
    )
    box = ht.sample_box(np.random.default_rng(0), 301, 401, mixed[0])
    assert any(side % 8 for side in box)  # so that it would be another
    np.testing.assert_array_equal(out["crop_params"]["cv2_reduced"][:4], box)
