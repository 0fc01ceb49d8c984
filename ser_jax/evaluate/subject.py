"""What a task looks at: an encoder, its data, its features on disk."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import grain
import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from ser_jax.data.host_transforms import CentreCrop
from ser_jax.data.sources import Source
from ser_jax.evaluate.classify.classifier import Classify
from ser_jax.evaluate.classify.heads import Head, head_logits
from ser_jax.evaluate.data import EvalData
from ser_jax.evaluate.encoder import FrozenEncoder
from ser_jax.evaluate.features.cache import cached_features
from ser_jax.evaluate.features.extract import extract, make_embed
from ser_jax.evaluate.features.readings import TOKENS, read, read_tokens
from ser_jax.train.progress import Progress
from ser_jax.train.sharding import check_batch_size, make_mesh

_PART_BYTES = 2**28  # what an interrupted extraction may lose
_MOST_BYTES = 2**36  # of one split's features on disk


@dataclasses.dataclass(frozen=True)
class Features:
    """What was read off the images of a split.

    Attributes:
        by_name: Feature -> `[n, d]`, float32, mapped from disk; see `readings`.
        labels: Classes, `[n]`, int64.
    """

    by_name: Mapping[str, np.ndarray]
    labels: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """An encoder, what it is evaluated on, and where what is found is kept.

    Attributes:
        encoder: The encoder.
        data: What it is evaluated on.
        folder: Where features and heads are kept, and results and pictures go.
        out_folder: Where all of these go instead; None: nowhere else. What `folder` has
            is still used, and nothing is written there.
        scratch: Folder of this machine for features that are kept in a bucket; None: a
            temporary one.
        mesh: The mesh.
        batch_size: Images encoded at a time, over all devices; a multiple of their
            number.
        num_pictures: Images that are moved, corrupted here, and drawn; all, if there
            are fewer.
        num_threads: Threads that decode.
        num_workers: Processes that decode what is trained on; 0: threads of this one.
        seed: Of what is left to chance.

    Raises:
        ValueError: If the devices cannot share a batch evenly.
    """

    encoder: FrozenEncoder
    data: EvalData
    folder: epath.Path
    out_folder: epath.Path | None = None
    scratch: epath.Path | None = None
    mesh: Mesh = dataclasses.field(default_factory=make_mesh)
    batch_size: int = 256
    num_pictures: int = 256
    num_threads: int = 16
    num_workers: int = 0
    seed: int = 0

    def __post_init__(self):
        """Checks the batch size."""
        check_batch_size(self.batch_size, self.mesh)

    def about(self) -> dict[str, Any]:
        """What results are of, for their file."""
        about: dict[str, Any] = {"digest": self.encoder.digest, "seed": self.seed}
        if data := self.data.about():
            about["data"] = data
        if self.data.unlabelled() is None:
            about["num_train"] = len(self.data.train)
            about["num_eval"] = len(self.data.held_out)
        return about

    def one_grid(self) -> str | None:
        """Why it takes images of its own size alone; None if it takes others."""
        return None

    @property
    def results_folder(self) -> epath.Path:
        """Where everything is written."""
        return self.out_folder or self.folder

    @property
    def image_size(self) -> int:
        """Pixels a side of the images that the encoder is given."""
        return self.encoder.image_size

    @property
    def transform(self) -> CentreCrop:
        """From a record to the image that is evaluated."""
        return self.encoder.transform

    def features(self, split: str, reading: str = TOKENS) -> Features:
        """Features of a split, computed once and kept on disk.

        Args:
            split: "train" or "eval".
            reading: What is read: `TOKENS`, `MEANS` or a grid, as in `read`.

        Returns:
            The features.

        Raises:
            ValueError: If they would be too large to keep.
        """
        name = split if reading == TOKENS else f"{split}-{reading}"
        if name not in self._features:
            self._features[name] = self._read_features(name, split, reading)
        return self._features[name]

    def labelled(self, split: str, reading: str = TOKENS) -> Features:
        """The same of the images that have a label.

        Args:
            split: "train" or "eval".
            reading: As for `features`.

        Returns:
            The features.

        Raises:
            ValueError: If no image has a label.
        """
        found = self.features(split, reading)
        rows = np.flatnonzero(found.labels >= 0)
        if len(rows) == len(found.labels):
            return found
        if not len(rows):
            raise ValueError(f"the {split} split has no labels: see --{split}_split.")
        by_name = {name: array[rows] for name, array in found.by_name.items()}
        return Features(by_name, found.labels[rows])

    def _read_features(self, name: str, split: str, what: str) -> Features:
        reading = read(self.encoder.module, self.encoder.variables, what)
        source = self.data.train if split == "train" else self.data.held_out
        embed, batch_size = self._embed(reading.read), self.batch_size
        width = max(columns.stop for columns in reading.columns.values())
        if (size := 4 * width * len(source)) > _MOST_BYTES:
            raise ValueError(
                f"features {', '.join(reading.columns)} of {len(source)} images are "
                f"{size / 2**30:.0f} GiB, more than the {_MOST_BYTES / 2**30:.0f} GiB "
                "that are kept; give a smaller split, --train_split='train[:5%]'."
            )
        part_size = max(1, _PART_BYTES // (4 * width * batch_size)) * batch_size
        progress = Progress(
            -(-len(source) // batch_size),
            0,
            batch_size,
            log_every_s=30,
            is_primary=jax.process_index() == 0,
        )

        def compute(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
            batches = itertools.count(start // batch_size + 1)
            rows, labels = self._extract(
                embed,
                reading.variables,
                source.part(start, stop),
                self.transform,
                lambda: progress.update(next(batches)),
            )
            if not np.isfinite(rows).all():
                raise FloatingPointError(
                    f"features of {source.name!r}, split {source.split!r}, are not all "
                    "finite: nothing can be measured on them."
                )
            return rows, labels

        rows, labels = cached_features(
            self.results_folder / "features" / name,
            compute,
            kept_in=self.folder / "features" / name,
            scratch=self.scratch,
            key={
                "encoder": self.encoder.digest,
                "data": source.fingerprint,
                "content": source.content,
                "transform": dataclasses.asdict(self.transform),
                "columns": {k: [c.start, c.stop] for k, c in reading.columns.items()},
            },
            shape=(len(source), width),
            part_size=part_size,
        )
        by_name = {name: rows[:, columns] for name, columns in reading.columns.items()}
        return Features(by_name, labels)

    def classifier(
        self, head: Head, feature: str, variables: Mapping[str, Any] | None = None
    ) -> Classify:
        """What classifies images with a linear head on the encoder.

        Args:
            head: The head.
            feature: Feature that it reads, of `features` without a grid.
            variables: Of an encoder trained further; None for its own.

        Returns:
            `(source, transform) -> (logits [n, classes] float32, labels [n])`. It
            compiles once for all sources.
        """
        variables = variables or self.encoder.variables
        reading = read_tokens(self.encoder.module, variables)
        columns = reading.columns[feature]

        def logits(variables: Any, images: jax.Array) -> jax.Array:
            encoder_variables, head = variables
            features = reading.read(encoder_variables, images)
            return head_logits(head, features[:, columns])

        embed, params = self._embed(logits), (reading.variables, head)
        return lambda source, transform: self._extract(embed, params, source, transform)

    @functools.cached_property
    def pictures(self) -> np.ndarray:
        """Images of the evaluation split as they are drawn, `[n, h, w, 3]`, uint8."""
        embed = make_embed(lambda _, images: images, self.mesh)
        source = self.data.images.subset(self.num_pictures)
        return self._extract(embed, (), source, self.transform)[0]

    @functools.cached_property
    def images(self) -> np.ndarray:
        """The same as the encoder takes them: normalised, float32."""
        normalize = jax.jit(self.encoder.normalize)
        starts = range(0, len(self.pictures), self.batch_size)
        batches = (self.pictures[i : i + self.batch_size] for i in starts)
        return np.concatenate([np.asarray(normalize(batch)) for batch in batches])

    @functools.cached_property
    def _features(self) -> dict[str, Features]:
        return {}

    def _embed(self, read: Callable[[Any, jax.Array], jax.Array]) -> Any:
        normalize = self.encoder.normalize
        return make_embed(lambda v, images: read(v, normalize(images)), self.mesh)

    def _extract(
        self,
        embed: Any,
        params: Any,
        source: Source,
        transform: grain.transforms.Map,
        on_batch: Callable[[], None] = lambda: None,
    ) -> tuple[np.ndarray, np.ndarray]:
        rows = -(-len(source) // self.mesh.size) * self.mesh.size
        return extract(
            embed,
            params,
            source,
            transform,
            self.mesh,
            batch_size=min(self.batch_size, rows),  # the last one is filled up
            num_threads=self.num_threads,
            on_batch=on_batch,
        )
