"""Where the devices do not divide b2: nothing but the place of its rows changes."""

import jax
import numpy as np
import pytest
from helpers.support import assert_close, real_batch, tiny_experiment

from ser_jax.benchmark.program import Program
from ser_jax.train.compiled import compile_train_step
from ser_jax.train.sharding import make_mesh, replicated, shard_batch

pytestmark = pytest.mark.slow
BATCH, B2 = 24, 12  # gcd 12: aligned on one device, not on eight


def stepped(num_devices):
    """State and metrics after a step, the views, and the program."""
    settings = {"regularizer.share": 0.5, "augment.rot90_prob": 0.5}
    experiment = tiny_experiment(batch_size=BATCH, **settings)
    mesh = make_mesh(jax.devices()[:num_devices])
    init = jax.jit(experiment.init_state, out_shardings=replicated(mesh))
    state = init(experiment.init_rng)
    step = compile_train_step(experiment, state, mesh)
    batch = shard_batch(real_batch(experiment), mesh)
    with jax.set_mesh(mesh):
        views = jax.eval_shape(
            experiment.learner.make_views, experiment.step_rng, batch, state.step
        )
    return *step(state, batch), views, Program(step.as_text())


def test_nothing_but_the_place_of_the_rows_changes():
    """One test, since its programs are dear and workers do not share them."""
    one, one_metrics, alone, _ = stepped(1)
    eight, metrics, views, program = stepped(8)

    # b1 stays whole and b2 is spread.
    assert alone["global/0"].images.shape[0] == BATCH - B2
    assert views["global/0"].images.shape[0] == BATCH
    assert views["global/0"].replaced == B2
    # Twelve images, two views each, one row a device and turn.
    assert views["equiv/0"].images.shape[0] == views["equiv/1"].images.shape[0] == 24
    assert views["equiv/0"].spread == 2
    assert views["equiv/0"].num_images == views["equiv/0"].params.gray.shape[0] == B2
    assert alone["equiv/0"].num_images == alone["equiv/0"].images.shape[0] == B2

    # The step is that of one device.
    for name, value in one_metrics.items():
        np.testing.assert_allclose(metrics[name], value, rtol=2e-4, err_msg=name)
    jax.tree.map(
        lambda a, b: assert_close(b, a, 1e-4, 2e-6),
        one.variables.batch_stats,
        eight.variables.batch_stats,
    )
    assert metrics["loss_equiv"] > 0

    # Pictures stay where they are, but for b2's, once, as the host's bytes.
    side, canvas = 16, views["equiv/0"].images.shape[1]
    sent = program.collectives(num_devices=8)
    of_views = [row for row in sent if row.part == "views"]
    assert 0 < sum(row.wire_bytes for row in of_views) <= 2 * 2 * B2 * side**2 * 3
    for row in sent:
        assert f",{canvas},{canvas},3]" not in row.shape, row
        is_bytes = row.shape.startswith(("u8", "(u8"))
        assert f",{side},{side},3]" not in row.shape or is_bytes, row
