"""How a batch is spread, and what cannot be."""

import jax
import pytest

from ser_jax.train.sharding import check_batch_size, make_mesh


def test_parts_of_a_batch_divide_what_each_device_has():
    mesh = make_mesh(jax.devices()[:8])
    for steps in (1, 2, 3, 6):
        check_batch_size(48, mesh, steps)
    said = r"divide the 6 images that a device has \(batch_size 48 on 8\), got "
    with pytest.raises(ValueError, match=f"{said}4; use 2 or 3"):
        check_batch_size(48, mesh, 4)
    with pytest.raises(ValueError, match=f"{said}48; use 3 or 6"):
        check_batch_size(48, mesh, 48)
    with pytest.raises(ValueError, match="48 .* by 5 devices"):
        check_batch_size(48, make_mesh(jax.devices()[:5]), 2)
