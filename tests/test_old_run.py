"""A run written by version 0.1.0 is still resumed, evaluated and reported.

`tests/fixtures/run_0.1.0.tar.xz` is the workdir of six steps of a narrow SER on digits
with results of four tasks, as that version's `main` and `evaluate` left it (its older
checkpoint, curves and event files taken out). Red if a parameter, a key of the config
or of the results, or the layout on disk gets another name; or if a setting that
it lacks takes another value than that version had.
"""

import json
import pathlib
import shutil

import jax
import pytest
from helpers import ROOT
from ml_collections import ConfigDict

import ser_jax
from ser_jax.storage.metrics import read_metrics
from ser_jax.storage.reader import read_meta
from ser_jax.storage.tables import to_text
from ser_jax.train import loop
from ser_jax.train.sharding import make_mesh

pytestmark = pytest.mark.slow

ARCHIVE = ROOT / "tests" / "fixtures" / "run_0.1.0.tar.xz"
RESULTS = "eval/6-online/results.json"


@pytest.fixture
def workdir(tmp_path):
    shutil.unpack_archive(ARCHIVE, tmp_path)
    return tmp_path / "run"


def test_it_goes_on(workdir, tmp_path, monkeypatch):
    one_device = make_mesh(jax.devices()[:1])  # there is less to compile for it
    monkeypatch.setattr(loop, "make_mesh", lambda: one_device)
    config = ConfigDict(read_meta(workdir / "checkpoints")["config"])
    config.max_steps = 8
    config.dataset.data_dir = str(tmp_path / "data")
    summary = ser_jax.train(config, str(workdir))
    assert summary["steps"] == 8
    steps = [row["step"] for row in read_metrics(workdir)]
    assert steps[-1] == 8 and steps.count(6) <= 2  # training and probe, none twice


def test_it_is_evaluated_beside_its_old_results_and_reported(workdir, tmp_path):
    old = json.loads((workdir / RESULTS).read_text())
    run = ser_jax.open_run(str(workdir), data_dir=str(tmp_path / "data"))
    assert "mean" not in read_meta(workdir / "checkpoints")["config"]["dataset"]
    assert (run.encoder.mean, run.encoder.std) == ((0.305,) * 3, (0.376,) * 3)
    assert run.encoder.digest == old["digest"]
    ser_jax.evaluate(run, ["knn", "rotation_probe"])
    new = json.loads((workdir / RESULTS).read_text())
    assert new["tasks"]["knn"] == old["tasks"]["knn"]
    for task in ("health", "equivariance", "flops"):
        assert new["tasks"][task] == old["tasks"][task]
    assert "rotation_probe" in new["tasks"] and old.keys() <= new.keys()
    page = pathlib.Path(ser_jax.report([str(workdir)]))
    assert to_text(old["tasks"]["knn"]["top1_k20"]) in page.read_text()
