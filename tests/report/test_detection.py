"""Detection in the report: AP over sizes, differences and what is refused."""

import numpy as np
import pytest
from helpers.evaluated import results_about
from matplotlib import image as png
from matplotlib.colors import to_hex

from ser_jax.evaluate.detection.metrics import FIGURES
from ser_jax.evaluate.pictures.figures import COLORS
from ser_jax.evaluate.task import Task
from ser_jax.evaluate.tasks import TASKS
from ser_jax.report import sections
from ser_jax.report.page import Figure, Note, Table
from ser_jax.report.pictures.detection import detection_picture
from ser_jax.report.results import Column, read_columns
from ser_jax.storage import files
from ser_jax.storage.metrics import MetricWriter
from ser_jax.storage.runs import read_runs

TASK = Task(
    name="detection",
    section="Detection",
    caption="Boxes.",
    measure=lambda *_: {},
    better=dict.fromkeys(FIGURES, "higher"),
    in_detail=("seeds",),
)


def results(ap, std, *heads, **more):
    figures = {name: ap for name in FIGURES} | {"APs": None}
    spread = {f"{name}_std": None if x is None else std for name, x in figures.items()}
    seeds = {str(i): dict.fromkeys(FIGURES, x) for i, x in enumerate(heads)}
    return figures | spread | {"seeds": seeds} | more


def pieces(tmp_path, monkeypatch, **found):
    monkeypatch.setitem(TASKS, "detection", TASK)
    columns = [
        Column(name, None, None, {"tasks": {"detection": of} if of else {}})
        for name, of in found.items()
    ]
    tasks = {"detection": TASK}
    return list(sections.results("Detection", tasks, columns, tmp_path))


def test_ap_over_sizes(tmp_path, figures):
    """Red if a bar, its spread or its heads are another run's; gaps keep colours."""
    detection_picture(
        tmp_path / "d.png",
        {
            "base": results(0.25, 0.0625, 0.1875, 0.3125),
            "none": {},
            "ser": results(0.5, None, 0.5) | {"APs": 0.375},
        },
    )
    (ax,) = figures[0].axes
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert len(labels) == 6 and labels[3].startswith("small")
    base, ser = (c for c in ax.containers if c.get_label() in ("base", "ser"))
    small = [np.nan if label == 3 else 1 for label in range(6)]
    heights = [bar.get_height() for bar in base]
    np.testing.assert_allclose(heights, 0.25 * np.array(small))
    assert [bar.get_height() for bar in ser] == [0.5] * 3 + [0.375] + [0.5] * 2
    assert to_hex(ser[0].get_facecolor()) == COLORS[2]
    assert base[1].get_x() < 1 < ser[1].get_x() + ser[1].get_width()
    (lines,) = base.errorbar.lines[2]
    np.testing.assert_allclose(lines.get_segments()[0][:, 1], [0.1875, 0.3125])
    dots = [c.get_offsets()[0, 1] for c in ax.collections if len(c.get_offsets()) == 6]
    assert dots == [0.1875, 0.3125, 0.5]


def test_differences_and_their_spread(tmp_path, monkeypatch):
    """By hand; the spread of a difference is that of both."""
    shown = pieces(
        tmp_path,
        monkeypatch,
        base=results(0.25, 0.03, 0.22, 0.28),
        none={},
        ser=results(0.5, 0.04, 0.5),
        one=results(0.125, None, 0.125),
    )
    picture, table, *_ = shown
    assert isinstance(picture, Figure)
    assert table.columns == ["base", "ser", "one", "ser − base", "one − base"]
    assert [row.name for row in table.rows] == list(FIGURES)
    ap = table.rows[0]
    assert ap.cells == [
        *("0.2500 ± 0.0300", "0.5000 ± 0.0400", "0.1250"),
        *("+0.2500 ± 0.0500", "-0.1250"),
    ]
    assert ap.best == {1}
    small = table.rows[3]
    assert small.cells == ["-"] * 5 and not small.best
    assert not any(isinstance(piece, Note) for piece in shown)
    assert any(isinstance(p, Table) and "Boxes." in p.caption for p in shown[2:])


def test_one_run_has_no_differences(tmp_path, monkeypatch):
    shown = pieces(tmp_path, monkeypatch, base=results(0.25, 0.03, 0.25), none={})
    assert isinstance(shown[0], Figure)
    assert not any("Differences" in getattr(p, "caption", "") for p in shown[1:])


def test_heads_that_were_not_trained_alike_are_noted(tmp_path, monkeypatch):
    def notes(**settings):
        found = {k: results(0.5, None, setting=x) for k, x in settings.items()}
        shown = pieces(tmp_path, monkeypatch, **found)
        return [piece.text for piece in shown if isinstance(piece, Note)]

    assert not notes(a={"size": 512}, b={"size": 512})
    (note,) = notes(a={"size": 512}, b={"size": 256})
    assert "not all trained or measured alike" in note


def test_results_of_nothing_are_drawn(tmp_path, figures):
    """Red if an evaluation split without objects ends the report."""
    none = results(None, None, None)
    assert detection_picture(tmp_path / "d.png", {"base": none}).exists()


@pytest.fixture
def evaluated(tmp_path):
    """A run, and what writes its results of detection."""
    writer = MetricWriter(tmp_path / "run")
    writer.write_scalars(1, {"loss": 1.0})
    writer.close()
    folder = tmp_path / "run" / "eval" / "1-online"
    folder.mkdir(parents=True)

    def write(detection):
        about = results_about() | {"tasks": {"detection": detection}}
        files.write_json(folder / "results.json", about)
        png.imsave(folder / "boxes.png", np.zeros((4, 4)))
        return read_runs([str(tmp_path / "run")])

    return write


def test_its_pictures_are_on_the_page(evaluated):
    runs = evaluated(results(0.5, None, pictures={"detections": "boxes.png"}))
    columns = read_columns(runs)
    shown = list(sections.of_run(runs[0], columns))
    (figure,) = (piece for piece in shown if isinstance(piece, Figure))
    assert "What the detector finds" in figure.alt


@pytest.mark.parametrize(
    "damage, path",
    [
        ({"AP": "high"}, "detection/AP"),
        ({"AP_std": []}, "detection/AP_std"),
        ({"seeds": [1]}, "detection/seeds"),
        ({"seeds": {"0": 1}}, "detection/seeds/0"),
        ({"seeds": {"0": {"APs": True}}}, "detection/seeds/0/APs"),
        ({"pictures": "boxes.png"}, "detection/pictures"),
        ({"pictures": {"detections": "../../../x.png"}}, "lies outside"),
    ],
)
def test_damaged_results_are_refused(evaluated, damage, path):
    runs = evaluated(results(0.5, None) | damage)
    with pytest.raises(ValueError, match=rf"results.json holds.*{path}"):
        read_columns(runs)
