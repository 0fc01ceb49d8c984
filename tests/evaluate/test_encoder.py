"""A frozen encoder maps images to features, and is evaluated without any run."""

import io

import jax
import numpy as np
import pytest
from etils import epath
from helpers.evaluated import make_run, measure
from PIL import Image

from ser_jax.data.host_transforms import CentreCrop
from ser_jax.evaluate.data import EvalData
from ser_jax.evaluate.encoder import FrozenEncoder
from ser_jax.evaluate.open import load, open_run
from ser_jax.evaluate.results import choose, evaluate
from ser_jax.evaluate.subject import Subject
from ser_jax.models.vit import ViT

IMAGES = np.random.default_rng(0).integers(0, 256, (300, 16, 16, 3), np.uint8)


@pytest.fixture(scope="module")
def encoder():
    """Weights from elsewhere: no run, no workdir, no config."""
    vit = ViT(16, 2, 2, patch_size=4, image_size=16)
    variables = jax.jit(vit.init)(jax.random.key(0), np.zeros((1, 16, 16, 3)))
    return FrozenEncoder(vit, variables, (0.5, 0.4, 0.3), (0.25, 0.3, 0.2), digest=7)


@pytest.fixture
def subject(encoder, tmp_path):
    data = EvalData("digits", str(tmp_path), "train[:300]", "test[:60]")
    folder = epath.Path(tmp_path / "found")
    return Subject(encoder=encoder, data=data, folder=folder, num_pictures=8)


@pytest.fixture(scope="module")
def by_hand(encoder):
    """Of all `IMAGES`."""
    normalized = (IMAGES / 255 - np.array(encoder.mean)) / np.array(encoder.std)
    apply = jax.jit(encoder.module.apply)
    return np.asarray(apply(encoder.variables, normalized.astype(np.float32)).cls)


@pytest.mark.slow
@pytest.mark.parametrize("num", [0, 1, 3, 300])
def test_any_number_of_images(encoder, by_hand, num):
    """Red if padding comes out, a chunk is lost, or images are not normalised."""
    features = encoder(IMAGES[:num])
    assert features.shape == (num, 16) and features.dtype == np.float32
    np.testing.assert_allclose(features, by_hand[:num], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_few_programs_serve_all_numbers(encoder):
    _, embed, _ = encoder._compiled
    embed.clear_cache()
    for num in (1, 5, 8, 9, 17, 32):
        encoder(IMAGES[:num])
    assert embed._cache_size() == 3  # of 8, 16 and 32 images, on eight devices


def test_images_of_another_size_are_cropped_as_in_evaluation(encoder):
    image = np.random.default_rng(1).integers(0, 256, (31, 47, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    record = {"image": file.getvalue(), "label": 0, "index": 0}
    cropped = CentreCrop(16, 16).map(record)["image"]
    np.testing.assert_array_equal(encoder(image[None]), encoder(cropped[None]))


@pytest.mark.parametrize(
    "images, message",
    [
        (IMAGES[0], r"\[16, 16, 3\], uint8: give one image as a batch: images\[None\]"),
        (IMAGES.astype(np.float32), r"float32: give pixels as decoded, 0 to 255"),
        (IMAGES.transpose(0, 3, 1, 2), r"channels last: images.transpose\(0, 2, 3, 1"),
        (IMAGES[..., :1], "repeat grey over the channels"),
        (IMAGES[:, 0, 0], r"shape \[300, 3\]"),
        (IMAGES[:, :0], "at least one pixel"),
        ([[[[1, 2, 3]]]], r"shape \[1, 1, 1, 3\], list: give pixels"),
    ],
)
def test_what_is_no_batch_of_images(encoder, images, message):
    with pytest.raises(ValueError, match=message):
        encoder(images)


@pytest.mark.slow
def test_a_run_gives_the_encoder_that_its_method_evaluates(tmp_path):
    """DINO's teacher, with its own mean and deviation."""
    make_run(tmp_path, "dino", "ser")
    run, found = open_run(tmp_path), load(tmp_path)
    images = run.data.held_out.subset(8)
    cropped = np.stack([run.transform.map(images[i])["image"] for i in range(8)])
    embed = jax.jit(run.experiment.embed)  # as the run's own probe does
    expected = embed(run.encoder.variables, cropped)
    np.testing.assert_allclose(found(cropped), expected, rtol=1e-4, atol=1e-5)
    assert found.digest == run.encoder.digest
    online = load(tmp_path, encoder="online")
    assert online.digest != found.digest
    assert np.abs(online(cropped) - found(cropped)).max() > 0.01


@pytest.mark.slow
def test_what_needs_an_encoder_and_data_alone(subject):
    """Red if a task asks for the run, its config or its workdir."""
    tasks = ("knn", "health", "equivariance")
    found, report = measure(subject, subject.folder, *tasks)
    assert list(found["tasks"]) == list(tasks)
    assert found["digest"] == 7 and found["num_train"] == 300 and "run" not in found
    features = subject.features("eval")
    images = subject.data.held_out
    crops = [subject.transform.map(images[i])["image"] for i in range(len(images))]
    expected = subject.encoder(np.stack(crops))
    actual = features.by_name["cls1"]
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
    assert "knn/top1_k20" in report and "step:" not in report


def test_what_needs_a_run_says_so(subject, tmp_path):
    for task in ("finetune", "flops", "equimod"):
        with pytest.raises(ValueError, match=f"{task}: .* comes without its run"):
            evaluate(subject, [task])
    assert not subject.folder.exists()
    chosen, left_out = choose(subject, ["all"], {})
    assert chosen == [
        *("knn", "linear", "logreg", "health", "equivariance", "seis"),
        *("lie_derivative", "rotation_probe", "pictures"),
    ]
    assert left_out.keys() == {
        *("equimod", "flops", "corruptions", "perturbations", "shifted")
    }
    assert "this encoder reads 16 px" in left_out["corruptions"]


def test_a_batch_that_the_devices_cannot_share(encoder, tmp_path):
    data = EvalData("digits", str(tmp_path), "train", "test")
    with pytest.raises(ValueError, match="batch_size 12 .* 8 devices; use 16 or 8"):
        Subject(encoder=encoder, data=data, folder=tmp_path, batch_size=12)
