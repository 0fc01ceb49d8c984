"""Weights without their run: evaluated, told what was assumed, refused in one line."""

import jax
import numpy as np
import pytest
from helpers import made_up_weights
from helpers.evaluated import make_run
from helpers.programs import run_program
from PIL import Image

from ser_jax.evaluate.open import open_run
from ser_jax.evaluate.results import choose, evaluate
from ser_jax.evaluate.results_file import as_text
from ser_jax.evaluate.weights import open_weights
from ser_jax.interop.answers import IMAGENET, Given
from ser_jax.interop.files.refused import RefusedFileError
from ser_jax.interop.files.safetensors import write_safetensors
from ser_jax.interop.imported import import_weights
from ser_jax.report.write import report

SIDE = 16
KNOWN = Given(layout="dino", num_heads=2, normalize=IMAGENET)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "vit.safetensors"
    write_safetensors(path, made_up_weights.vit(width=8, side=SIDE // 4), {})
    return path


def opened(file, tmp_path, given=KNOWN, **options):
    return open_weights(
        file,
        given,
        dataset="digits",
        data_dir=str(tmp_path / "data"),
        folder=tmp_path / "out",
        train_split="train[:60]",
        num_pictures=8,
        **options,
    )


@pytest.mark.slow
def test_results_say_what_was_assumed_and_the_report_shows_them(file, tmp_path):
    subject = opened(file, tmp_path)
    results = evaluate(subject, ["knn"])
    assert 0 <= results["tasks"]["knn"]["top1_k10"] <= 1
    assert results["weights"] == str(file) and results["layout"] == "dino"
    assert results["digest"] == import_weights(file, KNOWN).digest
    assert "as asked" in results["given"]["num_heads"]
    assert results["guessed"].keys() == {"norm_eps", "positions", "role"}
    assert f"guessed norm_eps: {results['guessed']['norm_eps']}" in as_text(results)
    page = report([tmp_path / "out"], tmp_path / "page.html").read_text()
    assert "vit.safetensors" in page
    other = opened(
        file, tmp_path, Given(layout="dino", num_heads=4, normalize=IMAGENET)
    )
    with pytest.raises(ValueError, match=r"other weights \(.*vit.safetensors"):
        evaluate(other, ["knn"])


@pytest.mark.slow
def test_features_are_those_of_the_encoder(file, tmp_path):
    subject = opened(file, tmp_path)
    imported = subject.imported
    images = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), np.uint8)
    normal = (images / 255 - np.array(IMAGENET[0])) / np.array(IMAGENET[1])
    out = imported.module.apply(imported.variables, normal.astype(np.float32))
    np.testing.assert_allclose(subject.encoder(images), out.cls, atol=1e-5)


def test_what_asks_for_a_run_or_other_grids_is_left_out(file, tmp_path):
    chosen, left_out = choose(opened(file, tmp_path), ["all"], {})
    assert {"knn", "linear", "equivariance"} <= set(chosen)
    assert "without its run" in left_out["equimod"]
    either = Given(num_heads=2, normalize=IMAGENET)  # timm's or DINO's: not known
    chosen, left_out = choose(opened(file, tmp_path, either), ["all"], {})
    assert "knn" in chosen and "rotation_probe" in chosen
    for task in ("equivariance", "seis", "pictures"):
        assert "give --positions" in left_out[task]


def test_normalisation_that_is_not_known_is_asked_for(file, tmp_path):
    with pytest.raises(RefusedFileError, match="give --normalize"):
        opened(file, tmp_path, Given(layout="timm", num_heads=2))


@pytest.mark.slow
def test_command_lines(file, tmp_path):
    """Red if a flag does not reach the file, or an error has a traceback."""
    told = ["--num_heads=2", "--layout=dino"]

    def run(module, *arguments):
        return run_program(module, *map(str, arguments), cwd=tmp_path)

    done = run("ser_jax.interop", file, *told)
    assert done.returncode == 0 and "ViT, width 8" in done.stdout
    done = run("ser_jax.interop", file)
    assert done.returncode == 1 and "give --num_heads" in done.stderr
    assert "Traceback" not in done.stderr
    for i in range(9):
        (tmp_path / "images").mkdir(exist_ok=True)
        noise = np.random.default_rng(i).integers(0, 256, (16, 20, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / "images" / f"{i}.png")
    data = [f"--pictures={tmp_path}/images", f"--results={tmp_path}/out"]
    done = run(
        *("ser_jax.evaluate", f"--weights={file}", *told, *data),
        *("--normalize=.5,.5,.5,.2,.2,.2", "--tasks=health,embed"),
    )
    assert done.returncode == 0, done.stderr
    assert "health/rankme" in done.stdout
    with np.load(tmp_path / "out" / "embed" / "train.npz") as found:
        assert sorted(found["name"]) == [f"{i}.png" for i in range(9)]
        assert found["feature"].shape == (9, 8) and set(found["label"]) == {-1}
    assert (tmp_path / "out" / "embed" / "neighbours.png").exists()
    done = run("ser_jax.evaluate", f"--weights={file}")
    assert "--dataset (or --pictures) and --results must be given" in done.stderr
    done = run("ser_jax.evaluate", f"--weights={file}", "--pictures=images")
    assert "--pictures goes with --results" in done.stderr
    done = run(
        *("ser_jax.evaluate", f"--weights={file}", *told, *data), "--normalize=1,2"
    )
    assert "imagenet or six numbers" in done.stderr


@pytest.mark.slow
def test_a_runs_encoder_is_written_and_read_back(tmp_path):
    run = make_run(tmp_path / "run", "moco_v3", "ser")
    told = ["ser_jax.interop", str(run)]
    out = tmp_path / "out"
    done = run_program(*told, "--to=safetensors", f"--out={out}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "- regularizer: ser" in (out / "README.md").read_text()
    found, own = import_weights(out / "model.safetensors"), open_run(run).encoder
    jax.tree.map(
        np.testing.assert_array_equal,
        found.variables["params"],
        own.variables["params"],
    )
    done = run_program(*told, "--to=timm", f"--out={tmp_path}/timm", cwd=tmp_path)
    assert done.returncode == 1 and "joins after block" in done.stderr
    assert not (tmp_path / "timm").exists()
    done = run_program(*told, "--to=timm", cwd=tmp_path)
    assert "--to and --out go together" in done.stderr
