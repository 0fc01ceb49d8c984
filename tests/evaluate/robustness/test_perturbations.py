"""Flip probabilities of clips whose predictions are known."""

import cv2
import numpy as np
import pytest
from helpers.robustness_pictures import COLOURS, NAMES, ByColour, make_source, plain

from ser_jax.evaluate.robustness import clips as perturbation_records
from ser_jax.evaluate.robustness import perturbations as perturbation_sets
from ser_jax.evaluate.robustness.frames import PERTURBATIONS
from ser_jax.evaluate.robustness.perturbations import evaluate_perturbations


class Brighter(ByColour):
    """Class 1 where the picture is brighter than `level`, else class 0."""

    level = 128.0

    def logits(self, images):
        above = images.mean((1, 2, 3)) - self.level
        return np.stack([-above, above], 1).astype(np.float32)


def evaluate(source, folder=None, *, classify=None, **settings):
    defaults = dict(image_size=32, num_images=100, seed=0, folder=folder)
    return evaluate_perturbations(
        classify or ByColour(), source, **(defaults | settings)
    )


def grey_source(values, **settings):
    pictures = [np.full((32, 32, 3), value, np.uint8) for value in values]
    return make_source(pictures, [0] * len(values), 2, None, **settings)


def test_generated():
    calls = []
    source = make_source([plain(k) for k in (0, 1, 2)], (0, 1, 1))
    result = evaluate(source, progress=lambda *call: calls.append(call))
    assert result["source"] == "generated" and result["missing"] == []
    assert result["num_clips"] == 3 and result["mean_flip_rate"] is None
    # Nothing changes the order of the colours; one of the labels is wrong.
    assert result["flip_probability"] == dict.fromkeys(PERTURBATIONS, 0.0)
    for value in result["top1_by_perturbation"].values():
        assert value == pytest.approx(2 / 3)
    assert result["top1"] == pytest.approx(2 / 3)
    assert calls == [(name, i, 10) for i, name in enumerate(PERTURBATIONS)]


def test_flips_where_the_picture_passes_a_threshold():
    """Brightness: 30 + 3.825 a step from -27 to 87: one clip passes 50, one never."""
    classify = Brighter(2)
    classify.level = 50.0
    result = evaluate(grey_source((30, 255)), classify=classify)
    assert result["flip_probability"]["brightness"] == pytest.approx(0.5 / 30)
    # 30 + 255 * 0.015 * (step - 15) > 50 from step 21 on: 10 of 31 frames are class 1.
    assert result["top1_by_perturbation"]["brightness"] == pytest.approx(21 / 62)
    mean = np.mean(list(result["flip_probability"].values()))
    assert result["mean_flip_probability"] == pytest.approx(mean)


def test_frames_of_a_clip_share_what_is_loaded(monkeypatch):
    """Red if threads decode the picture of a clip more than once."""
    decoded = []
    decode = perturbation_records.decode_image
    monkeypatch.setattr(
        perturbation_records,
        "decode_image",
        lambda data: decoded.append(1) or decode(data),
    )
    evaluate(grey_source((10, 20, 30)), classify=Brighter(2, num_threads=8))
    assert len(decoded) == 3 * len(PERTURBATIONS)


@pytest.mark.slow
def test_generated_does_not_depend_on_threads_or_passes(monkeypatch):
    rng = np.random.default_rng(0)
    # Grey but for noise, so that any more of it changes predictions.
    pictures = list(rng.integers(120, 136, (5, 32, 32, 3), dtype=np.uint8))
    source = make_source(pictures, [0] * 5)
    one = evaluate(source, classify=ByColour(num_threads=1))
    monkeypatch.setattr(perturbation_sets, "_CLIPS_PER_PASS", 2)
    classify = ByColour(num_threads=4)
    assert evaluate(source, classify=classify) == one
    assert classify.num_calls == 3 * len(PERTURBATIONS)
    assert one["mean_flip_probability"] > 0
    assert evaluate(source, seed=1) != one
    assert evaluate(source, num_images=2)["num_clips"] == 2


def test_generated_sizes():
    with pytest.raises(ValueError, match="32 px and 224 px, got 64 px"):
        evaluate(grey_source((1,)), image_size=64)


