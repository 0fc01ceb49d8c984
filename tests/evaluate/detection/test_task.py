"""Detectors on a frozen encoder: they learn, resume, and say what is wrong."""

import functools
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from helpers.coco_files import shapes, write_split
from helpers.support import assert_close

from ser_jax.data.sources import UnreadableRecordError
from ser_jax.evaluate.data import EvalData
from ser_jax.evaluate.detection import frozen, task, train
from ser_jax.evaluate.detection.coco import open_coco
from ser_jax.evaluate.detection.find import find
from ser_jax.evaluate.detection.frozen import Detectors, HeadSettings
from ser_jax.evaluate.detection.head import Detector, Outputs
from ser_jax.evaluate.detection.train import train_detectors
from ser_jax.evaluate.encoder import FrozenEncoder
from ser_jax.evaluate.results import evaluate
from ser_jax.evaluate.subject import Subject
from ser_jax.models.vit import ViT
from ser_jax.train.preemption import Stopped
from ser_jax.train.sharding import make_mesh

SIDE = 64
SMALL = functools.partial(Detector, num_convs=1)
LEARNED_STEPS, LEARNED_AP = 130, 0.5


@pytest.fixture(scope="module")
def encoder():
    """Random weights."""
    vit = ViT(32, 1, 2, patch_size=8, image_size=SIDE)
    image = np.zeros((1, SIDE, SIDE, 3), np.float32)
    variables = jax.jit(vit.init)(jax.random.key(0), image)
    return FrozenEncoder(vit, variables, (0.5,) * 3, (0.25,) * 3, digest=7)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Detectors that compile in seconds, and learn in a hundred steps."""
    monkeypatch.setattr(frozen, "Detector", SMALL)


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """24 pictures to learn, 5 others."""
    folder = tmp_path_factory.mktemp("coco")
    write_split(folder, "train2017", shapes(24, 0, SIDE))
    write_split(folder, "val2017", shapes(5, 1, SIDE))
    return folder


def subject_of(encoder, folder, num_devices=1):
    data = EvalData("none", str(folder), "train", "test")
    mesh = make_mesh(jax.devices()[:num_devices])
    return Subject(
        encoder=encoder,
        data=data,
        folder=epath.Path(folder),
        mesh=mesh,
        batch_size=8,
        num_threads=2,
    )


def detect(encoder, folder, coco, **options):
    usual = {"detection_size": SIDE, "detection_batch": 16, "detection_channels": 32}
    options = usual | options
    results = evaluate(
        subject_of(encoder, folder), ["detection"], coco=str(coco), **options
    )
    return results["tasks"]["detection"]


@pytest.mark.slow
def test_boxes_are_learned_and_the_encoder_stays_as_it_is(encoder, coco, tmp_path):
    """Pictures learnt by heart; the trained detector is kept and not trained again."""
    before = jax.tree.map(np.array, encoder.variables)
    options = {"coco_eval": "train2017", "detection_steps": LEARNED_STEPS}
    options |= {"detection_learning_rate": 5e-3}
    untrained = detect(encoder, tmp_path, coco, **options | {"detection_steps": 0})
    found = detect(encoder, tmp_path, coco, **options)
    assert untrained["AP"] < 0.05
    assert found["AP"] >= LEARNED_AP
    assert found["training_images_per_s"] > 0
    again = detect(encoder, tmp_path, coco, **options)
    assert again["training_images_per_s"] is None
    assert again["AP"] == found["AP"] and again["per_class"] == found["per_class"]
    jax.tree.map(np.testing.assert_array_equal, before, encoder.variables)
    assert found["pictures"].keys() == {"detections", "precision_recall", "losses"}
    for path in found["pictures"].values():
        assert (tmp_path / path).stat().st_size > 10_000
    boxes = json.loads((tmp_path / "detection/detections_seed0.json").read_text())
    assert {box["category_id"] for box in boxes} <= {1, 3, 90}
    rows = (tmp_path / found["heads"] / "metrics.jsonl").read_text().splitlines()
    assert json.loads(rows[-1])["step"] == LEARNED_STEPS


def detectors_of(encoder, coco, num_devices=1, **settings):
    settings = {"total_steps": 4, "batch_size": 8, "learning_rate": 1e-3} | settings
    split, _ = open_coco(coco)
    return split, Detectors(
        encoder,
        num_classes=3,
        size_px=SIDE,
        layer=None,
        channels=32,
        settings=HeadSettings(warmup_steps=1, **settings),
        mesh=make_mesh(jax.devices()[:num_devices]),
    )


def trained(encoder, coco, folder, num_devices=1, **settings):
    split, detectors = detectors_of(encoder, coco, num_devices, **settings)
    return train_detectors(
        detectors,
        split,
        epath.Path(folder),
        seeds=(0, 1),
        data_seed=0,
        num_threads=2,
        max_bad_frac=0.0,
    )


@pytest.fixture(scope="module")
def four_steps(encoder, coco, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frozen, "Detector", SMALL)
        return trained(encoder, coco, tmp_path_factory.mktemp("four"))


@pytest.mark.slow
def test_stopped_after_two_steps_it_goes_on_to_the_same(
    encoder, coco, tmp_path, four_steps, monkeypatch
):
    whole, count = train.train_examples, []

    class Interrupted:
        def __init__(self, *args, **how):
            self._batches = whole(*args, **how)
            self.close = self._batches.close

        def __next__(self):
            count.append(None)
            if len(count) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return next(self._batches)

    monkeypatch.setattr(train, "train_examples", Interrupted)
    with pytest.raises(Stopped, match="SIGTERM: saved step 2"):
        trained(encoder, coco, tmp_path)
    resumed = trained(encoder, coco, tmp_path)
    assert len(count) == 4
    jax.tree.map(np.testing.assert_array_equal, resumed.params, four_steps.params)
    heads = [jax.tree.map(lambda x, i=i: x[i], resumed.params) for i in range(2)]
    different = jax.tree.map(lambda a, b: np.any(a != b), *heads)
    assert any(jax.tree.leaves(different))  # one for each seed


@pytest.mark.slow
def test_one_device_equals_eight(encoder, coco, tmp_path, four_steps):
    eight = trained(encoder, coco, tmp_path, num_devices=8)
    jax.tree.map(
        lambda a, b: assert_close(a, b, 1e-4, 1e-5), four_steps.params, eight.params
    )


def test_boxes_reach_the_edge_of_a_picture(encoder, tmp_path, monkeypatch):
    """Red if less than a pixel of the encoder, at the lower edge, is cut off."""
    image = np.full((100, 150, 3), 128, np.uint8)  # 42.67 px high at 64
    made = {"image": image, "boxes": [[0, 0, 150, 100]], "classes": [1]}
    for name in ("train2017", "val2017"):
        write_split(tmp_path, name, [made])
    split, detectors = detectors_of(encoder, tmp_path)

    def everywhere(detector, variables, maps):
        """Of each location a box that is larger than the picture."""
        shape = 1, len(maps[8]), len(detectors.locations.xy)
        ones = jnp.ones(shape)
        return Outputs(jnp.full((*shape, 3), -9.0), 999 * jnp.ones((*shape, 4)), ones)

    monkeypatch.setattr(frozen, "apply_stack", everywhere)
    params = {"any": np.zeros(1)}
    how = {"batch_size": 1, "num_threads": 1, "max_bad_frac": 0.0}
    (found,) = find(detectors, params, split, **how).detections
    assert len(found) == 3  # of each class one
    assert {tuple(box["bbox"]) for box in found} == {(0, 0, 150, 100)}


def test_a_loss_that_is_not_finite_ends_it(encoder, coco, tmp_path, monkeypatch):
    losses = iter([1.0, np.nan])

    def step(detectors, heads, batch):
        return heads, {"loss": np.array([0.5, next(losses)])}

    monkeypatch.setattr(Detectors, "train_step", step)
    with pytest.raises(FloatingPointError, match="seed 1 has diverged at step 2"):
        trained(encoder, coco, tmp_path)
    saved = tmp_path.glob("heads-*/checkpoints/*")
    assert [path.name for path in saved if path.name.isdecimal()] == ["1"]


@pytest.mark.slow
def test_results_of_other_settings_in_the_same_folder(encoder, coco, tmp_path):
    """Red if boxes of another evaluation lie beside the results."""
    options = {"detection_steps": 0, "seeds": ("0", "1"), "coco_eval": "val2017[:3]"}
    first = detect(encoder, tmp_path, coco, **options)
    options |= {"seeds": ("2",), "coco_eval": "val2017[:2]"}
    found = detect(encoder, tmp_path, coco, detection_learning_rate=0.0, **options)
    written = (tmp_path / "detection").glob("detections_seed*")
    assert [path.name for path in written] == ["detections_seed2.json"]
    assert found["setting"]["eval"] == "val2017[:2], 2 pictures"
    assert found["setting"]["learning_rate"] == 0
    data = zip(found["setting"]["data"], first["setting"]["data"], strict=True)
    assert [one == other for one, other in data] == [True, False]
    assert list(found["seeds"]) == ["2"]


@pytest.mark.slow
def test_pictures_that_cannot_be_read_are_counted(encoder, tmp_path):
    made = shapes(9, 2, SIDE)
    write_split(tmp_path, "train2017", made)
    write_split(tmp_path, "val2017", made)
    (tmp_path / "val2017" / "3.png").write_bytes(b"no picture")
    options = {"detection_steps": 0, "detection_batch": 8}
    with pytest.raises(UnreadableRecordError, match=r"3\.png.*--max_bad_frac"):
        detect(encoder, tmp_path / "out", tmp_path, **options)
    found = detect(encoder, tmp_path / "out", tmp_path, max_bad_frac=0.2, **options)
    assert found["unreadable"] == 1
    assert found["setting"]["eval"] == "val2017, 8 pictures"


@pytest.mark.parametrize(
    "options, message",
    [
        ({"coco": None}, "give its folder as --coco"),
        ({"coco": "nowhere"}, "no folder .*nowhere"),
        ({"seeds": ("0", "0")}, "--seeds must be different numbers"),
        ({"seeds": ("a",)}, "--seeds must be different numbers"),
        ({"seeds": ("0", "00")}, "--seeds must be different numbers"),
        ({"seeds": ("4294967296",)}, "--seeds must be .* below 4294967296"),
        ({"detection_size": 60}, "60 px .* 64 px do"),
        ({"detection_layer": "9"}, "layer 9 is none of this encoder's"),
        ({"detection_layer": "first"}, "'first' is none of this.*_layer=last"),
        ({"detection_channels": 12}, "channels must be a multiple of 8"),
        ({"detection_protocol": "none"}, "must be one of short, long"),
    ],
)
def test_bad_options_are_refused(encoder, coco, tmp_path, options, message):
    """Before anything is trained."""
    options = {"coco": str(coco), "detection_size": SIDE} | options
    with pytest.raises((ValueError, OSError), match=message):
        evaluate(subject_of(encoder, tmp_path), ["detection"], **options)
    assert not list(tmp_path.glob("detection/*"))


def test_a_batch_that_the_devices_cannot_share(encoder, coco, tmp_path):
    subject = subject_of(encoder, tmp_path, num_devices=8)
    with pytest.raises(ValueError, match="batch_size 12 .* 8 devices; use 16 or 8"):
        evaluate(
            subject,
            ["detection"],
            coco=str(coco),
            detection_size=SIDE,
            detection_batch=12,
        )


def test_without_the_package_nothing_is_started(encoder, coco, tmp_path, monkeypatch):
    monkeypatch.setattr(task, "missing", lambda: "COCO's figures need a package.")
    with pytest.raises(ValueError, match="figures need a package"):
        evaluate(subject_of(encoder, tmp_path), ["detection"], coco=str(coco))
