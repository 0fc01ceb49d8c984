r"""Makes a TFDS ArrayRecord data set of a folder of images or of an official archive.

python -m ser_jax.data.prepare --folder=photos --name=photos
python -m ser_jax.data.prepare --imagenet_train_tar=ILSVRC2012_img_train.tar \
    --imagenet_val_tar=ILSVRC2012_img_val.tar
python -m ser_jax.data.prepare --cifar_archive=cifar-10-python.tar.gz

What was understood of the source is printed first; with `--dry_run` that is all. Every
image is decoded once; those that cannot be are left out and listed in
`<data_dir>/<name>.unreadable.txt`. The data set appears when it is complete: a run that
was interrupted leaves none, and is simply run again.
"""

import io
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
        "Share of images to go on without: unreadable, or beside the layout.",
        lower_bound=0.0,
        upper_bound=1.0,
    )
    flags.DEFINE_bool(
        "exif_orientation", True, "Turn the pictures of --folder as EXIF says."
    )
    flags.DEFINE_bool(
        "allow_incomplete", False, "Take an archive that lacks images as it is."
    )
    flags.DEFINE_bool("dry_run", False, "Say what is understood, and write nothing.")


def _terminate(signum: int, frame: Any) -> NoReturn:
    sys.exit(f"prepare: stopped by signal {signum}; no data set was written")


def main(argv: list[str]) -> None:
    """Prepares what the flags ask for; one line on stderr for a mistake."""
    if argv[1:]:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; every option is a flag")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for names of classes
    signal.signal(signal.SIGTERM, _terminate)  # by default it would skip the clean-up
    values = flags.FLAGS
    try:
        images = read_image_set(
            folder=values.folder,
            name=values.name,
            imagenet_train_tar=values.imagenet_train_tar,
            imagenet_val_tar=values.imagenet_val_tar,
            cifar_archive=values.cifar_archive,
            exif_orientation=values.exif_orientation,
        )
        splits = ", ".join(images.splits)
        about = f"{images.name} {images.version}, splits {splits}"
        print(images.understood or about, flush=True)
        if values.dry_run:
            return
        prepare(images, values.data_dir, values.max_bad_frac, values.allow_incomplete)
    except (PrepareError, OSError, ValueError) as error:
        sys.exit(f"prepare: {error}")
    except KeyboardInterrupt:
        sys.exit("prepare: interrupted; no data set was written")


if __name__ == "__main__":
    _define_flags()
    app.run(main)
