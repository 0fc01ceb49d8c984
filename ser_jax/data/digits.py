"""The small data set that ships inside a dependency."""

import numpy as np
from etils import epath

from ser_jax.data.prepare import write

_VERSION = "1.0.0"


def write_digits(root: epath.Path) -> None:
    """scikit-learn's 1797 handwritten digits, 8 x 8 px: 1500 to train, 297 to test.

    Args:
        root: Folder of data sets, which gets `digits`.
    """
    import tensorflow_datasets as tfds  # Slow to import, and needed once.
    from sklearn import datasets

    digits = datasets.load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)  # [n, 8, 8]
    order = np.random.default_rng(0).permutation(len(images))

    def split(members: np.ndarray) -> write.Split:
        return write.Split(
            (
                str(i),
                {
                    "image": write.encode_png(np.stack([images[i]] * 3, axis=-1)),
                    "label": digits.target[i],
                },
            )
            for i in members
        )

    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(8, 8, 3)),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
    )
    with write.staged(root / "digits" / _VERSION) as directory:
        write.write_splits(
            directory,
            "digits",
            _VERSION,
            features,
            {"train": split(order[:1500]), "test": split(order[1500:])},
        )
