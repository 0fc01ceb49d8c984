"""From a workdir to results: the same features as the run's own probe."""

import dataclasses
import functools
import json
import shutil
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from helpers.coco_files import shapes, write_split
from helpers.evaluated import make_run, measure
from helpers.support import made_up_state, program_env
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import normalize

from ser_jax.data.host_transforms import CentreCrop
from ser_jax.evaluate import subject
from ser_jax.evaluate.classify import finetune, linear, logreg
from ser_jax.evaluate.classify.heads import Head
from ser_jax.evaluate.classify.linear import HeadOptions, linear_head
from ser_jax.evaluate.features.extract import extract, make_embed
from ser_jax.evaluate.layers import equimod
from ser_jax.evaluate.open import open_run
from ser_jax.evaluate.probe import make_online_knn, raw_pixels
from ser_jax.evaluate.results import choose
from ser_jax.evaluate.robustness.frames import PERTURBATIONS
from ser_jax.methods.regularizers.equimod import EquiMod

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A DINO run, whose evaluated encoder is the teacher."""
    return make_run(tmp_path_factory.mktemp("dino"), "dino", "ser")


@pytest.fixture(scope="module")
def run(workdir):
    return open_run(str(workdir), num_pictures=8)


def probe(run):
    """The probe that a run has while it trains."""
    knn = run.experiment.config["knn"]
    measure = make_online_knn(
        run.experiment.embed,
        lambda images: raw_pixels(run.experiment.normalize(images)),
        run.data.train,
        run.data.held_out,
        run.transform,
        run.mesh,
        batch_size=16,
        num_threads=2,
        num_neighbors=knn["num_neighbors"],
        temperature=knn["temperature"],
    )
    return measure(run.encoder.variables)


def accuracy_of_pixels(run):
    """By scikit-learn, of all there is in the pictures."""
    (bank, labels), (queries, truth) = (
        extract(
            make_embed(lambda _, images: images, run.mesh),
            (),
            source,
            run.transform,
            run.mesh,
            batch_size=16,
            num_threads=2,
        )
        for source in (run.data.train, run.data.held_out)
    )
    bank, queries = (
        normalize(np.asarray(run.experiment.normalize(x)).reshape(len(x), -1))
        for x in (bank, queries)
    )
    knn = KNeighborsClassifier(
        20, weights=lambda distances: np.exp((1 - distances**2 / 2) / 0.07)
    )
    return np.mean(knn.fit(bank, labels).predict(queries) == truth)


def test_results_are_those_of_the_runs_own_probe(run, workdir):
    assert run.folder == workdir / "eval" / "1-target"
    results, report = measure(run, run.folder, "knn", "health", "knn")
    assert results["step"] == 1 and results["settings"]["objective"] == "dino"
    assert list(results["tasks"]) == ["knn", "health"] == list(results["measured"])
    accuracy = results["tasks"]["knn"]["top1_k20"]
    probed = probe(run)
    assert accuracy == pytest.approx(probed["knn_accuracy"]) and accuracy > 0.2
    assert probed["knn_accuracy_pixels"] == pytest.approx(accuracy_of_pixels(run))
    health = results["tasks"]["health"]
    assert 1 <= health["rankme"] <= 16 and health["healthy_std"] == 0.25
    assert (run.folder / "results.md").read_text() == report + "\n"
    assert "knn/top1_k200" in report


def test_features_are_read_once_and_results_of_other_tasks_stay(
    run, tmp_path, monkeypatch
):
    run.features("train"), run.features("eval")
    run = dataclasses.replace(run)  # remembers nothing

    def forbidden(*args, **kwargs):
        raise AssertionError("read again")

    monkeypatch.setattr(subject, "extract", forbidden)
    first, _ = measure(run, tmp_path, "linear")
    assert 0.2 < first["tasks"]["linear"]["top1"] <= first["tasks"]["linear"]["top5"]
    # With a class token in one block alone there is no cls4.
    assert first["tasks"]["linear"]["num_heads"] == 20
    # Three of the 45 strengths: all take a minute.
    few = functools.partial(logreg.logistic_regression, l2_values=(1.0, 1e-2, 1e-4))
    monkeypatch.setattr(logreg, "logistic_regression", few)
    results, report = measure(run, tmp_path, "logreg")
    assert list(results["tasks"]) == ["linear", "logreg"]
    assert results["tasks"]["linear"] == first["tasks"]["linear"]
    assert (
        0.2 < results["tasks"]["logreg"]["top1"] <= results["tasks"]["logreg"]["top5"]
    )
    assert "linear/top1" in report and "logreg/top1" in report


def test_the_head_is_kept_for_tasks_that_classify_pictures(run, monkeypatch):
    options = HeadOptions()
    result, _ = measure(run, run.folder, "linear")
    assert result["tasks"]["linear"]["protocol"] == "grid, cached features"
    monkeypatch.setattr(linear, "linear_probe", None)
    head, feature = linear_head(run, options)
    logits, labels = run.classifier(head, feature)(run.data.held_out, run.transform)
    top1 = (logits.argmax(axis=1) == labels).mean()
    assert top1 == pytest.approx(result["tasks"]["linear"]["top1"])
    with pytest.raises(TypeError):  # another protocol's head would have to be trained
        linear_head(run, HeadOptions(protocol="ser"))


def test_a_grid_is_classified_beside_the_class_token(run, tmp_path):
    results, _ = measure(run, tmp_path, "knn", "linear", grid_layer=1)
    knn, linear = results["tasks"]["knn"], results["tasks"]["linear"]
    assert knn.keys() >= {"top1_k20", "grid1_top1_k20"}
    assert linear["grid1_feature"] == "grid1" and 0 < linear["grid1_top1"] <= 1


def test_everything_that_needs_nothing_else_is_in_all(run):
    chosen, left_out = choose(run, ["all", "finetune"], {})
    assert chosen == [
        *("knn", "linear", "logreg", "health", "equivariance", "seis"),
        *("lie_derivative", "rotation_probe", "corruptions", "perturbations"),
        *("flops", "pictures", "finetune"),
    ]
    assert left_out.keys() == {"equimod", "shifted"}
    assert "--shifted" in left_out["shifted"]


def test_layers_are_measured_and_drawn(run, tmp_path):
    tasks = ("pictures", "equivariance", "seis", "lie_derivative", "rotation_probe")
    folder = tmp_path / "new"  # which the pictures, first, find made
    done = measure(run, folder, *tasks)[0]["tasks"]
    for task in tasks[1:4]:
        assert {"layer_1", "layer_2"} <= done[task].keys()
    assert done["equivariance"]["layer_1"]["rotation/90"]["error"] > 0
    assert done["rotation_probe"]["chance"] == 0.25
    for name in done["pictures"].values():
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    assert done["pictures"].keys() == {"patch_pca", "equivariance"}


def test_other_pictures(run, tmp_path):
    tasks = ("corruptions", "perturbations", "shifted")
    results, report = measure(run, tmp_path, *tasks, shifted=("digits",))
    done = results["tasks"]
    assert done["corruptions"]["source"] == "generated"
    assert done["corruptions"]["num_images"] == 8
    assert len(done["corruptions"]["errors"]) == 14
    flips = done["perturbations"]["flip_probability"]
    assert flips.keys() == set(PERTURBATIONS)
    mean = done["perturbations"]["mean_flip_probability"]
    assert mean == pytest.approx(np.mean(list(flips.values())))
    same = done["shifted"]["digits"]
    assert same["num_images"] == 297 and same["num_classes"] == 10
    assert "shifted/digits/top1" in report


def test_the_online_encoder_has_results_of_its_own(run, workdir, tmp_path):
    options = {"encoder": "online", "num_pictures": 8, "batch_size": 64}
    online = open_run(str(workdir), step=1, **options)
    assert online.folder.name == "1-online"
    tasks = ("health", "finetune")
    results, _ = measure(online, tmp_path / "a", *tasks, finetune_epochs=2.0)
    other, _ = measure(run, tmp_path / "b", "health")
    assert results["encoder"] == "online"
    assert results["tasks"]["health"] != other["tasks"]["health"]
    finetune = results["tasks"]["finetune"]
    # Two passes of 500 // 64 batches; log 10 is 2.303.
    assert finetune["total_steps"] == 14 and finetune["loss_last"] < 2.31


def test_what_was_finetuned_is_evaluated(run, tmp_path, monkeypatch):
    """Training left out, it is the linear head; red if another encoder is read."""
    head, feature = linear_head(run, HeadOptions(protocol="moco_v3"))
    assert feature == "cls1"
    seen = {}

    def no_training(module, variables, batches, normalize, mesh, **settings):
        seen["pictures"], seen["labels"] = next(iter(batches))
        settings["on_step"](1, {"loss": 1.0})
        return variables, head

    monkeypatch.setattr(finetune, "finetune", no_training)
    options = {"protocol": "moco_v3"}
    tasks = measure(run, tmp_path, "linear", "finetune", **options)[0]["tasks"]
    assert tasks["finetune"]["top1"] == pytest.approx(tasks["linear"]["top1"])
    assert tasks["finetune"]["top5"] == pytest.approx(tasks["linear"]["top5"])
    # A batch's labels are its pictures': all zeros look more alike than any digits.
    pictures = seen["pictures"].reshape(256, -1).astype(np.float32)
    same = np.corrcoef(pictures[seen["labels"] == 0]).mean()
    assert same > np.corrcoef(pictures).mean() + 0.1


def test_equimod_is_measured_with_its_own_heads(tmp_path, monkeypatch):
    """Red if a part is another's, or pictures are left out; the rest is tested there.

    See tests/evals/test_equimod_scores.py.
    """
    make_run(tmp_path, "barlow_twins", "equimod")
    run = open_run(str(tmp_path), num_pictures=8)
    saved = made_up_state(run.experiment).variables

    def check(learner, variables, batches, rng):
        assert isinstance(learner.regularizer, EquiMod)
        for name in ("encoder", "regularizer"):
            for mine, its in (
                (variables.params, saved.params),
                (variables.batch_stats["student"], saved.batch_stats["student"]),
            ):
                jax.tree.map(np.testing.assert_array_equal, mine[name], its[name])
        (batch,) = batches
        assert all(len(crops) == 8 for crops in batch["crops"].values())
        return {"gain": 0.25, "ratio": 1.5}

    monkeypatch.setattr(equimod, "equimod_scores", check)
    tasks = measure(run, tmp_path / "out", "equimod")[0]["tasks"]
    assert tasks["equimod"] == {"gain": 0.25, "ratio": 1.5}
    with pytest.raises(ValueError, match="barlow_twins has no encoder 'target'"):
        open_run(str(tmp_path), encoder="target")


def test_two_processes_find_what_one_does(run, workdir, tmp_path, release):
    """Red if rows are out of order, or both write, or one waits for the other."""
    tasks = ("knn", "linear", "rotation_probe", "pictures")
    detection = {}
    if release:
        tasks += ("detection",)
        for split, seed in (("train2017", 0), ("val2017", 1)):
            write_split(tmp_path / "coco", split, shapes(24, seed))
        detection = {"coco": str(tmp_path / "coco"), "detection_size": 64}
        detection |= {"detection_steps": 60, "detection_batch": 16}
        detection |= {"detection_channels": 32, "detection_learning_rate": 5e-3}
    # One head: of a grid, 50 held-out images may choose another at a rounding error.
    expected, _ = measure(
        run, tmp_path / "one", *tasks, protocol="moco_v3", **detection
    )
    shutil.rmtree(run.folder, ignore_errors=True)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "ser_jax.evaluate", f"--checkpoint={workdir}"]
    command += [f"--tasks={','.join(tasks)}", f"--results={tmp_path / 'two'}"]
    command += ["--num_pictures=8", "--protocol=moco_v3"]
    command += [f"--{name}={value}" for name, value in detection.items()]
    command += [f"--coordinator=localhost:{port}"]
    processes = [
        subprocess.Popen(
            [*command, "--num_processes=2", f"--process_id={i}"],
            env=program_env(num_devices=4 if release else 1),
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    for process in processes:
        _, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
    found = json.loads((tmp_path / "two" / "results.json").read_text())["tasks"]
    assert found["knn"] == pytest.approx(expected["tasks"]["knn"], abs=0.01)
    linear = expected["tasks"]["linear"]["top1"]
    assert found["linear"]["top1"] == pytest.approx(linear, abs=0.02)
    probe = expected["tasks"]["rotation_probe"]
    assert found["rotation_probe"] == pytest.approx(probe)
    for name in found["pictures"].values():
        assert (tmp_path / "two" / name).is_file()
    if release:
        average = expected["tasks"]["detection"]["AP50"]
        assert average > 0.01
        assert found["detection"]["AP50"] == pytest.approx(average, rel=0.05)


def test_published_pictures_are_evaluated_whole(run, tmp_path):
    """CIFAR-10-C as published, ten pictures; `num_pictures` is eight."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "labels.npy", np.tile(np.arange(10), 5))
    np.save(tmp_path / "fog.npy", rng.integers(0, 256, (50, 32, 32, 3), np.uint8))
    found, _ = measure(run, tmp_path, "corruptions", corrupted=str(tmp_path))
    corruptions = found["tasks"]["corruptions"]
    assert corruptions["source"] == "official" and corruptions["num_images"] == 10
    assert corruptions["errors"].keys() == {"fog"}
    assert corruptions["alexnet_normalized_mce"] is None


def test_flip_rates_over_a_reference_networks(run, tmp_path):
    path = tmp_path / "alexnet.json"
    path.write_text("[1]")
    with pytest.raises(ValueError, match="must hold a JSON object"):
        measure(run, tmp_path, "perturbations", flip_normalizers=str(path))
    path.write_text(json.dumps(dict.fromkeys(PERTURBATIONS, 0.5)))
    options = {"flip_normalizers": str(path)}
    results, _ = measure(run, tmp_path, "perturbations", **options)
    found = results["tasks"]["perturbations"]
    expected = found["mean_flip_probability"] / 0.5
    assert found["mean_flip_rate"] == pytest.approx(expected)


def test_no_more_pictures_are_read_than_are_wanted(run):
    """Eight pictures on eight devices; red if a batch of 256 is filled up."""

    class Counting(CentreCrop):
        count = 0

        def map(self, example):
            Counting.count += 1
            return super().map(example)

    source = run.data.held_out.subset(8)
    head = Head(np.zeros((16, 10), np.float32), np.zeros(10, np.float32))
    run.classifier(head, "cls1")(source, Counting(32, 32))
    assert Counting.count == 8
