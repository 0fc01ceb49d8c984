"""From a workdir to results: the same features as the run's own probe, clear errors."""

import json

import pytest
from support import tiny_config

from ser_jax.evaluate import evaluate
from ser_jax.train import train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A DINO run of one step, whose evaluated encoder is the teacher."""
    folder = tmp_path_factory.mktemp("run")
    config = tiny_config("dino", "none", **{"dataset.data_dir": str(folder / "data")})
    config.max_steps = 1
    config.dataset.train_split = "train[:500]"
    return folder, train(config, str(folder))


def test_results_are_those_of_the_runs_own_probe(run):
    folder, summary = run
    report = evaluate(str(folder), ["knn", "health", "knn"], step=None, out=None)
    results = json.loads((folder / "eval" / "results.json").read_text())
    assert results["step"] == 1 and list(results["tasks"]) == ["knn", "health"]
    assert results["tasks"]["knn"]["top1_k20"] == pytest.approx(summary["knn_accuracy"])
    health = results["tasks"]["health"]
    assert 1 <= health["rankme"] <= 16 and health["healthy_std"] == 0.25
    assert (folder / "eval" / "results.md").read_text().strip() in report
    assert "top1_k200" in report


def test_heads_are_trained_on_the_features_and_results_go_where_asked(run, tmp_path):
    folder, _ = run
    evaluate(str(folder), ["linear", "logreg"], step=1, out=str(tmp_path / "out"))
    tasks = json.loads((tmp_path / "out" / "results.json").read_text())["tasks"]
    for task in ("linear", "logreg"):
        assert 0.2 < tasks[task]["top1"] <= tasks[task]["top5"] <= 1  # chance: 0.1
    assert tasks["linear"]["feature"] in ("cls1", "cls1_avg")


def test_every_layer_is_scored_under_every_kind_of_transform(run, tmp_path):
    folder, _ = run
    evaluate(str(folder), ["equivariance"], step=None, out=str(tmp_path))
    tasks = json.loads((tmp_path / "results.json").read_text())["tasks"]
    scores = tasks["equivariance"]
    assert list(scores) == ["layer_1", "layer_2"]
    for kinds in scores.values():
        # 4 x 4 tokens are too few for a scale of 0.8.
        assert kinds.keys() == {"rotation", "flip", "aspect", "translation"}
        for score in kinds.values():
            assert score["token_cosine"] <= 1 and 0 <= score["top1"] <= 1
            assert score["error"] > 0  # an untrained ViT with positions


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        (
            {"tasks": ["knnn"]},
            ValueError,
            "no task is called knnn; there are: all, knn",
        ),
        ({"step": 7}, FileNotFoundError, "expected step 7 in .* found"),
        ({"workdir": "/nowhere"}, FileNotFoundError, "expected a checkpoint"),
    ],
)
def test_mistakes_are_explained_and_write_nothing(
    run, tmp_path, arguments, error, message
):
    settings = {"workdir": str(run[0]), "tasks": ["knn"], "step": None}
    with pytest.raises(error, match=message):
        evaluate(**(settings | arguments), out=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
