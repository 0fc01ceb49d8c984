"""Test set-up: eight CPU devices, strict ranks, parsed flags, reference data.

How tests are sorted: a test is `fast` unless its file or itself is marked `slow` (it
compiles something large or many things, or starts programs). Nothing else is marked by
hand, so a new test is fast until it is not, and then `pytest -m fast` says so: there a
test that takes more than `FAST_LIMIT_S` of the processor's time fails. The other runs
time nothing.

    pytest -m fast      between edits
    pytest              before a change is handed in, and in CI
    pytest --release    before a release: where the others take a sample, everything
"""

import atexit
import gc
import importlib.metadata
import json
import os
import pathlib
import shutil
import tempfile
import zlib

if importlib.metadata.version("jaxlib").startswith("0.10."):
    # XLA's newer code generator for CPUs takes three times as long to compile, and
    # code in 32 parts a fifth longer than in one. Later versions end at a flag that
    # they do not know.
    os.environ["XLA_FLAGS"] = " ".join(
        [
            os.environ.get("XLA_FLAGS", ""),
            "--xla_cpu_use_fusion_emitters=false",
            "--xla_cpu_parallel_codegen_split_count=1",
        ]
    )
# Programs that tests start have these too. Tests compile far longer than they run.
os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "JAX_NUM_CPU_DEVICES": "8",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "OPENBLAS_NUM_THREADS": "1",  # NumPy's threads wait for each other by spinning
}
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # Workers and the programs that tests start share what was compiled once.
    cache = tempfile.mkdtemp(prefix="ser_jax_tests_")
    atexit.register(shutil.rmtree, cache, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = cache
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import signal

import jax
import numpy as np
import pytest
from absl import flags

for _number, _handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):  # `nohup` and a shell's background have them ignored; runs leave those so
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, _handler)

jax.config.update("jax_numpy_rank_promotion", "raise")
# grain's worker processes read absl flags.
flags.FLAGS.mark_as_parsed()
# Tracing makes objects by the million, nearly all of which live: looking for garbage
# among them takes a third of its time.
gc.freeze()
gc.set_threshold(50_000, 50, 100)

FAST_LIMIT_S = 5.0
FULL_GOLDEN_DIR = os.environ.get("SER_GOLDEN_DIR")
GOLDEN_DIR = pathlib.Path(FULL_GOLDEN_DIR or pathlib.Path(__file__).parent / "golden")


def pytest_addoption(parser):
    parser.addoption(
        "--release",
        action="store_true",
        help="every pair of methods, preset and number of devices, not a sample",
    )


@pytest.fixture
def release(pytestconfig):
    """Whether everything is wanted, not a sample."""
    return pytestconfig.getoption("release")


def pytest_collection_modifyitems(items):
    for item in items:
        if not any(item.iter_markers("slow")):
            item.add_marker(pytest.mark.fast)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Fails a test of `pytest -m fast` that is not; children count."""
    before = sum(os.times()[:4])
    result = yield
    used = sum(os.times()[:4]) - before
    if item.config.getoption("markexpr") == "fast" and used > FAST_LIMIT_S:
        pytest.fail(f"{used:.1f} s of the processor's time: mark the test `slow`")
    return result


class Golden:
    """One file of reference data: arrays by name, and the settings beside them."""

    def __init__(self, name: str):
        path = GOLDEN_DIR / f"{name}.npz"
        if not path.exists():
            if FULL_GOLDEN_DIR:
                pytest.fail(f"{path} is absent: SER_GOLDEN_DIR must hold the full set")
            pytest.skip(f"{path} is absent; point SER_GOLDEN_DIR at the full set")
        with np.load(path) as arrays:
            self.arrays = dict(arrays)
        self.settings = json.loads(path.with_suffix(".json").read_text())

    def __getitem__(self, key: str) -> np.ndarray:
        return self.arrays[key]

    def __contains__(self, key: str) -> bool:
        return key in self.arrays

    def group(self, prefix: str) -> dict[str, np.ndarray]:
        """Arrays whose name starts with `prefix`, the prefix cut off."""
        return {
            k[len(prefix) :]: v for k, v in self.arrays.items() if k.startswith(prefix)
        }


@pytest.fixture
def golden():
    """Loads reference data by file name.

    What is absent fails the test if `SER_GOLDEN_DIR` is set, else skips it.
    """
    return Golden


@pytest.fixture
def rng():
    return jax.random.key(0)


@pytest.fixture
def figures(monkeypatch):
    """The Matplotlib figures that are saved."""
    from matplotlib.figure import Figure  # Few tests need it.

    saved, save = [], Figure.savefig
    monkeypatch.setattr(
        Figure,
        "savefig",
        lambda figure, *args, **look: (
            saved.append(figure),
            save(figure, *args, **look),
        ),
    )
    return saved


@pytest.fixture(scope="session")
def bucket_server():
    """Buckets served here; the clients of all schemes are told of it."""
    from fsspec.config import conf  # few tests need these
    from helpers.bucket import serving

    conf.setdefault("gcs", {})["token"] = "anon"
    with serving(page_size=5) as server:
        os.environ |= {
            "STORAGE_EMULATOR_HOST": server.url,
            "TENSORSTORE_GCS_HTTP_URL": server.url,
            "CLOUD_STORAGE_EMULATOR_ENDPOINT": server.url,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "x",
            "FSSPEC_GCS_TOKEN": "anon",  # as above, for programs that are started
        }
        yield server


@pytest.fixture
def bucket(bucket_server, request):
    """Name of an empty bucket."""
    name = f"bucket-{zlib.crc32(request.node.nodeid.encode())}"
    for key in bucket_server.names(f"{name}/"):
        del bucket_server.objects[key]
    return name
