"""The HTML report: every run and number, nothing from outside, and what is refused."""

import html.parser
import json
import pathlib
import re

import numpy as np
import pytest
from helpers.evaluated import results_about
from helpers.programs import run_program
from matplotlib import image as png

from ser_jax.evaluate.pictures import figures
from ser_jax.report import page as report_page
from ser_jax.report import results as report_results
from ser_jax.report.write import report
from ser_jax.storage import files, summary
from ser_jax.storage.metrics import MetricWriter
from ser_jax.storage.runs import read_runs

RUN_CONFIG = {
    "seed": 0,
    "objective": {"name": "moco_v3"},
    "regularizer": {"name": "ser", "layer": 2},
    "dataset": {"name": "<digits> & co"},
}


def write_run(path, config=RUN_CONFIG, steps=3):
    writer = MetricWriter(path)
    for step in range(1, 1 + steps):
        writer.write_scalars(step, {"loss": 1 / step, "knn_accuracy": step / 8})
    writer.close()
    ended = {"steps": 3, "accounting": {"flops_per_step": 123456789}}
    summary.write_summary(path, ended, config)
    return path


def tasks(top1):
    by_transform = {"rotation/90": {"corrected": top1 / 3, "error": 1 - top1}}
    return {
        "knn": {"top1_k20": top1},
        "linear": {"top1": top1 + 0.03125, "feature": "cls1"},
        "equivariance": {"layer_1": by_transform, "layer_2": by_transform},
        "corruptions": {
            "unnormalized_mce": 1 - top1,
            "alexnet_normalized_mce": None,
            "errors": {"fog": [1 - top1, 0.90625]},
        },
        "pictures": {"attention": "attention.png"},
    }


def write_results(path, tasks, step=3, encoder="online"):
    folder = path / "eval" / f"{step}-{encoder}"
    folder.mkdir(parents=True)
    about = {"step": step, "encoder": encoder, "date": "2026-11-22"}
    files.write_json(folder / "results.json", about | {"tasks": tasks})
    png.imsave(folder / "attention.png", np.zeros((4, 4)))
    return folder


@pytest.fixture
def runs(tmp_path):
    for name, top1 in (("base", 0.5), ("ser", 0.75)):
        write_results(write_run(tmp_path / name), tasks(top1))
    return [str(tmp_path / name) for name in ("base", "ser")]


