"""What a run would be, said and not done."""

import jax
import pytest
from helpers.made_up_weights import vit
from helpers.support import tiny_config

from ser_jax.interop.files.safetensors import write_safetensors
from ser_jax.train import dry_run as module
from ser_jax.train.dry_run import dry_run
from ser_jax.train.sharding import make_mesh

pytestmark = pytest.mark.slow


@pytest.fixture
def config(tmp_path, monkeypatch):
    one_device = make_mesh(jax.devices()[:1])
    monkeypatch.setattr(module, "make_mesh", lambda: one_device)
    file = tmp_path / "dino.safetensors"
    write_safetensors(file, vit(width=16, depth=1, side=4, hidden=64), {})
    settings = {"dataset.data_dir": str(tmp_path / "data"), "model.depth": 1}
    settings |= {"init": str(file), "model.pos_embed": "learned"}
    return tiny_config("simclr", "none", **settings)


def test_it_says_what_would_be_trained_and_writes_nothing(config, tmp_path):
    about, fits = dry_run(config, tmp_path / "run")
    assert fits and not (tmp_path / "run").exists()
    assert about.startswith("Would train simclr\n")
    for said in (
        "1,500 of digits, 16 px",
        "4 epochs",
        "chosen      attention=xla, remat=none, scan=False",
        "GB a device, by the compiler's plan",
        f"workdir     {tmp_path}/run",
        f"init        {tmp_path}/dino.safetensors (timm_or_dino, online)",
    ):
        assert said in about
    assert "FLOPs" in about


def test_what_does_not_fit_is_said(config, monkeypatch):
    monkeypatch.setattr(module, "device_memory", lambda _: 1e3)
    about, fits = dry_run(config, "none")
    assert not fits and "IT DOES NOT FIT" in about
