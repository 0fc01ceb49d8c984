"""The progress line where it is not a training run's: other units, other messages."""

import io

import pytest

from ser_jax.data.progress import ProgressLine, format_duration


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_rate_is_of_all_updates_and_the_total_may_change():
    now, stream = [0.0], io.StringIO()
    line = ProgressLine(20, stream=stream, clock=lambda: now[0])
    for now[0], done in ((0.0, 2), (20.0, 3), (40.0, 6)):
        line.update(done, lambda: f"{line.rate or 0:.1f} a second")
    line.total = 18
    assert line.rate == pytest.approx(0.1) and line.eta_s == pytest.approx(120.0)
    assert stream.getvalue().splitlines() == [
        "0.0 a second",
        "0.1 a second, 2m 20s left",
    ]


def test_the_last_line_comes_at_once_and_only_once():
    now, stream = [0.0], io.StringIO()
    line = ProgressLine(1.0, stream=stream, clock=lambda: now[0])
    for now[0], done in ((0.0, 0.5), (1.0, 1.0), (2.0, 1.0)):
        line.update(done, lambda: "read")
    assert stream.getvalue().splitlines() == ["read", "read, 0s left"]


@pytest.mark.parametrize(
    "stream, expected",
    [(io.StringIO(), ["one", "news"]), (Terminal(), ["news", "one"])],
    ids=["file", "bar"],
)
def test_a_message_gets_a_line_of_its_own(stream, expected):
    line = ProgressLine(4, stream=stream)
    line.update(1, lambda: "one")
    line.say("news")
    line.close()
    rows = stream.getvalue().split("\n")[:-1]
    assert [row.rpartition("\r")[2].split()[-1] for row in rows] == expected


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0s"),
        (59.6, "1m 00s"),
        (185, "3m 05s"),
        (26_400, "7h 20m"),
        (86_400 * 2 + 3 * 3600, "2d 03h"),
    ],
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text
