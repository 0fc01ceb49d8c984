import numpy as np
import pytest
from helpers.prepare_files import RNG, run

from ser_jax.data import sources
from ser_jax.data.decode import decode_image
from ser_jax.data.prepare import prepare
from ser_jax.data.prepare.image_set import PrepareError


def published(folder, num_images=2):
    """The binary files with random pictures, `[n, 96, 96, 3]`; split -> pictures."""
    folder.mkdir(parents=True)
    images = {}
    for split in ("train", "test", "unlabeled"):
        images[split] = RNG.integers(0, 256, (num_images, 96, 96, 3), dtype=np.uint8)
        by_column = images[split].transpose(0, 3, 2, 1)
        (folder / f"{split}_X.bin").write_bytes(by_column.tobytes())
    (folder / "train_y.bin").write_bytes(bytes([1, 10]))
    (folder / "test_y.bin").write_bytes(bytes([3, 4]))
    return images


def test_binary_files_become_splits(tmp_path):
    """Red if rows and columns are swapped, or a label is off by one."""
    images = published(tmp_path / "in" / "stl10_binary")
    (tmp_path / "in" / "broken.png").symlink_to("/no/such")
    found = prepare.read_image_set(folder=str(tmp_path / "in"), name="stl10")
    assert "train (2), test (2), unlabelled (2)" in found.understood
    assert found.lost == ["broken.png\ta link to nothing"]
    run(tmp_path / "out", 0.2, folder=str(tmp_path / "in"), name="stl10")
    for stem, split, labels in [
        ("train", "train", {0, 9}),
        ("test", "test", {2, 3}),
        ("unlabeled", "unlabelled", {-1}),
    ]:
        source = sources.open_source("stl10", split, tmp_path / "out")
        assert source.class_names[0] == "airplane" and source.class_names[9] == "truck"
        assert {source[i]["label"] for i in range(2)} == labels
        stored = {decode_image(source[i]["image"]).tobytes() for i in range(2)}
        assert stored == {image.tobytes() for image in images[stem]}


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("train_X.bin", b"x" * 100, "train_X.bin has 100 bytes, no multiple of 27,648"),
        ("train_X.bin", b"", "has 0 bytes"),
        ("test_y.bin", b"\1", "2 labels of 1 to 10.*it has 1"),
        ("test_y.bin", b"", "it has 0"),
        ("test_y.bin", b"\0\1", "of 0 to 1"),
        ("test_y.bin", None, "there is no .*test_y.bin"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, file, content, message):
    published(tmp_path / "in")
    (tmp_path / "in" / file).unlink()
    if content is not None:
        (tmp_path / "in" / file).write_bytes(content)
    with pytest.raises(PrepareError, match=message):
        run(tmp_path / "out", folder=str(tmp_path / "in"), name="stl10")
