"""Results belong to weights and data; what two evaluations find is in one file."""

import json

import pytest
from etils import epath
from helpers.evaluated import results_about

from ser_jax.evaluate import results as results_lib
from ser_jax.evaluate.data import EvalData
from ser_jax.evaluate.encoder import FrozenEncoder
from ser_jax.evaluate.results import evaluate
from ser_jax.evaluate.results_file import data_texts, merged, read_kept, write_results
from ser_jax.evaluate.subject import Subject
from ser_jax.evaluate.task import Task


def new(**tasks):
    failed = {k: x for k, x in tasks.items() if isinstance(x, str)}
    done = {k: {"top1": x} for k, x in tasks.items() if k not in failed}
    return {"tasks": done, "measured": {}, "left_out": {}, "failed": failed}


@pytest.fixture
def folder(tmp_path):
    return epath.Path(tmp_path)


def test_evaluations_at_once_keep_each_others_results(folder):
    """Both began with an empty folder; red if the later writes what it alone found."""
    about = results_about()
    first, second = new(knn=0.5), new(health=0.25)
    assert not read_kept(folder, about)
    write_results(folder, about, first)
    write_results(folder, about, second)
    results = write_results(folder, about, first)
    assert results["tasks"] == {"knn": {"top1": 0.5}, "health": {"top1": 0.25}}
    assert json.loads((folder / "results.json").read_text()) == results
    text = (folder / "results.md").read_text()
    assert "evaluation data: mine:1.0.0 test, 9 images, sha256:aaaaaaaa\n" in text


@pytest.mark.parametrize(
    "change",
    [
        {"content": {"test": "sha256:bbbbbbbbbb"}},  # other pictures, the same name
        {"name": "yours"},
        {"split": "test[:9]"},
        {"version": "2.0.0"},
    ],
)
def test_results_on_other_data_are_set_aside_whole(folder, change):
    write_results(folder, results_about(), new(knn=0.5))
    (folder / "attention.png").write_text("of these data")
    results = write_results(folder, results_about(**change), new(health=1.0))
    assert results["tasks"].keys() == {"health"}
    (place,) = results["other_data"]
    assert f"results on other data: {place}" in (folder / "results.md").read_text()
    aside = {path.name: path for path in (folder / place).iterdir()}
    assert aside.keys() == {"results.json", "results.md", "attention.png"}
    assert json.loads(aside["results.json"].read_text())["tasks"].keys() == {"knn"}
    assert not (folder / "attention.png").exists()
    again = write_results(folder, results_about(**change), new(knn=0.75))
    assert again["tasks"].keys() == {"health", "knn"}
    assert again["other_data"] == [place]


@pytest.mark.parametrize("num_eval, is_kept", [(9, True), (10, False)])
def test_older_results_say_how_many_images_alone(folder, num_eval, is_kept):
    old = {"digest": 1, "num_eval": num_eval, "tasks": {"knn": {"top1": 1.0}}}
    (folder / "results.json").write_text(json.dumps(old))
    results = write_results(folder, results_about(), new(health=1.0))
    assert ("knn" in results["tasks"]) == is_kept == ("other_data" not in results)


def test_what_needs_no_data_goes_with_any(folder):
    write_results(folder, results_about(), new(knn=0.5))
    without = {"digest": 1}
    results = write_results(folder, without, new(flops=2.0))
    assert results["tasks"].keys() == {"knn", "flops"} and data_texts(results)


def test_left_out_is_what_has_no_result_or_failed_now():
    kept = {"tasks": {"knn": {}}, "left_out": {"seis": "because", "flops": "failed"}}
    found = merged(kept, {}, new(flops=1.0) | {"left_out": {"knn": "no labels"}})
    assert found["left_out"] == {"seis": "because"}
    assert merged(kept, {}, new(knn="failed: it"))["left_out"]["knn"] == "failed: it"


@pytest.mark.parametrize("content", ["{", "[]", "{}", "null"])
def test_what_is_no_file_of_results_is_left_alone(folder, content):
    (folder / "results.json").write_text(content)
    with pytest.raises(ValueError, match="is no file of results"):
        write_results(folder, results_about(), new(knn=0.5))
    assert (folder / "results.json").read_text() == content


def test_a_task_that_fails_does_not_end_the_others(folder, monkeypatch):
    """Also one that was asked for by name; its error comes at the end."""

    def broken(subject, options):
        raise OSError("a broken picture")

    tasks = {
        "flops": Task("flops", None, "", broken),
        "health": Task("health", None, "", lambda *_: {"rankme": 1.0}),
    }
    monkeypatch.setattr(results_lib, "TASKS", tasks)
    subject = Subject(
        encoder=FrozenEncoder(None, {}, (0.0,) * 3, (1.0,) * 3, 1),
        data=EvalData("none", str(folder), "train", "test"),
        folder=folder / "run",
    )
    with pytest.raises(OSError, match="a broken picture"):
        evaluate(subject, ["flops", "health"], folder=folder / "out")
    found = json.loads((folder / "out" / "results.json").read_text())
    assert found["tasks"] == {"health": {"rankme": 1.0}}
    assert found["left_out"] == {}
    assert evaluate(subject, ["all"], folder=folder / "out")["failed"] == ["flops"]
    assert not (folder / "run").exists()