class Page(html.parser.HTMLParser):
    """The tables' rows by caption, their marked cells, and what the page links to."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.best, self.links, self.text = {}, [], [], []
        self.tags, self.open, self.rows = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        self.links += [attrs[name] for name in ("src", "href") if name in attrs]
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "caption":
            self.caption, self.rows = "", []
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        self.is_best = attrs.get("class") == "best"

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "table":
            self.tables[self.caption] = self.rows

    def handle_data(self, data):
        self.text.append(data)
        if self.open and self.open[-1] == "caption":
            self.caption += data
        elif self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data
            if self.is_best:
                self.best.append(data)

    def table(self, start):
        (rows,) = (t for caption, t in self.tables.items() if caption.startswith(start))
        return rows


def read(runs, tmp_path):
    path = tmp_path / "page.html"
    assert report(runs, str(path)) == path
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert not page.open, "tags are closed"
    return text, page


def test_every_run_and_number(runs, tmp_path):
    """Red if a run, task or number is lost, in another column, or the worse is best."""
    _, page = read(runs, tmp_path)
    main = page.table("Main results")
    assert main[0] == ["", "base", "ser"]
    for row in (
        ["k-NN top-1, k = 20", "0.5", "0.75"],
        ["linear top-1", "0.53125", "0.78125"],
        ["fine-tuned top-1", "-", "-"],
        ["token cosine under rotation, last layer", "0.16667", "0.25"],
        ["k-NN at the end of training", "0.375", "0.375"],
    ):
        assert row in main
    assert ["feature", "cls1", "cls1"] in page.table("Linear head")
    corruptions = page.table("The linear head on corrupted")
    assert ["unnormalized_mce", "0.5", "0.25"] in corruptions
    assert ["alexnet_normalized_mce", "-", "-"] in corruptions
    in_detail = page.table("corruptions in detail. The linear head")
    assert ["errors/fog", "0.5, 0.90625", "0.25, 0.90625"] in in_detail
    in_detail = page.table("equivariance in detail. Tokens of")
    assert ["layer_2/rotation/90/error", "0.5", "0.25"] in in_detail
    assert sum(tag == "details" for tag, _ in page.tags) == 2 + 2 + 2
    facts = page.table("What was trained")
    assert ["evaluated step", "3", "3"] in facts
    assert ["date", "2026-11-22", "2026-11-22"] in facts
    assert ["flops_per_step", "123,456,789", "123,456,789"] in page.table("What train")
    assert ["regularizer.layer", "2"] in page.table("All settings")
    assert page.best.count("0.75") == 2 and "0.25" in page.best
    assert "0.5" not in page.best and "0.375" not in page.best


@pytest.mark.slow
def test_self_contained_and_accessible(runs, tmp_path):
    """Red if the page asks for anything, runs anything, or a picture has no words."""
    text, page = read(runs, tmp_path)
    pictures = [attrs for tag, attrs in page.tags if tag == "img"]
    assert len(pictures) == 4 + 2  # curves, depth, trade-off, corruptions; each run
    for link in page.links:
        assert link.startswith(("data:image/png;base64,iVBORw0KGgo", "#part-"))
    anchors = {attrs.get("id") for _, attrs in page.tags}
    assert {link[1:] for link in page.links if link[0] == "#"} <= anchors
    assert all(attrs["alt"] for attrs in pictures)
    assert len({attrs["alt"] for attrs in pictures}) == len(pictures)
    assert '<html lang="en">' in text
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe"}
    assert not re.search(r"https?://|@import|url\(", text)
    assert not list(tmp_path.glob("*.tmp"))


def test_text_is_escaped(tmp_path):
    """Red if a name or a result is taken for HTML."""
    path = write_run(tmp_path / '"<b>bold')
    found = tasks(0.5) | {"knn": {"<i>note": "a < b & c"}}
    folder = write_results(path, found)
    (folder / "attention.png").rename(folder / '"><script>.png')
    found["pictures"] = {"attention": '"><script>.png'}
    files.write_json(folder / "results.json", {"tasks": found})
    text, page = read([str(path)], tmp_path)
    assert not {tag for tag, _ in page.tags} & {"b", "i", "script"}
    assert ["<i>note", "a < b & c"] in page.table("k-NN on")
    assert ["data set", "<digits> & co"] in page.table("What was trained")
    assert 'Report on "<b>bold' in page.text
    alts = [attrs["alt"] for tag, attrs in page.tags if tag == "img"]
    assert 'What the class token attends to: "<b>bold' in alts
    assert "<digits>" not in text


def test_what_is_missing_is_named(tmp_path):
    """Red if it is passed over, or the command names another run."""
    bare = write_run(tmp_path / "my run", steps=2)
    _, page = read([str(bare)], tmp_path)
    text = "".join(page.text)
    path = f"--checkpoint='{bare}'"
    assert f"python -m ser_jax.evaluate {path} --tasks=all" in text
    assert "my run, not evaluated: knn, linear, logreg, health," in text
    assert "equimod" not in text
    assert "my run has not ended: its curves end at step 2." in text

    done = write_run(tmp_path / "done")
    folder = write_results(done, tasks(0.5))
    (folder / "attention.png").unlink()
    results = json.loads((folder / "results.json").read_text())
    results["left_out"] = {"shifted": "no set is prepared."}
    files.write_json(folder / "results.json", results)
    text = "".join(read([str(done)], tmp_path)[1].text)
    assert "attention.png is not there. Run python -m ser_jax.evaluate" in text
    assert "done, shifted left out: no set is prepared." in text
    assert "done, not evaluated: logreg, health," in text


def test_the_newest_step_and_both_encoders(tmp_path):
    """Red if an older step is read (9 sorts after 10), or an encoder is dropped."""
    path = write_run(tmp_path / "run")
    write_results(path, tasks(0.125), step=9)
    write_results(path, tasks(0.25), step=10, encoder="target")
    write_results(path, tasks(0.375), step=10)
    (path / "eval" / "old").mkdir()
    (path / "eval" / "old" / "results.json").write_text("not read")
    columns = report_results.read_columns(read_runs([str(path)]))
    names = {column.name: column.tasks["knn"]["top1_k20"] for column in columns}
    assert names == {"run, online": 0.375, "run, target": 0.25}


def test_results_on_other_data_are_kept_apart_and_marked(tmp_path):
    """Red if they take a column of the tables, or are not shown at all."""
    names = ("base", "ser")
    for name, content in zip(names, ("aaaaaaaaaa", "bbbbbbbbbb"), strict=True):
        write_run(tmp_path / name)
        digest = {"test": f"sha256:{content}"}
        add_results(tmp_path / name / "eval" / "3-online", 0.5, content=digest)
    folder = tmp_path / "ser" / "eval"
    add_results(folder / "3-online-digits-train-0a", 0.125, split="train[:64]")
    add_results(folder / "3-online" / "other_data" / "2026", 0.0625)
    text, page = read([str(tmp_path / name) for name in names], tmp_path)
    main = page.table("Main results")
    assert main[0] == ["", *names] and "0.125" not in str(main)
    assert "results on different data" in text
    facts = page.table("What was trained and evaluated")
    said = [row for row in facts if row[0] == "evaluation data"]
    assert "sha256:aaaaaaaa" in said[0][1] and "sha256:bbbbbbbb" in said[0][2]
    for place, top1, data in (
        ("3-online-digits-train-0a", "0.125", "train[:64], 9 images"),
        ("3-online/other_data/2026", "0.0625", "test, 9 images"),
    ):
        title = f"ser, results on other data: eval/{place}. "
        assert page.table(title)[1] == ["knn/top1_k20", top1] and data in text


def add_results(folder, top1, **data):
    folder.mkdir(parents=True)
    results = results_about(**data) | {"tasks": {"knn": {"top1_k20": top1}}}
    files.write_json(folder / "results.json", results)


@pytest.mark.parametrize(
    "path, values, best",
    [
        ("knn/top1_k20", [0.1, 0.3, 0.3], {1, 2}),
        ("corruptions/clean_top1", [0.1, None, 0.05], {0}),
        ("corruptions/unnormalized_mce", [0.1, 0.3, float("nan")], {0}),
        ("lie_derivative/layer_1/scale", [2, 1, 3], {1}),
        ("equivariance/layer_1/flip/h/top1_chance", [0.1, 0.3], set()),
        ("knn/top1_k20", [0.3, 0.3], set()),
        ("linear/base_learning_rate", [0.1, 0.3], set()),
        ("linear/top1", [None, "x", 0.3], set()),
    ],
)
def test_best(path, values, best):
    assert report_results.value_row("", path, values).best == best


@pytest.mark.slow
def test_where_it_goes(runs, tmp_path, monkeypatch):
    """One run: its workdir. Several: the current directory."""
    monkeypatch.chdir(tmp_path)
    assert str(report(runs[:1])) == f"{runs[0]}/report.html"
    assert str(report(runs)) == f"{tmp_path}/report.html"
    made = tmp_path / "new" / "page.html"
    report(runs, made)
    assert made.read_text().endswith("</html>\n")


@pytest.mark.parametrize(
    "content, message",
    [
        *(
            ("{", "not JSON"),
            ("", "not JSON"),
            ("null", "not an object"),
            ("[]", "not"),
        ),
        *(("{}", "tasks are None"), ('{"tasks": 1}', "tasks are 1")),
        ('{"tasks": {}, "left_out": []}', "left_out are "),
        ('{"tasks": {"knn": null}}', "knn is None"),
        ('{"tasks": {"equivariance": {"layer_1": 3}}}', "equivariance/layer_1 "),
        ('{"tasks": {"seis": {"layer_1": {"flip": []}}}}', "seis/layer_1/flip "),
        ('{"tasks": {"seis": {"layer_x": {}}}}', "seis/layer_x "),
        ('{"tasks": {"linear": {"top1": "high"}}}', "linear/top1 "),
        ('{"tasks": {"corruptions": {"errors": {"fog": []}}}}', "errors/fog "),
        ('{"tasks": {"corruptions": {"errors": [1]}}}', "corruptions/errors "),
        ('{"tasks": {"pictures": {"attention": null}}}', "pictures/attention "),
        ('{"tasks": {"pictures": {"attention": "../../x.png"}}}', "outside"),
        ('{"tasks": {"pictures": {"attention": "/etc/x.png"}}}', "outside"),
        ('{"tasks": {"pictures": {"attention": "linked.png"}}}', "outside"),
    ],
)
def test_results_that_cannot_be_read(runs, tmp_path, content, message):
    """Red if the message is lost, or a page is left behind."""
    folder = tmp_path / "ser" / "eval" / "3-online"
    (folder / "results.json").write_text(content)
    (folder / "linked.png").symlink_to(tmp_path / "page.html")
    with pytest.raises(ValueError, match=f"ser/eval/3-online/results.json.*{message}"):
        report(runs, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("content", [b"<svg>", b"\x89PNG\r\n\x1a\n"])
def test_a_picture_that_is_none(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match="a.png is no PNG file"):
        report_page.figure(tmp_path / "a.png", "", "")


def test_a_picture_is_as_large_as_its_inches(tmp_path):
    """Red if the letters of two pictures on a page differ in size, or it is turned."""
    figure = figures.Figure(figsize=(2, 1))
    path = figures.save(figure, tmp_path / "a.png")
    picture = report_page.figure(path, "", "")
    assert (picture.width, picture.height) == (192, 96)  # 96 CSS pixels to the inch


def test_only_the_template_knows_html():
    """Red if a section puts tags together: they would not be escaped."""
    folder = pathlib.Path(report_page.__file__).parent
    for path in folder.rglob("*.py"):
        assert not re.search(
            r"</|<(p|a|code|t[dhr]|table|div|h\d|img)\b|Markup", path.read_text()
        ), path
    assert "|safe" not in (folder / "page.html").read_text().replace(" ", "")


@pytest.mark.slow
def test_command_line(runs, tmp_path):
    """Red if runs are not taken as arguments, or a mistake ends in a traceback."""

    done = run_program("ser_jax.report", *runs, "--html=out.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"Written to {tmp_path}/out.html.\n"
    assert (tmp_path / "out.html").exists()
    wrong = run_program("ser_jax.report", "nothing", "--htlm=x", cwd=tmp_path)
    assert wrong.returncode == 1 and "Traceback" not in wrong.stderr
    assert "Unknown command line flag 'htlm'" in wrong.stderr


@pytest.mark.parametrize(
    "names, message",
    [
        ([], "expected the workdir of a run. For example: python -m ser_jax.report"),
        (["base", "base"], "base is given twice"),
        (["base", "nothing"], "nothing is no run: it does not exist"),
        (["base/eval"], "base/eval is no run: it has no metrics.jsonl"),
    ],
)
def test_refusals(runs, tmp_path, names, message):
    """Red if the message is lost, or a page is written before it."""
    with pytest.raises(ValueError, match=message):
        report([f"{tmp_path}/{name}" for name in names], f"{tmp_path}/a.html")
    assert not (tmp_path / "a.html").exists()


def test_results_alone_are_a_column_without_training(runs, tmp_path):
    """Of weights that come without their run."""
    folder = tmp_path / "weights"
    folder.mkdir()
    about = {"weights": "/some/file.pth", "layout": "timm", "date": "2026-11-28"}
    files.write_json(folder / "results.json", about | {"tasks": tasks(0.875)})
    page = report([*runs, folder], tmp_path / "page.html").read_text()
    text = re.sub(r"<[^>]*>", " ", page)
    assert "weights" in text and "0.875" in text
    assert "weights has not ended" not in text
    assert f"--results={folder}" in text or "not evaluated" not in text
    files.write_json(
        pathlib.Path(runs[0], "results.json"), about | {"tasks": tasks(0.875)}
    )
    assert read_runs(runs)[0].was_trained  # though it was evaluated into its workdir
    alone = report([folder], tmp_path / "alone.html").read_text()
    assert "Training curves" not in alone and "no metric was logged" not in alone
    with pytest.raises(ValueError, match="two or more, got 0"):
        report([folder], tmp_path / "alone.html", tmp_path / "markdown")
