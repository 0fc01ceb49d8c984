"""Accuracy on corrupted pictures, with errors planted by hand."""

import numpy as np
import pytest
import tensorflow_datasets as tfds
from helpers.robustness_pictures import NAMES, ByColour, make_source, plain
from PIL import Image

from ser_jax.data.host_transforms import CentreCrop
from ser_jax.data.prepare import write
from ser_jax.evaluate.robustness.corruptions import Corrupted, evaluate_corruptions
from ser_jax.evaluate.robustness.generate import CORRUPTIONS, corrupt
from ser_jax.evaluate.robustness.metrics import ALEXNET_ERROR
from ser_jax.evaluate.robustness.published import MAIN_CORRUPTIONS

CLEAN = CentreCrop(32, 32)


def evaluate(source, folder=None, *, classify=None, transform=CLEAN, **settings):
    defaults = dict(image_size=32, num_images=100, seed=0, folder=folder)
    settings = defaults | settings
    return evaluate_corruptions(classify or ByColour(), source, transform, **settings)


def clean_source(**settings):
    return make_source([plain(k) for k in (0, 1, 2, 1)], (0, 1, 2, 2), **settings)


def write_tree(folder, num_wrong, *, group="", size=32):
    """Two classes of two pictures; `num_wrong[name][severity - 1]` of 4 miscoloured."""
    for name, per_severity in num_wrong.items():
        for severity, wrong in enumerate(per_severity, start=1):
            for i in range(4):
                label = i // 2
                place = folder / group / name / str(severity) / NAMES[label]
                place.mkdir(parents=True, exist_ok=True)
                shown = 2 if i < wrong else label
                Image.fromarray(plain(shown, size)).save(place / f"{i}.JPEG")


def test_generated():
    calls = []
    result = evaluate(clean_source(), progress=lambda *call: calls.append(call))
    assert result["source"] == "generated" and result["num_images"] == 4
    assert result["clean_top1"] == 0.75
    assert result["missing"] == ["frost"] and result["extra_errors"] == {}
    assert result["alexnet_normalized_mce"] is None
    assert set(result["errors"]) == set(CORRUPTIONS)
    # One picture has another's label; contrast leaves the colours' order.
    assert result["errors"]["contrast"] == [0.25] * 5
    means = [np.mean(errors) for errors in result["errors"].values()]
    assert result["unnormalized_mce"] == pytest.approx(np.mean(means))
    assert result["top1"] == pytest.approx(1 - np.mean(means))
    assert [done for _, done, _ in calls] == list(range(71))
    assert {total for _, _, total in calls} == {71}
    assert calls[0][0] == "clean" and calls[-1][0] == "jpeg_compression 5"


def test_generated_depends_on_seed_and_index_alone():
    """Red if draws are shared between passes, pictures or threads."""
    source = make_source([plain(0)] * 6, [0] * 6)

    def pictures(name, severity, seed, num_threads):
        seen = []

        class Keeps(ByColour):
            def logits(self, images):
                seen.extend(np.array(images))
                return super().logits(images)

        transform = Corrupted(CLEAN, name, severity, seed)
        Keeps(num_threads=num_threads)(source, transform)
        return np.stack(seen[:6])

    first = pictures("shot_noise", 3, 0, 1)
    np.testing.assert_array_equal(first, pictures("shot_noise", 3, 0, 4))
    flat = [p.tobytes() for p in first]
    assert len(set(flat)) == 6, "pictures share their noise"
    assert np.any(first != pictures("shot_noise", 3, 1, 1))
    # Gaussian noise at severities of the same draws would be the same up to scale.
    mild, strong = (
        pictures("gaussian_noise", s, 0, 1)[0] - plain(0).astype(float) for s in (1, 5)
    )
    assert abs(np.corrcoef(mild.ravel(), strong.ravel())[0, 1]) < 0.1
    key = (7, 2, 4, *b"snow")
    expected = corrupt(plain(1), "snow", 4, np.random.default_rng(key))
    example = {"image": write.encode_png(plain(1)), "label": 1, "index": 2}
    got = Corrupted(CLEAN, "snow", 4, 7).map(example)
    np.testing.assert_array_equal(got["image"], expected)
    assert got["label"] == 1 and got["index"] == 2


