"""From images as they come to a data set that is there whole or not at all."""

import os

from etils import epath

from ser_jax.data.prepare import write
from ser_jax.data.prepare.archives import read_imagenet
from ser_jax.data.prepare.audit import Audit, say
from ser_jax.data.prepare.cifar import read_cifar
from ser_jax.data.prepare.folder import read_folder
from ser_jax.data.prepare.image_set import ImageSet, PrepareError
from ser_jax.data.prepare.published import verdict
from ser_jax.storage.bucket import scheme_of
from ser_jax.storage.files import as_path, local_path, matching


def read_image_set(
    *,
    folder: str | None = None,
    name: str | None = None,
    imagenet_train_tar: str | None = None,
    imagenet_val_tar: str | None = None,
    cifar_archive: str | None = None,
    exif_orientation: bool = True,
) -> ImageSet:
    """The images the flags of the same names ask for.

    Args:
        folder: A folder of images; needs `name`.
        name: Name of the data set made of a folder.
        imagenet_train_tar: The official archive; may come with the next one.
        imagenet_val_tar: The official archive.
        cifar_archive: An official archive of CIFAR-10 or CIFAR-100.
        exif_orientation: Turn a folder's pictures as EXIF says. Archives stay as their
            protocols read them.

    Returns:
        The data set to write; its images are not read yet.

    Raises:
        PrepareError: If not exactly one source is given, or it is not there.
    """
    archives = (imagenet_train_tar, imagenet_val_tar, cifar_archive)
    num_sources = sum(
        map(bool, (folder, imagenet_train_tar or imagenet_val_tar, cifar_archive))
    )
    if num_sources != 1:
        raise PrepareError(
            f"{num_sources or 'no'} sources given; give one: --folder with --name, "
            "--imagenet_train_tar and --imagenet_val_tar, or --cifar_archive"
        )
    if bool(folder) != bool(name):
        raise PrepareError(
            "--folder needs --name, the name to give the data set"
            if folder
            else "--name goes with --folder; the archives have names of their own"
        )
    for archive in filter(None, archives):
        if not local_path(archive).is_file():
            raise PrepareError(f"there is no file {archive}")
    if folder and name:
        return read_folder(local_path(folder), name, upright=exif_orientation)
    if cifar_archive:
        return read_cifar(local_path(cifar_archive))
    train_tar, val_tar = (
        local_path(tar) if tar else None
        for tar in (imagenet_train_tar, imagenet_val_tar)
    )
    return read_imagenet(train_tar, val_tar)


def prepare(
    images: ImageSet,
    data_dir: str | os.PathLike[str],
    max_bad_frac: float = 0.0,
    allow_incomplete: bool = False,
) -> epath.Path:
    """Writes the data set, unless it is there.

    Args:
        images: What to write.
        data_dir: Folder that holds the data sets.
        max_bad_frac: Share of images to accept that are unreadable or have no place in
            the layout, in [0, 1].
        allow_incomplete: Accept nearly as many images as were published, not only all,
            or a part of at most half.

    Returns:
        Folder of the data set.

    Raises:
        PrepareError: If `data_dir` cannot be written to, a split has no readable image,
            more than `max_bad_frac` of the images are unreadable, or images that were
            published are missing.
    """
    root = as_path(data_dir)
    final_dir = root / images.name / images.version
    if (final_dir / "dataset_info.json").exists():
        say(f"{final_dir} is there already; remove it to prepare it anew")
        return final_dir
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PrepareError(
            f"cannot make --data_dir={root}: {error.strerror}; give a folder you may "
            "write to"
        ) from error
    if not scheme_of(root) and not os.access(root, os.W_OK):
        raise PrepareError(
            f"--data_dir={root} is read-only; give a folder you may write to"
        )
    for leftover in matching(root, f".{images.name}-{images.version}-*"):
        say(f"{leftover} is another run's; if none is running, remove it")
    for archive in images.archives:
        say(verdict(archive))
    audit = Audit(images.lost, images.upright, allow_incomplete)
    report_path = root / f"{images.name}.unreadable.txt"
    num_lost = len(images.lost)
    if num_lost > max_bad_frac * (images.num_found + num_lost):
        raise PrepareError(  # before anything is decoded
            f"{num_lost} of {images.num_found + num_lost} files have no place in the "
            f"data set, though they may be images: more than --max_bad_frac="
            f"{max_bad_frac} allows; mend or remove them, or allow more "
            f"({audit.report(report_path)}); no data set was written"
        )
    with write.staged(final_dir) as directory:
        splits = {
            name: write.Split(audit.examples(name, split), split.num_bytes)
            for name, split in images.splits.items()
        }
        try:
            write.write_splits(
                directory, images.name, images.version, images.features, splits
            )
        finally:
            report = audit.report(report_path)
        if len(audit.bad) > max_bad_frac * audit.num_images:
            raise PrepareError(
                f"{len(audit.bad)} of {audit.num_images} images are left out or cannot "
                f"be decoded, more than --max_bad_frac={max_bad_frac} allows; mend or "
                f"remove them, or allow more ({report}); no data set was written"
            )
    say(f"{final_dir}: {audit.num_images - len(audit.bad)} images; {report}")
    return final_dir
