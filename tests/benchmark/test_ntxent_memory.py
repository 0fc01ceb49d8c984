"""The token-level loss's memory grows with the tokens, not with their square."""

import jax
import pytest

from ser_jax.benchmark.ntxent_memory import ntxent_temp_bytes

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def optimized():
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


def temp_bytes(num_images, **settings):
    return ntxent_temp_bytes(num_images, num_slots=256, dim=64, **settings)


def test_blockwise_memory_is_linear_and_the_dense_form_is_not():
    one, two, four = (temp_bytes(b, block_tokens=256) for b in (4, 8, 16))
    assert two < 2.2 * one
    assert four < 2.2 * two
    # At 4096 tokens against 8192 the logits alone are 128 MiB.
    assert four < 128 * 2**20 / 4
    assert temp_bytes(16, block_tokens=4096) > 128 * 2**20
