"""The archives as their publishers have them, to hold a copy against."""

import hashlib

from etils import epath

from ser_jax.storage.files import num_bytes

# Bytes -> MD5; no two are of one size. image-net.org (ILSVRC 2012: train, val) and
# cs.toronto.edu/~kriz/cifar.html (CIFAR-10 and CIFAR-100, Python and binary version).
_MD5 = {
    147_897_477_120: "1d675b47d978889d74fa0da5fadfb00e",
    6_744_924_160: "29b22e2961454d5413ddabcf34fc5622",
    170_498_071: "c58f30108f718f92721af3b95e74349a",
    170_052_171: "c32a1d4ab5d03f1284b67883e8d87530",
    169_001_437: "eb9058c3a382ffc7106e4002c42a8d85",
    168_513_733: "03b5dce01913d631647c71ecec9e9cb8",
}
IMAGENET_IMAGES = {"train": 1_281_167, "validation": 50_000}
CIFAR_IMAGES = {"train": 50_000, "test": 10_000}


def verdict(path: epath.Path) -> str:
    """Whether an archive is one that was published, in one line.

    Args:
        path: The archive. It is read in full if its size is that of a published one.

    Returns:
        The line, for the user: a copy that was packed again may well be sound.
    """
    size = num_bytes(path)
    if size not in _MD5:
        return f"{path}: its {size:,} bytes are the size of no published archive"
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "md5").hexdigest()
    if digest == _MD5[size]:
        return f"{path}: its MD5 matches that of the published archive"
    return (
        f"{path}: its MD5, {digest}, does not match that of the published archive, "
        f"{_MD5[size]}; get it again if more than its packing may differ"
    )
