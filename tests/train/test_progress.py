"""Progress: speed without compilation and pauses, and what a stream gets to see."""

import io
import logging

import pytest

from ser_jax.train.progress import Progress, Stopwatch, WaitWarning


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def run(progress, clock, steps, seconds, metrics=None):
    for step in steps:
        clock.now += seconds
        progress.update(step, metrics)


def test_speed_leaves_out_the_compiling_step_and_pauses():
    clock = Clock()
    progress = Progress(100, 10, 32, io.StringIO(), clock=clock)
    assert progress.images_per_s is None and progress.eta_s is None
    run(progress, clock, [11], 60.0)
    assert progress.images_per_s is None and progress.eta_s is None
    run(progress, clock, [12, 13], 0.5)
    with progress.pause():
        clock.now += 1000.0
    run(progress, clock, [14, 15], 0.5)
    assert progress.images_per_s == pytest.approx(64.0)
    assert progress.eta_s == pytest.approx(85 * 0.5)


def test_times_of_steps_leave_out_the_first_and_pauses():
    """Red if compilation or a probe is a slow step."""
    clock = Clock()
    progress = Progress(500, 0, 32, io.StringIO(), ideal_s=0.001, clock=clock)
    run(progress, clock, [1], 60.0)
    assert progress.speeds() == {}
    run(progress, clock, [2, 3], 0.1)
    with progress.pause():
        clock.now += 1000.0
    run(progress, clock, [4], 0.5)
    speeds = progress.speeds()
    assert speeds["step_ms_p50"] == pytest.approx(100.0)
    assert speeds["step_ms_p95"] == pytest.approx(100.0 + 0.9 * 400.0)
    assert speeds["images_per_s"] == pytest.approx(3 * 32 / 0.7)
    assert speeds["mfu"] == pytest.approx(speeds["images_per_s"] * 0.001)


def test_speed_follows_a_change():
    clock = Clock()
    progress = Progress(1000, 0, 8, io.StringIO(), clock=clock)
    run(progress, clock, range(1, 201), 1.0)
    run(progress, clock, range(201, 301), 0.25)
    assert progress.images_per_s == pytest.approx(32.0)


def test_a_pause_counts_even_if_it_ends_in_an_error():
    clock = Clock()
    progress = Progress(10, 0, 1, io.StringIO(), clock=clock)
    run(progress, clock, [1], 1.0)
    with pytest.raises(KeyError):
        with progress.pause():
            clock.now += 50.0
            raise KeyError
    run(progress, clock, [2], 1.0)
    assert progress.images_per_s == pytest.approx(1.0)


def test_a_terminal_gets_one_line_that_is_rewritten():
    clock, stream = Clock(), Terminal()
    progress = Progress(4, 0, 100, stream, clock=clock)
    run(progress, clock, [1, 2], 0.5, {"loss": 2.5})
    run(progress, clock, [3], 0.01, {"loss": 2.0})  # Too soon after the last one.
    run(progress, clock, [4], 0.49, {"loss": 1.5})
    shown = [line.split("step", 1)[1].rstrip() for line in bars(stream)]
    assert shown[0] == " 1/4 (25.0 %), loss 2.5000"
    assert shown[1] == " 2/4 (50.0 %), loss 2.5000, 200 images/s, 1s left"
    assert shown[-1] == " 4/4 (100.0 %), loss 1.5000, 300 images/s, 0s left"
    assert not any(line.startswith(" 3/4") for line in shown)
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().endswith("\n")


def bars(stream):
    return [line for line in stream.getvalue().split("\r") if line.strip()]


def test_a_run_that_stops_early_leaves_the_line():
    clock, stream = Clock(), Terminal()
    progress = Progress(4, 0, 1, stream, clock=clock)
    run(progress, clock, [1], 1.0)
    progress.close()
    stream.write("knn 0.5")
    assert stream.getvalue().endswith("step 1/4 (25.0 %)\nknn 0.5")


def test_a_file_gets_lines_at_the_interval_given():
    clock, stream = Clock(), io.StringIO()
    progress = Progress(100, 0, 1, stream, log_every_s=30, clock=clock)
    run(progress, clock, range(1, 101), 1.0)
    steps = [line.split("/")[0] for line in stream.getvalue().splitlines()]
    assert steps == ["step 1", "step 31", "step 61", "step 91", "step 100"]
    assert "\x1b" not in stream.getvalue() and "\r" not in stream.getvalue()


@pytest.mark.parametrize(
    ("stream", "options"),
    [(io.StringIO(), {}), (Terminal(), {"is_primary": False})],
    ids=["file", "other process"],
)
def test_others_get_nothing(stream, options):
    clock = Clock()
    run(Progress(2, 0, 1, stream, clock=clock, **options), clock, [1, 2], 1.0)
    assert stream.getvalue() == ""


def test_stopwatch_gives_the_share_of_time_inside_and_starts_anew():
    now = 0.0
    watch = Stopwatch(clock=lambda: now)
    now = 1.0
    with watch:
        now = 2.0
    now = 4.0
    assert watch.fraction() == 0.25
    now = 5.0
    assert watch.fraction() == 0.0


def test_waiting_is_told_with_what_to_change_once_in_ten_minutes(caplog):
    """Red if the loader's start counts, a tenth is too much, or each row is told."""
    clock = Clock()
    warning = WaitWarning(clock)
    for fraction, seconds, told in (
        (0.9, 0, 0),  # the first: workers start
        (0.1, 1, 0),
        (0.43, 1, 1),
        (0.9, 598, 1),
        (0.9, 2, 2),
        (0.0, 700, 2),
        (0.2, 1, 3),
    ):
        clock.now += seconds
        with caplog.at_level(logging.WARNING):
            warning.note(fraction, 1, 10_000)
        assert len(caplog.records) == told
    assert "43 % of the time" in caplog.messages[0]
    assert "10000 threads" in caplog.messages[0]  # what `advice` has to say
