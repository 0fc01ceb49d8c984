"""Seconds that trained nothing."""

import pytest

from ser_jax.train.lost import LOST, PROBE, SAVE, Lost


def test_blocks_add_up_beside_what_other_parts_lost():
    now = 100.0
    lost = Lost(clock=lambda: now)
    assert lost.seconds == {metric.name: 0.0 for metric in LOST}
    with lost.to(SAVE):
        now += 2.0
    with pytest.raises(KeyError), lost.to(PROBE):
        now += 3.0
        raise KeyError
    lost.add({SAVE.name: 10.0})
    assert lost.seconds["lost_s_save"] == 12.0
    assert lost.seconds["lost_s_probe"] == 3.0
    assert "saving 12.0, probing 3.0" in str(lost)
