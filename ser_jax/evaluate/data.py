"""The data an encoder is evaluated on, opened when first asked for."""

import contextlib
import dataclasses
import functools
from typing import Any

from ser_jax.data.sources import Source, open_source

_LOOKED_AT = 64  # records


@dataclasses.dataclass(frozen=True)
class EvalData:
    """Splits of a prepared data set.

    Attributes:
        name: TFDS name.
        data_dir: Folder of data sets.
        train_split: Split to fit on.
        eval_split: Split to evaluate on.
    """

    name: str
    data_dir: str
    train_split: str
    eval_split: str

    @functools.cached_property
    def train(self) -> Source:
        """Records to fit on.

        Raises:
            FileNotFoundError: If the data set is not there.
            ValueError: If it has no such split.
        """
        return open_source(self.name, self.train_split, self.data_dir)

    @functools.cached_property
    def held_out(self) -> Source:
        """Records to evaluate on; raises as `train` does."""
        return open_source(self.name, self.eval_split, self.data_dir)

    @functools.cached_property
    def images(self) -> Source:
        """Images without their labels: the evaluation split, or without one, train."""
        try:
            return self.held_out
        except ValueError:
            return self.train

    @property
    def num_classes(self) -> int:
        """Number of classes; where there are none, `unlabelled` says so."""
        assert self.train.num_classes is not None
        return self.train.num_classes

    def about(self) -> dict[str, Any]:
        """What tells these data from others, wherever they are stored.

        Returns:
            "train" and "eval" -> name, version, split, number and fingerprints of what
            is there; {} if nothing is.
        """
        found: dict[str, Any] = {}
        for key, attribute in (("train", "train"), ("eval", "held_out")):
            with contextlib.suppress(ValueError, OSError):
                source = getattr(self, attribute)
                found[key] = source.fingerprint | {"content": source.content}
        return found

    def absent(self) -> str | None:
        """Why there are no images; None if there are."""
        try:
            _ = self.images
        except (ValueError, OSError) as error:
            return f"{error}. Elsewhere: --eval_data_dir, --train_split, --eval_split."
        return None

    def unlabelled(self) -> str | None:
        """Why accuracy cannot be measured; None if it can."""
        return self._unlabelled

    @functools.cached_property
    def _unlabelled(self) -> str | None:
        if why := self.absent():
            return why
        try:
            sources = self.train, self.held_out
        except ValueError as error:
            return f"{error}. Another one: --eval_split."
        for source in sources:
            if not has_labels(source):
                return (
                    f"{self.name!r}, split {source.split!r}, has no labels. Another "
                    "one: --train_split, --eval_split."
                )
        return None


def has_labels(source: Source) -> bool:
    """Whether there is a label among some records, spread over all of them.

    A set with classes may have splits without.

    Args:
        source: Records.

    Returns:
        Whether one of these has one.
    """
    if source.num_classes is None:
        return False
    some = source.subset(_LOOKED_AT)
    return any(some[i]["label"] >= 0 for i in range(len(some)))
