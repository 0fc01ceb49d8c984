"""What cannot be evaluated is refused, with what to do, and leaves nothing behind."""

import dataclasses
import json
import shutil

import pytest
from helpers.evaluated import make_run, measure

from ser_jax.evaluate import results as results_lib
from ser_jax.evaluate.open import open_run
from ser_jax.evaluate.results import choose, evaluate
from ser_jax.evaluate.task import Task
from ser_jax.evaluate.tasks import TASKS
from ser_jax.storage.record import Record

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A DINO run, whose evaluated encoder is the teacher."""
    return make_run(tmp_path_factory.mktemp("dino"), "dino", "ser")


@pytest.fixture(scope="module")
def run(workdir):
    return open_run(str(workdir), num_pictures=8)


@pytest.mark.parametrize(
    "tasks, options, message",
    [
        (["knnn"], {}, "no task is called knnn; there are: all, knn"),
        (["knn", "equimod"], {}, "equimod: only runs with EquiMod"),
        (["shifted"], {}, "--shifted=imagenet_v2"),
        (["knn"], {"grid_layer": 9}, "layer 9 is not in 1..depth"),
        (["corruptions"], {"corrupted": "/nowhere"}, "/nowhere"),
        (["shifted"], {"shifted": ("imagenet_v2",)}, "no data set 'imagenet_v2'"),
    ],
)
def test_mistakes_are_explained_and_write_no_results(
    run, tmp_path, tasks, options, message
):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        evaluate(run, tasks, folder=tmp_path, **options)
    assert not list(tmp_path.glob("results*"))


def test_results_of_another_checkpoint_are_not_mixed_in(run, tmp_path):
    other = {"run": "/elsewhere", "step": 7, "encoder": "online", "digest": 1}
    other["tasks"] = {}
    (tmp_path / "results.json").write_text(json.dumps(other))
    with pytest.raises(ValueError, match="of other weights ./elsewhere, step 7"):
        evaluate(run, ["health"], folder=tmp_path)
    for damaged in ("{", "null", "[]", '{"tasks": []}', '{"tasks": {"knn": null}}'):
        (tmp_path / "results.json").write_text(damaged)
        with pytest.raises(ValueError, match="results.json is no file of results"):
            evaluate(run, ["health"], folder=tmp_path)


@pytest.mark.parametrize(
    "settings, error, message",
    [
        ({"step": 7}, FileNotFoundError, "expected step 7 in .* found"),
        ({"workdir": "/nowhere"}, FileNotFoundError, "expected a checkpoint"),
    ],
)
def test_a_checkpoint_that_is_not_there(workdir, settings, error, message):
    with pytest.raises(error, match=message):
        open_run(**({"workdir": str(workdir)} | settings))


@pytest.mark.parametrize("change", ["unknown", "method", "objective"])
def test_a_checkpoint_of_another_version_is_refused(workdir, monkeypatch, change):
    read = Record.read.__func__

    def changed(cls, directory):
        record = read(cls, directory)
        config = record.meta["config"]
        if change == "unknown":
            config["optimizer"]["novel"] = 1
        elif change == "method":
            del config["objective"]["name"]
        else:
            config["objective"]["name"] = "byol2"
        return record

    monkeypatch.setattr(Record, "read", classmethod(changed))
    expected = {
        "unknown": "another version .* optimizer.novel",
        "method": "names no objective or no regularizer",
        "objective": "byol2",
    }
    with pytest.raises(ValueError, match=expected[change]):
        open_run(str(workdir))


def test_a_handful_of_images_is_evaluated(run, tmp_path):
    """Fewer than classes, devices, neighbours and a batch of heads."""
    few = dataclasses.replace(run.data, train_split="train[:5]", eval_split="test[:1]")
    short = dataclasses.replace(run, data=few)
    results, _ = measure(short, tmp_path, "knn", "linear", "health")
    assert results["tasks"]["knn"].keys() == {"top1_k5"}
    assert results["tasks"]["linear"]["top1"] in (0, 1)
    one = dataclasses.replace(run.data, train_split="train[:1]")
    with pytest.raises(ValueError, match="1 training example cannot"):
        measure(dataclasses.replace(run, data=one), tmp_path, "linear", "knn")
    found = json.loads((tmp_path / "results.json").read_text())  # the other went on
    assert found["tasks"].keys() == {"knn"} and len(found["other_data"]) == 1


def test_a_run_can_be_evaluated_elsewhere(run, workdir, tmp_path):
    """The workdir moved, and so has its data; results are still of these weights.

    Red if something is written into the run while results go elsewhere.
    """
    measure(run, run.folder, "health")
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    measure(run, tmp_path / "b", "knn", "linear", "pictures")
    assert before == {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    moved = shutil.copytree(workdir, tmp_path / "moved")
    shutil.move(moved / "data", tmp_path / "data")
    lost = open_run(str(moved), data_dir=str(moved / "data" / "none"))
    with pytest.raises(ValueError, match="knn: no data set 'digits'|Elsewhere"):
        evaluate(replaced(lost, name="digits2"), ["knn"], folder=tmp_path / "a")
    found = open_run(str(moved), data_dir=str(tmp_path / "data"), num_pictures=8)
    results, _ = measure(found, found.folder, "knn")
    assert results["tasks"].keys() >= {"health", "knn"}


def replaced(run, **data):
    return dataclasses.replace(run, data=dataclasses.replace(run.data, **data))


def test_without_labels_or_an_evaluation_split_there_is_something_left(run, tmp_path):
    chosen, left_out = choose(replaced(run, eval_split="absent"), ["all"], {})
    assert {"equivariance", "seis", "health", "flops", "pictures"} <= set(chosen)
    assert "has no split 'absent'" in left_out["knn"]
    results, _ = measure(replaced(run, eval_split="absent"), tmp_path, "rotation_probe")
    assert results["tasks"]["rotation_probe"]["cls"] >= 0


def test_one_failure_does_not_end_everything(run, tmp_path, monkeypatch):
    def broken(run, options):
        raise ValueError("a broken picture")

    failing = Task("flops", None, "", broken)
    small = {"health": TASKS["health"], "flops": failing, "knn": TASKS["knn"]}
    monkeypatch.setattr(results_lib, "TASKS", small)
    results, report = measure(run, tmp_path, "all")
    assert results["tasks"].keys() == {"health", "knn"}
    assert results["left_out"] == {"flops": "failed: a broken picture"}
    assert "- flops: failed: a broken picture" in report
    assert evaluate(run, ["health"], folder=tmp_path)["failed"] == []  # not this time
    assert evaluate(run, ["all"], folder=tmp_path)["failed"] == ["flops"]
    with pytest.raises(ValueError, match="a broken picture"):
        evaluate(run, ["flops"], folder=tmp_path)
