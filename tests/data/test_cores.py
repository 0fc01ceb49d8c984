"""Processes and threads by the cores there are; what is advised where."""

import re

import pytest

from ser_jax.data import cores


@pytest.mark.parametrize(
    ("count", "workers"), [(2, 0), (15, 0), (16, 1), (24, 2), (224, 18)]
)
def test_minus_one_goes_by_the_cores(count, workers, monkeypatch):
    monkeypatch.setattr(cores, "num_cores", lambda: count)
    assert cores.workers_for(-1) == workers
    assert cores.workers_for(0) == 0 and cores.workers_for(7) == 7


@pytest.mark.parametrize(
    ("count", "threads", "workers", "named"),
    [
        (8, 2, 0, r"num_threads from 2 to 8\."),
        (224, 16, 0, r"num_workers=-1: 18 processes on 224"),
        (224, 8, 18, r"num_threads from 8 to 13\."),
        (8, 16, 0, "16 threads fill the 8 cores"),
        (224, 16, 18, "288 threads fill"),
    ],
)
def test_the_setting_to_change_is_named(count, threads, workers, named, monkeypatch):
    monkeypatch.setattr(cores, "num_cores", lambda: count)
    assert re.search(named, cores.advice(threads, workers))
