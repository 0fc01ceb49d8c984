"""Which steps are traced; what a trace holds is in `test_loop.py`."""

import pytest

from ser_jax.storage.files import as_path
from ser_jax.train.profile import Profile, steps_of, still_to_come


def test_a_range_is_read():
    assert steps_of("100:110") == range(100, 111)
    assert steps_of("7:7") == range(7, 8)


@pytest.mark.parametrize(
    "text", ["", "5", "5:", ":5", "0:3", "9:3", "-1:3", "a:b", "1:2:3"]
)
def test_what_is_no_range_is_refused(text):
    with pytest.raises(ValueError, match=r"expected --profile=START:STOP.*got"):
        steps_of(text)


@pytest.mark.parametrize(
    "done, left, said",
    [
        (0, range(10, 21), ""),
        (9, range(10, 21), ""),
        (10, range(11, 21), "only 11 to 20 come"),
        (20, range(0), "No trace: steps 10 to 20 are done"),
        (50, range(0), "No trace: steps 10 to 20 are done"),
    ],
)
def test_a_run_that_goes_on_traces_what_is_left_and_says_so(done, left, said, caplog):
    found = still_to_come(range(10, 21), done, last=100)
    assert list(found) == list(left)
    assert said in caplog.text and bool(said) == bool(caplog.records)


def test_a_run_that_ends_before_is_refused_and_one_that_ends_within_is_told(caplog):
    with pytest.raises(ValueError, match="10:20 begins after the run's end, step 9"):
        still_to_come(range(10, 21), 0, last=9)
    assert still_to_come(range(10, 21), 0, last=15) == range(10, 16)
    assert "only 10 to 15 come" in caplog.text
    assert not still_to_come(range(0), 5, last=9)


def test_a_trace_is_written_if_the_run_ends_in_it(tmp_path):
    profile = Profile(tmp_path, range(3, 6))
    assert [step for step in range(10) if profile.begins(step)] == [3, 4, 5]
    profile.start()
    assert not profile.begins(4) and not profile.ends(4) and profile.ends(5)
    profile.close()
    profile.close()
    assert len(list(tmp_path.rglob("*.xplane.pb"))) == 1


def test_a_trace_of_a_run_in_a_bucket_is_uploaded(bucket, bucket_server):
    profile = Profile(as_path(f"gs://{bucket}/profile"), range(1, 2))
    profile.start()
    profile.stop()
    names = bucket_server.names(f"{bucket}/profile/")
    assert [name for name in names if name.endswith(".xplane.pb")]
