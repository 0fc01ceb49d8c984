r"""Makes a TFDS ArrayRecord data set of a folder of images or of an official archive.

python -m ser_jax.data.prepare --folder=photos --name=photos
python -m ser_jax.data.prepare --imagenet_train_tar=ILSVRC2012_img_train.tar \
    --imagenet_val_tar=ILSVRC2012_img_val.tar
python -m ser_jax.data.prepare --cifar_archive=cifar-10-python.tar.gz

Every image is decoded once; those that cannot be are left out and listed in
`<data_dir>/<name>.unreadable.txt`. The data set appears when it is complete: a run that
was interrupted leaves none, and is simply run again.
"""

import signal
import sys
from typing import Any, NoReturn

from absl import app, flags

from ser_jax.data.prepare.image_set import PrepareError
from ser_jax.data.prepare.prepare import prepare, read_image_set


def _define_flags() -> None:
    flags.DEFINE_string("folder", None, "Folder of images, however deep.")
    flags.DEFINE_string("name", None, "Name to give the data set made of --folder.")
    flags.DEFINE_string("imagenet_train_tar", None, "ILSVRC2012_img_train.tar.")
    flags.DEFINE_string("imagenet_val_tar", None, "ILSVRC2012_img_val.tar.")
    flags.DEFINE_string("cifar_archive", None, "cifar-10-python.tar.gz or the like.")
    flags.DEFINE_string("data_dir", "~/tensorflow_datasets", "Where data sets live.")
    flags.DEFINE_float(
        "max_bad_frac",
        0.0,
        "Share of unreadable images to leave out and go on.",
        lower_bound=0.0,
        upper_bound=1.0,
    )


def _terminate(signum: int, frame: Any) -> NoReturn:
    sys.exit(f"prepare: stopped by signal {signum}; no data set was written")


def main(argv: list[str]) -> None:
    """Prepares what the flags ask for; one line on stderr for a mistake."""
    if argv[1:]:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; every option is a flag")
    signal.signal(signal.SIGTERM, _terminate)  # by default it would skip the clean-up
    values = flags.FLAGS
    try:
        images = read_image_set(
            folder=values.folder,
            name=values.name,
            imagenet_train_tar=values.imagenet_train_tar,
            imagenet_val_tar=values.imagenet_val_tar,
            cifar_archive=values.cifar_archive,
        )
        prepare(images, values.data_dir, values.max_bad_frac)
    except (PrepareError, OSError) as error:
        sys.exit(f"prepare: {error}")
    except KeyboardInterrupt:
        sys.exit("prepare: interrupted; no data set was written")


if __name__ == "__main__":
    _define_flags()
    app.run(main)
