"""What is read from a compiled program, against what was written."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ser_jax.benchmark.program import Program
from ser_jax.train.sharding import batch_sharded, make_mesh, replicated

TURNS, ROWS, WIDTH = 5, 32, 16


def compiled(function, *arguments):
    return Program(jax.jit(function).lower(*arguments).compile().as_text())


def shape(*sides, sharding=None):
    return jax.ShapeDtypeStruct(sides, jnp.float32, sharding=sharding)


@pytest.fixture(scope="module")
def looped():
    """A loop whose body multiplies, and sums over all eight devices."""
    mesh = make_mesh()
    rows = NamedSharding(mesh, PartitionSpec("data"))

    def function(x, w):
        def body(w, _):
            with jax.named_scope("student_encoder"):
                return w + jnp.einsum("bi,bj->ij", x, x @ w), None

        return jax.lax.scan(body, w, length=TURNS)[0]

    return Program(
        jax.jit(function, out_shardings=replicated(mesh))
        .lower(shape(ROWS, WIDTH, sharding=rows), shape(WIDTH, WIDTH))
        .compile()
        .as_text()
    )


def test_a_loop_counts_as_often_as_it_turns(looped):
    rows = ROWS // 8  # of a device
    assert looped.flops() == TURNS * 2 * (2 * rows * WIDTH * WIDTH)
    (sent,) = looped.collectives(num_devices=8)
    assert sent.kind == "all-reduce" and sent.times == TURNS
    assert sent.wire_bytes == TURNS * 2 * 7 / 8 * 4 * WIDTH * WIDTH
    assert sent.part == "student, forward" and "dot_general" in sent.op_name


def test_a_gather_sends_all_but_what_a_device_has():
    mesh = make_mesh()
    program = Program(
        jax.jit(lambda x: x + 1, out_shardings=replicated(mesh))
        .lower(shape(64, 3, sharding=batch_sharded(mesh)))
        .compile()
        .as_text()
    )
    (sent,) = program.collectives(num_devices=8)
    assert sent.kind == "all-gather" and sent.wire_bytes == 7 / 8 * 4 * 64 * 3


@pytest.mark.parametrize(
    "settings",
    [
        {"window_strides": (1, 1), "padding": "VALID"},
        {"window_strides": (2, 3), "padding": "SAME"},
        {"window_strides": (1, 1), "padding": [(2, 1), (0, 3)], "lhs_dilation": (2, 3)},
        {"window_strides": (2, 1), "padding": [(4, 4), (0, 0)], "rhs_dilation": (3, 2)},
    ],
)
def test_convolutions_count_places_that_hold_data(settings):
    """Against a convolution of ones, whose result counts them."""
    image, kernel = (2, 9, 11, 4), (3, 3, 4, 6)
    layout = ("NHWC", "HWIO", "NHWC")

    def conv(x, k):
        return jax.lax.conv_general_dilated(x, k, dimension_numbers=layout, **settings)

    expected = 2 * np.sum(conv(jnp.ones(image), jnp.ones(kernel)))
    assert compiled(conv, shape(*image), shape(*kernel)).flops() == expected


def test_asynchronous_collectives_count_once():
    """As a TPU's program has them: started, and written into fusions they overlap."""
    program = Program(
        """
HloModule m

%fused (p: f32[8]) -> f32[64] {
  %p = f32[8]{0} parameter(0)
  ROOT %g = f32[64]{0} all-gather(%p), channel_id=3, replica_groups=[2,4]<=[8], \
dimensions={0}
}

ENTRY %main (x: f32[8]) -> f32[64] {
  %x = f32[8]{0} parameter(0)
  %s = ((f32[8]{0}), f32[64]{0}, u32[]) all-gather-start(%x), channel_id=1, \
replica_groups=[2,4]<=[8], dimensions={0}
  %a = f32[64]{0} fusion(%x), kind=kCustom, calls=%fused, \
metadata={op_name="jit(train_step)/views/a"}, \
backend_config={"estimated_cycles":"700","flag":true}
  ROOT %b = f32[64]{0} fusion(%x), kind=kCustom, calls=%fused, \
metadata={op_name="jit(train_step)/optimizer/b"}, \
backend_config={"estimated_cycles":"11"}
}
"""
    )
    sent = program.collectives(num_devices=8)
    assert [row.wire_bytes for row in sent] == [3 / 4 * 256] * 2  # groups of four
    assert program.cycles_by_part() == {"views": 700, "optimizer": 11}


def test_kernels_are_told_with_what_they_move():
    program = Program(
        """
ENTRY %main (x: bf16[8]) -> bf16[16] {
  %x = bf16[8]{0} parameter(0)
  ROOT %k = bf16[16]{0} custom-call(%x), custom_call_target="tpu_custom_call", \
metadata={op_name="jit(train_step)/target_encoder/k"}
}
"""
    )
    ((count, kernel, num_bytes),) = program.kernels()
    assert (count, kernel.part, num_bytes) == (1, "target", 2 * 8 + 2 * 16)


def test_what_is_no_program_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        Program("HloModule nothing")
