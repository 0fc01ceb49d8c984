"""A trained run in evaluation: its encoder, its data, its features on disk."""

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import grain
import jax
import numpy as np
from jax.sharding import Mesh

from ser_jax.data.host_transforms import CentreCrop
from ser_jax.data.sources import Source
from ser_jax.evaluate.classify.classifier import Classify
from ser_jax.evaluate.classify.heads import Head, head_logits
from ser_jax.evaluate.data import RunData
from ser_jax.evaluate.features.cache import cached_features
from ser_jax.evaluate.features.extract import extract, make_embed
from ser_jax.evaluate.features.readings import Reading, read_grid, read_tokens
from ser_jax.methods.variables import encoder_paths
from ser_jax.storage.reader import load_subtree, read_digest
from ser_jax.train.experiment import Experiment, eval_resize_px
from ser_jax.train.progress import Progress
from ser_jax.train.sharding import replicated

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


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """A checkpoint of a run and what it is evaluated on.

    Attributes:
        workdir: The run.
        step: Step of the checkpoint.
        encoder_name: "online" or "target": whose weights are evaluated.
        experiment: What was trained.
        variables: The evaluated encoder's variables, on every device.
        data: What it is evaluated on.
        mesh: The mesh.
        batch_size: Images encoded at a time, over all devices; a multiple of their
            number.
        num_pictures: Pictures that are moved, corrupted here, and drawn; all, if there
            are fewer.
    """

    workdir: pathlib.Path
    step: int
    encoder_name: str
    experiment: Experiment
    variables: Mapping[str, Any]
    data: RunData
    mesh: Mesh
    batch_size: int
    num_pictures: int

    @property
    def folder(self) -> pathlib.Path:
        """Where results of this encoder go unless told otherwise."""
        return self.workdir / "eval" / f"{self.step}-{self.encoder_name}"

    @property
    def encoder(self) -> Any:
        """The encoder module."""
        return self.experiment.learner.encoder

    @functools.cached_property
    def local_variables(self) -> dict[str, Any]:
        """The variables on one device of this process, for work it does by itself."""
        return jax.device_put(jax.device_get(self.variables), jax.local_devices()[0])

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.experiment.config.seed

    @property
    def image_size(self) -> int:
        """Pixels a side of the pictures that the encoder is given."""
        return self.experiment.config.augment.image_size

    @property
    def transform(self) -> CentreCrop:
        """From a record to the picture that is evaluated."""
        return CentreCrop(self.image_size, eval_resize_px(self.image_size))

    def features(self, split: str, grid_layer: int | None = None) -> Features:
        """Features of a split, computed once and kept in the run's folder.

        Args:
            split: "train" or "eval".
            grid_layer: Layer whose token grid is read instead of the class tokens.

        Returns:
            The features.

        Raises:
            ValueError: If they would be too large to keep.
        """
        name = split if grid_layer is None else f"{split}-grid{grid_layer}"
        if name not in self._features:
            self._features[name] = self._read_features(name, split, grid_layer)
        return self._features[name]

    def _read_features(self, name: str, split: str, grid_layer: int | None) -> Features:
        reading = self._reading(grid_layer)
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
            return self._extract(
                embed,
                reading.variables,
                source.part(start, stop),
                self.transform,
                lambda: progress.update(next(batches)),
            )

        rows, labels = cached_features(
            self.folder / "features" / name,
            compute,
            key={
                "encoder": self.digest(),
                "data": source.fingerprint,
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
        """What classifies pictures with a linear head on the encoder.

        Args:
            head: The head.
            feature: Feature that it reads, of `features` without a grid.
            variables: Of an encoder trained further; None for the run's own.

        Returns:
            `(source, transform) -> (logits [n, classes] float32, labels [n])`. It
            compiles once for all sources.
        """
        reading = read_tokens(self.encoder, variables or self.variables)
        columns = reading.columns[feature]

        def logits(variables: Any, images: jax.Array) -> jax.Array:
            encoder_variables, head = variables
            features = reading.read(encoder_variables, images)
            return head_logits(head, features[:, columns])

        embed, params = self._embed(logits), (reading.variables, head)
        return lambda source, transform: self._extract(embed, params, source, transform)

    @functools.cached_property
    def pictures(self) -> np.ndarray:
        """Pictures of the evaluation split, as cropped, `[n, h, w, 3]`, uint8."""
        embed = make_embed(lambda _, images: images, self.mesh)
        source = self.data.pictures.subset(self.num_pictures)
        return self._extract(embed, (), source, self.transform)[0]

    @functools.cached_property
    def images(self) -> np.ndarray:
        """The same as the encoder takes them, normalised, float32."""
        normalize = jax.jit(self.experiment.normalize)
        starts = range(0, len(self.pictures), self.batch_size)
        batches = (self.pictures[i : i + self.batch_size] for i in starts)
        return np.concatenate([np.asarray(normalize(batch)) for batch in batches])

    def load(self, part: str, shapes: Any) -> Any:
        """Another part of the checkpoint, verified.

        Args:
            part: Its path in `Variables`: "params/regularizer".
            shapes: Its leaves' shapes and dtypes.

        Returns:
            The arrays, on the host.
        """
        return jax.device_get(
            load_part(self.workdir, self.step, part, shapes, self.mesh)
        )

    def digest(self) -> int:
        """A number that tells the encoder's weights from others."""
        paths = [
            f"variables/{part}" for part in encoder_paths(self._is_target).values()
        ]
        return read_digest(self.workdir / "checkpoints", paths, self.step)

    @functools.cached_property
    def _features(self) -> dict[str, Features]:
        return {}

    @property
    def _is_target(self) -> bool:
        return self.encoder_name == "target"

    def _reading(self, grid_layer: int | None) -> Reading:
        if grid_layer is None:
            return read_tokens(self.encoder, self.variables)
        return read_grid(self.encoder, self.variables, grid_layer)

    def _embed(self, read: Callable[[Any, jax.Array], jax.Array]) -> Any:
        normalize = self.experiment.normalize
        return make_embed(lambda v, images: read(v, normalize(images)), self.mesh)

    def _extract(
        self,
        embed: Any,
        params: Any,
        source: Source,
        transform: grain.transforms.Map,
        on_batch: Callable[[], None] = lambda: None,
    ) -> tuple[np.ndarray, np.ndarray]:
        config = self.experiment.config
        rows = -(-len(source) // self.mesh.size) * self.mesh.size
        return extract(
            embed,
            params,
            source,
            transform,
            self.mesh,
            batch_size=min(self.batch_size, rows),  # the last one is filled up
            num_threads=config.loader.num_threads,
            on_batch=on_batch,
        )


def load_part(
    workdir: pathlib.Path, step: int, part: str, shapes: Any, mesh: Mesh
) -> Any:
    """A part of a checkpoint's variables, verified, on every device.

    Args:
        workdir: The run.
        step: Which checkpoint.
        part: Path in `Variables`: "params/encoder".
        shapes: Its leaves' shapes and dtypes; without leaves there is nothing to read.
        mesh: The mesh.

    Returns:
        The arrays.

    Raises:
        ValueError: If the checkpoint is damaged, or has no such part.
    """
    sharding = replicated(mesh)
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes
    )
    if not jax.tree.leaves(abstract):  # a ViT has no statistics, nor its checkpoint
        return abstract
    return load_subtree(workdir / "checkpoints", abstract, f"variables/{part}", step)