def test_other_sizes_are_not_generated():
    with pytest.raises(ValueError, match="32 px and 224 px, got 64 px"):
        evaluate(clean_source(), image_size=64)


def test_imagenet_c(tmp_path):
    """All 15, in groups or not, and an extra that is in no mean."""
    wrong = {name: [0, 0, 1, 2, 4] for name in MAIN_CORRUPTIONS}
    wrong["fog"] = [4] * 5
    blur = {"glass_blur": wrong.pop("glass_blur")}
    write_tree(tmp_path, blur, group="blur")
    write_tree(tmp_path, wrong | {"spatter": [3] * 5})
    names = tuple(f"n{k:02d}" for k in range(1, 1001))
    source = clean_source(num_classes=1000, class_names=names)
    result = evaluate(source, tmp_path, classify=ByColour(1000))
    assert result["source"] == "official" and result["missing"] == []
    assert list(result["errors"]) == list(MAIN_CORRUPTIONS)
    assert result["errors"]["snow"] == [0, 0, 0.25, 0.5, 1]
    assert result["extra_errors"] == {"spatter": [0.75] * 5}
    assert result["unnormalized_mce"] == pytest.approx((14 * 0.35 + 1) / 15)
    assert result["top1"] == pytest.approx(1 - (14 * 0.35 + 1) / 15)
    mce = [(1 if n == "fog" else 0.35) / e for n, e in ALEXNET_ERROR.items()]
    assert result["alexnet_normalized_mce"] == pytest.approx(np.mean(mce))
    assert result["num_images"] == 4 and result["clean_top1"] == 0.75


def test_part_of_imagenet_c(tmp_path):
    write_tree(tmp_path, {"fog": [1] * 5})
    names = tuple(f"n{k:02d}" for k in range(1, 1001))
    source = clean_source(num_classes=1000, class_names=names)
    result = evaluate(source, tmp_path, classify=ByColour(1000), num_images=3)
    assert result["alexnet_normalized_mce"] is None
    assert result["num_images"] == 4  # the set is taken whole
    assert result["missing"] == [n for n in MAIN_CORRUPTIONS if n != "fog"]


def test_published_pictures_are_cropped_to_size_without_a_margin(tmp_path):
    """A border of another colour: seen at 224 px, cut off by a margin before."""
    write_tree(tmp_path, {"fog": [0] * 5}, size=224)
    for path in tmp_path.glob("fog/*/n01/*"):
        picture = plain(0, 224)
        picture[8:-8, 8:-8] = 0
        Image.fromarray(picture).save(path, quality=95)
    transform = CentreCrop(224, 256)
    result = evaluate(clean_source(), tmp_path, transform=transform, image_size=224)
    assert result["errors"]["fog"] == [0] * 5


def test_classes_without_names_are_folders_in_order(tmp_path):
    write_tree(tmp_path, {"fog": [0] * 5})
    source = clean_source(class_names=None)
    with pytest.raises(ValueError, match="2 class folders, expected 3"):
        evaluate(source, tmp_path)
    for severity in "12345":
        place = tmp_path / "fog" / severity / "n00"
        place.mkdir()
        Image.fromarray(plain(0)).save(place / "a.JPEG")
    # n00 is the first class now, so that n01 and n02 are shown in others' colours.
    assert evaluate(source, tmp_path)["errors"]["fog"] == [0.8] * 5


def test_unlabelled_or_unreadable(tmp_path):
    source = clean_source()
    write_tree(tmp_path, {"snow": [0] * 5})
    path = tmp_path / "snow" / "2" / "n02" / "3.JPEG"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match="snow/2/n02/3.JPEG cannot be decoded"):
        evaluate(source, tmp_path)
    unlabelled = make_source([plain(0)], [0], num_classes=None)
    with pytest.raises(ValueError, match="no classes"):
        evaluate(unlabelled, tmp_path)
    with pytest.raises(ValueError, match="without a label"):
        evaluate(unlabelled)


def test_diverged_classifier():
    class Diverged(ByColour):
        def logits(self, images):
            return super().logits(images) * np.nan

    with pytest.raises(FloatingPointError, match="not all finite"):
        evaluate(clean_source(), classify=Diverged())


def _remove(path):
    for child in sorted(path.rglob("*"), reverse=True):
        child.rmdir() if child.is_dir() else child.unlink()
    path.rmdir()