def test_wide_pictures_keep_their_margin_until_the_crop():
    """Scaled to 0.4, a picture of 2 : 1 is 204 of 224 px wide and 102 high."""
    wide = np.full((64, 128, 3), 255, np.uint8)
    clips = perturbation_records.generated_clips(
        make_source([wide], [0]), "scale", size_px=224, seed=0
    )
    frame = clips.frame(clips.load(0).pixels, 0, 0)
    assert abs((frame[112, :, 0] > 128).sum() - 204.8) <= 1
    assert abs((frame[:, 112, 0] > 128).sum() - 102.4) <= 1


def test_unreadable_picture():
    source = make_source([plain(0)], [0])
    source.records[0]["image"] = b"no picture"
    with pytest.raises(ValueError, match="record 0 of 'coloured'.*cannot be read"):
        evaluate(source)


def write_clip(path, labels, size=64):
    """A video whose frames are in the colours of classes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 1, (size, size))
    for label in labels:
        video.write(np.ascontiguousarray(plain(label, size)[..., ::-1]))
    video.release()
    return path


def test_videos_are_read_in_rgb(tmp_path):
    frames = perturbation_records.read_clip(write_clip(tmp_path / "a.mp4", [0, 1, 2]))
    assert frames.shape == (3, 64, 64, 3) and frames.dtype == np.uint8
    assert np.abs(frames.mean((1, 2)) - COLOURS).max() < 12


@pytest.fixture
def imagenet_p(tmp_path):
    """Two clips of each of two perturbations, one inside a group."""
    for place in ("digital/rotate", "shot_noise"):
        write_clip(tmp_path / place / NAMES[0] / "a.mp4", [0, 1, 1, 0])
        write_clip(tmp_path / place / NAMES[2] / "b.mp4", [2, 2, 2, 1])
    return tmp_path


def test_published(imagenet_p):
    source = make_source([plain(0)], [0])
    normalizers = {"rotate": 0.5, "shot_noise": 0.25}
    settings = dict(image_size=64, normalizers=normalizers)
    result = evaluate(source, imagenet_p, **settings)
    assert result["source"] == "official" and result["num_clips"] == 2
    # Against the frame before: 2 and 1 of 3; against the first: 2 and 1 of 3.
    assert result["flip_probability"] == {
        "shot_noise": pytest.approx(3 / 6),
        "rotate": pytest.approx(3 / 6),
    }
    assert result["mean_flip_rate"] == pytest.approx((0.5 / 0.5 + 0.5 / 0.25) / 2)
    assert result["top1"] == pytest.approx(5 / 8)
    assert result["missing"] == [
        n for n in PERTURBATIONS if n not in ("shot_noise", "rotate")
    ]
    whole = evaluate(source, imagenet_p, **settings | {"num_images": 1})
    assert whole["num_clips"] == 2


def test_noise_is_compared_with_the_first_frame(tmp_path):
    for name in ("rotate", "shot_noise"):
        write_clip(tmp_path / name / NAMES[0] / "a.mp4", [0, 1, 1, 1])
    result = evaluate(make_source([plain(0)], [0]), tmp_path, image_size=64)
    assert result["flip_probability"]["rotate"] == pytest.approx(1 / 3)
    assert result["flip_probability"]["shot_noise"] == 1


def test_normalizers_are_checked_before_the_work(imagenet_p):
    classify = ByColour()
    with pytest.raises(ValueError, match="not among them: shot_noise"):
        evaluate(
            make_source([plain(0)], [0]),
            imagenet_p,
            classify=classify,
            image_size=64,
            normalizers={"rotate": 0.5},
        )
    assert not classify.num_calls


@pytest.mark.parametrize(
    "break_it, message",
    [
        (lambda f: (f / "shot_noise/n03/b.mp4").write_bytes(b"x"), "n03/b.mp4 cannot"),
        (lambda f: write_clip(f / "shot_noise/n03/b.mp4", [0, 1]), "b.mp4 has 2 frame"),
        (lambda f: write_clip(f / "shot_noise/n03/b.mp4", [0] * 4, 32), "for 224 px"),
        (lambda f: (f / "digital/rotate/dog").mkdir(), r"other names \(dog\)"),
    ],
)
def test_broken_videos(imagenet_p, break_it, message):
    break_it(imagenet_p)
    with pytest.raises(ValueError, match=message):
        evaluate(make_source([plain(0)], [0]), imagenet_p, image_size=64)


def test_no_videos(tmp_path):
    with pytest.raises(FileNotFoundError, match="no clips in.*gaussian_noise"):
        evaluate(make_source([plain(0)], [0]), tmp_path)
    with pytest.raises(ValueError, match="no classes"):
        evaluate(make_source([plain(0)], [0], num_classes=None), tmp_path)
