"""Short runs on digits."""

import pytest
from helpers.runs import once_for_equals
from helpers.support import tiny_config

from ser_jax.train import loop


@pytest.fixture(scope="package")
def programs_are_shared():
    """Runs that train alike share what is compiled and counted for them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("compile_train_step", "compile_equiv_grad_norm", "account"):
            patch.setattr(loop, name, once_for_equals(getattr(loop, name)))
        yield


@pytest.fixture(scope="package")
def data_dir(tmp_path_factory, programs_are_shared):
    return str(tmp_path_factory.mktemp("data"))


@pytest.fixture
def config(data_dir):
    """93 steps an epoch of 16 digits each; runs are cut short by max_steps."""
    config = tiny_config()
    config.dataset.data_dir = data_dir
    config.log_every_steps = 1
    config.checkpoint.every_steps = 2
    config.knn.every_epochs = 0.0
    config.optimizer.warmup_epochs = 0.0  # so that four steps move the weights
    return config


@pytest.fixture
def plain(config):
    """The same without SER: what is tested has nothing to do with it."""
    config.regularizer = tiny_config(regularizer="none").regularizer
    return config
