"""A task is one file and one line of the registry: proof by making one."""

import importlib
import pathlib

import pytest
from absl import flags
from helpers.evaluated import make_run, measure

import ser_jax
from ser_jax.evaluate.__main__ import define_option_flags, given_options
from ser_jax.evaluate.open import open_run
from ser_jax.evaluate.results import choose
from ser_jax.evaluate.tasks import TASKS
from ser_jax.report.__main__ import report
from ser_jax.storage.metrics import MetricWriter

TOY = '''
"""How bright the images are, for a lamp of so many watts."""

import dataclasses

from ser_jax.evaluate.options import option
from ser_jax.evaluate.task import Task, no_images


@dataclasses.dataclass(frozen=True)
class ToyOptions:
    toy_watts: float = option(1.0, "Power of the lamp.", lower_bound=0)


def _measure(subject, options):
    light = options.toy_watts * float(subject.pictures.mean())
    by_image = {f"image_{i}": float(x.mean()) for i, x in enumerate(subject.pictures)}
    return {"toy_light": light, "rows": by_image}


TASK = Task(
    name="toy",
    section="Toys",
    caption="Light of the toy lamp.",
    measure=_measure,
    obstacle=no_images,
    options=ToyOptions,
    better={"toy_light": "higher"},
    in_detail=("rows",),
    headline=("toy light", "toy_light"),
)
'''


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The file, and the line."""
    (tmp_path / "toy_task.py").write_text(TOY)
    monkeypatch.syspath_prepend(str(tmp_path))
    task = importlib.import_module("toy_task").TASK
    monkeypatch.setitem(TASKS, task.name, task)


def flag_values(*args):
    values = flags.FlagValues()
    define_option_flags(values)
    values(["evaluate", *args])
    return values


@pytest.mark.slow
def test_a_task_is_one_file_and_one_line(toy, tmp_path):
    """Red if its flag, its result or its place in the report takes another file."""
    values = flag_values("--toy_watts=2.5")
    assert values["toy_watts"].help == "Power of the lamp."
    options = given_options(values)
    runs = []
    for name, given in (("dim", {}), ("bright", options)):
        workdir = make_run(tmp_path / name, "barlow_twins", "none")
        writer = MetricWriter(workdir)
        writer.write_scalars(1, {"loss": 1.0})
        writer.close()
        run = open_run(workdir, num_pictures=3)
        assert "toy" in choose(run, ["all"], {})[0]
        runs.append(run)
        results, text = measure(run, run.folder, "toy", **given)
        assert "toy/toy_light" in text and "image_0" not in text
        watts = given.get("toy_watts", 1.0)
        light = watts * float(run.pictures.mean())
        assert results["tasks"]["toy"]["toy_light"] == pytest.approx(light)
    assert results["measured"]["toy"]["options"] == {"toy_watts": 2.5}
    with pytest.raises(flags.IllegalFlagValueError):
        flag_values("--toy_watts=-1")

    path = tmp_path / "page.html"
    report([str(run.workdir) for run in runs], str(path))
    page = path.read_text()
    assert ">Toys<" in page and "Light of the toy lamp." in page
    brightest = f"{results['tasks']['toy']['toy_light']:.5g}"
    best = f'class="best">{brightest}<'
    assert page.count(best) == 2  # among the main results, and in its table
    assert "toy in detail" in page and "rows/image_2" in page


def test_no_other_file_knows_it():
    package = pathlib.Path(ser_jax.__file__).parent
    for path in [*package.rglob("*.py"), *package.rglob("*.html")]:
        assert "toy" not in path.read_text().lower(), path