@pytest.mark.parametrize(
    "break_it, message",
    [
        (lambda f: _remove(f / "fog" / "4"), "lacks severities: fog 4"),
        (lambda f: _remove(f / "fog" / "4" / "n02"), "fog/4.*n02.*not everywhere"),
        (lambda f: (f / "fog" / "4" / "n02" / "3.JPEG").unlink(), "fog 4 has 3"),
        (
            lambda f: [p.rename(p.with_name("x")) for p in f.glob("*/*/n02")],
            r"names \(x\)",
        ),
        (lambda f: [p.unlink() for p in f.glob("*/*/*/*")], "no files ending in"),
    ],
)
def test_incomplete_tree(tmp_path, break_it, message):
    write_tree(tmp_path, {"snow": [0] * 5, "fog": [0] * 5})
    break_it(tmp_path)
    with pytest.raises(ValueError, match=message):
        evaluate(clean_source(), tmp_path)


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        evaluate(clean_source(), tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="expected ImageNet-C.*labels.npy"):
        evaluate(clean_source(), tmp_path)


def write_cifar_c(folder, num_wrong):
    """Four pictures a severity."""
    np.save(folder / "labels.npy", np.tile([0, 1, 2, 0], 5))
    for name, per_severity in num_wrong.items():
        shown = [
            1 + (label == 1) if i < wrong else label
            for wrong in per_severity
            for i, label in enumerate([0, 1, 2, 0])
        ]
        np.save(folder / f"{name}.npy", np.stack([plain(k) for k in shown]))


def test_cifar_c(tmp_path):
    write_cifar_c(tmp_path, {"fog": [0, 1, 2, 2, 1], "saturate": [0] * 5})
    result = evaluate(clean_source(), tmp_path)
    assert result["source"] == "official"
    assert result["errors"] == {"fog": [0, 0.25, 0.5, 0.5, 0.25]}
    assert result["extra_errors"] == {"saturate": [0] * 5}
    assert result["alexnet_normalized_mce"] is None and len(result["missing"]) == 14


def test_broken_cifar_c(tmp_path):
    write_cifar_c(tmp_path, {"fog": [0] * 5})
    path = tmp_path / "fog.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="fog.npy cannot be read.*Download"):
        evaluate(clean_source(), tmp_path)
    np.save(path, np.zeros((19, 32, 32, 3), np.uint8))
    with pytest.raises(ValueError, match=r"\[20, 32, 32, 3\].*\[19, 32, 32, 3\]"):
        evaluate(clean_source(), tmp_path)
    np.save(path, np.array([{}]), allow_pickle=True)  # unpickling may run anything
    with pytest.raises(ValueError, match="fog.npy cannot be read.*Download"):
        evaluate(clean_source(), tmp_path)
    path.write_bytes(whole)
    source = make_source([plain(0)], [0], num_classes=2, class_names=None)
    with pytest.raises(ValueError, match="label 2.*only 2 classes"):
        evaluate(source, tmp_path)


def write_tfds(data_dir, config, shown):
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(32, 32, 3)),
            "label": tfds.features.ClassLabel(num_classes=3),
        }
    )
    png = write.encode_png(plain(shown))
    with write.staged(data_dir / "cifar10_corrupted" / config / "1.0.0") as directory:
        write.write_splits(
            directory,
            "cifar10_corrupted",
            "1.0.0",
            features,
            {"test": write.Split([("0", {"image": png, "label": 1})])},
        )


def test_tfds_spells_some_otherwise(tmp_path):
    for severity in range(1, 6):
        write_tfds(tmp_path, f"frosted_glass_blur_{severity}", shown=severity % 2)
    result = evaluate(clean_source(), tmp_path)
    assert result["errors"] == {"glass_blur": [0, 1, 0, 1, 0]}
    assert result["source"] == "official"
    write_tfds(tmp_path, "elastic_2", shown=0)
    with pytest.raises(ValueError, match="elastic_transform 1, 3, 4, 5"):
        evaluate(clean_source(), tmp_path)
    source = make_source([plain(0)], [0], num_classes=10, class_names=None)
    _remove(tmp_path / "cifar10_corrupted" / "elastic_2")
    with pytest.raises(ValueError, match="3 classes.*10"):
        evaluate(source, tmp_path)
