"""The task that writes features down: for a folder of pictures, what people ask for."""

import dataclasses
import importlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from ser_jax.data.decode import decode_image
from ser_jax.data.progress import ProgressLine
from ser_jax.data.sources import Source
from ser_jax.evaluate.options import option
from ser_jax.evaluate.pictures import figures
from ser_jax.evaluate.subject import Features, Subject
from ser_jax.evaluate.task import Task, no_images
from ser_jax.storage.files import PathLike, whole_file

_NUM_QUERIES, _NUM_NEIGHBOURS = 8, 6  # of the picture
_NAME_CHARS = 22


@dataclasses.dataclass(frozen=True)
class EmbedOptions:
    """Of the task.

    Attributes:
        embed_feature: What is written: a feature of `read_tokens`.
        embed_format: Kind of file.
    """

    embed_feature: str = option(
        "cls1", "Feature that the task embed writes: cls1, cls4, patch_avg, ..."
    )
    embed_format: str = option(
        "npz", "Kind of file that the task embed writes.", choices=("npz", "parquet")
    )


def _measure(subject: Subject, options: EmbedOptions) -> dict[str, Any]:
    """A file for each split, and a picture of nearest neighbours.

    Each row is a picture: its name (of its file, if the set keeps it, else its position
    in the split), its label (-1 for none) and its feature.
    """
    folder = subject.results_folder / "embed"
    results: dict[str, Any] = {}
    found: dict[str, tuple[Source, np.ndarray]] = {}
    for split, source in _splits(subject).items():
        features = subject.features(split)
        rows = _chosen(features, options.embed_feature)
        found[split] = source, rows
        if jax.process_index() == 0:
            path = folder / f"{split}.{options.embed_format}"
            _write(path, source, rows, features.labels)
            results[split] = {
                "file": f"embed/{path.name}",
                "rows": len(rows),
                "width": rows.shape[1],
            }
    if jax.process_index():  # the first one writes
        return results
    (bank, *_), (asked, *_) = found.items(), reversed(found.items())
    path = neighbours_picture(folder / "neighbours.png", subject, asked[1], bank[1])
    return results | {"pictures": {"neighbours": f"embed/{path.name}"}}


def _splits(subject: Subject) -> dict[str, Source]:
    """The splits that there are, by the name that `Subject.features` knows."""
    if subject.data.images is subject.data.train:  # there is no other
        return {"train": subject.data.train}
    return {"train": subject.data.train, "eval": subject.data.held_out}


def _chosen(features: Features, name: str) -> np.ndarray:
    if name not in features.by_name:
        raise ValueError(
            f"no feature is called {name!r}; this encoder has "
            f"{', '.join(features.by_name)}: --embed_feature."
        )
    return features.by_name[name]


def file_names(source: Source) -> Iterator[str]:
    """Names of the pictures of a source, in order.

    Args:
        source: The pictures.

    Yields:
        The name of the file that a picture was prepared from, if its record has it,
        else its position in the split.
    """
    line = ProgressLine(len(source))
    for index in range(len(source)):
        record = source.records[index]
        name = record.get("file_name", str(index))
        line.update(index + 1, lambda: f"names of {source.name}, {source.split}")
        yield name.decode() if isinstance(name, bytes) else str(name)


def _write(
    path: epath.Path, source: Source, rows: np.ndarray, labels: np.ndarray
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    names = list(file_names(source))
    classes = list(source.class_names or ())
    with whole_file(path) as stream:
        if path.suffix == ".npz":
            np.savez(
                stream,
                name=np.array(names),
                label=labels,
                feature=rows,
                class_names=np.array(classes, str),
            )
            return
        arrow, parquet = _pyarrow()
        columns = {
            "name": names,
            "label": labels,
            "feature": arrow.FixedSizeListArray.from_arrays(
                np.ascontiguousarray(rows).ravel(), rows.shape[1]
            ),
        }
        if classes:
            columns["class"] = [classes[i] if i >= 0 else None for i in labels]
        parquet.write_table(arrow.table(columns), stream)


def _pyarrow() -> tuple[Any, Any]:
    arrow, parquet = map(importlib.import_module, ("pyarrow", "pyarrow.parquet"))
    return arrow, parquet


def neighbours(
    queries: np.ndarray, bank: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The rows of a bank that are nearest to each query.

    Args:
        queries: `[q, d]`.
        bank: `[n, d]`.
        count: How many; all, if there are fewer.

    Returns:
        Positions in the bank, `[q, count]`, and cosines, `[q, count]`, best first.
    """

    def unit(x: np.ndarray) -> np.ndarray:
        return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)

    cosines = unit(queries) @ unit(bank).T
    best = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    return best, np.take_along_axis(cosines, best, axis=1)


def neighbours_picture(
    path: PathLike,
    subject: Subject,
    asked: tuple[Source, np.ndarray],
    bank: tuple[Source, np.ndarray],
) -> epath.Path:
    """Path of a PNG: pictures, each beside those whose features are nearest.

    Args:
        path: The file; replaced as a whole.
        subject: How pictures are cropped.
        asked: Pictures that are looked up, evenly spread, and their features.
        bank: Those among which they are; a picture is not its own neighbour.

    Returns:
        The path.
    """
    (source, rows), (others, its_rows) = asked, bank
    chosen = np.unique(np.linspace(0, len(rows) - 1, _NUM_QUERIES).astype(int))
    is_same = others is source
    best, cosines = neighbours(rows[chosen], its_rows, _NUM_NEIGHBOURS + is_same)
    figure, axes = figures.panels(len(chosen), 1 + _NUM_NEIGHBOURS)
    for line, index, nearest, similar in zip(axes, chosen, best, cosines, strict=True):
        _show(line[0], subject, source, int(index), "")
        pairs = zip(nearest.tolist(), similar.tolist(), strict=True)
        kept = (pair for pair in pairs if not (is_same and pair[0] == index))
        for ax, (place, cosine) in zip(line[1:], kept, strict=False):
            _show(ax, subject, others, place, f"{cosine:.2f}")
    return figures.save(figure, path)


def _show(ax: Any, subject: Subject, source: Source, index: int, text: str) -> None:
    record = source[index]
    ax.imshow(subject.transform.crop(decode_image(record["image"])))
    label, names = record["label"], source.class_names
    known: Sequence[str] = names or ()
    what = known[label] if 0 <= label < len(known) else "" if label < 0 else str(label)
    title = " ".join(itertools.chain([text] if text else [], [what[:_NAME_CHARS]]))
    ax.set_title(title, fontsize=6)


def _obstacle(subject: Subject, options: EmbedOptions) -> str | None:
    if options.embed_format == "parquet":
        try:
            _pyarrow()
        except ImportError as error:
            return f"parquet needs pyarrow ({error}): pip install pyarrow."
    return no_images(subject, options)


TASK = Task(
    name="embed",
    section=None,
    caption="Features of every picture, written down; nearest neighbours.",
    measure=_measure,
    obstacle=_obstacle,
    options=EmbedOptions,
    in_all=False,  # It writes files for other programs.
    optional=True,
)
