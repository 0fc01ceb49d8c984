"""Features are written down with the names and labels of their pictures."""

import jax
import numpy as np
import pytest
from etils import epath
from PIL import Image

from ser_jax.data.prepare.folder import read_folder
from ser_jax.data.prepare.prepare import prepare
from ser_jax.evaluate.data import EvalData
from ser_jax.evaluate.encoder import FrozenEncoder
from ser_jax.evaluate.features import embed
from ser_jax.evaluate.results import evaluate
from ser_jax.evaluate.subject import Subject
from ser_jax.models.vit import ViT


@pytest.fixture(scope="module")
def encoder():
    vit = ViT(16, 1, 2, patch_size=8, image_size=16, init_scheme="dino")
    variables = jax.jit(vit.init)(jax.random.key(0), np.zeros((1, 16, 16, 3)))
    return FrozenEncoder(vit, variables, (0.5,) * 3, (0.25,) * 3, digest=7)


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (2, 9, 16, 16, 3)).astype(np.uint8)


@pytest.fixture
def subject(encoder, pictures, tmp_path):
    """Of a folder: two classes, nine pictures each."""
    for name, images in zip(("cat", "dog"), pictures, strict=True):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / "images" / name / f"{i}.png")
    prepare(read_folder(epath.Path(tmp_path / "images"), "mine"), tmp_path)
    data = EvalData("mine", str(tmp_path), "train", "test")
    return Subject(encoder=encoder, data=data, folder=epath.Path(tmp_path / "out"))


@pytest.mark.slow
def test_each_row_is_the_feature_of_the_picture_it_names(
    subject, encoder, pictures, tmp_path
):
    results = evaluate(subject, ["embed"])["tasks"]["embed"]
    assert results["train"] == {"file": "embed/train.npz", "rows": 18, "width": 16}
    with np.load(tmp_path / "out" / "embed" / "train.npz") as found:
        arrays = dict(found)
    assert sorted(arrays["name"]) == sorted(
        f"{name}/{i}.png" for name in ("cat", "dog") for i in range(9)
    )
    assert arrays["class_names"].tolist() == ["cat", "dog"]
    for name, label, feature in zip(
        arrays["name"], arrays["label"], arrays["feature"], strict=True
    ):
        kind, number = name.removesuffix(".png").split("/")
        assert ("cat", "dog")[label] == kind
        image = pictures[("cat", "dog").index(kind), int(number)]
        np.testing.assert_allclose(feature, encoder(image[None])[0], atol=1e-5)
    assert (tmp_path / "out" / results["pictures"]["neighbours"]).exists()


@pytest.mark.slow
def test_what_cannot_be_written_is_refused(subject, monkeypatch):
    with pytest.raises(ValueError, match="no feature is called 'cls9'; .* cls1"):
        evaluate(subject, ["embed"], embed_feature="cls9")

    def absent():
        raise ImportError("no such module")

    monkeypatch.setattr(embed, "_pyarrow", absent)
    with pytest.raises(ValueError, match="pip install pyarrow"):
        evaluate(subject, ["embed"], embed_format="parquet")


def test_neighbours_are_those_of_the_largest_cosine():
    rng = np.random.default_rng(0)
    queries, bank = rng.normal(size=(3, 5)), rng.normal(size=(7, 5))
    best, cosines = embed.neighbours(queries, bank, 4)
    for query, row, values in zip(queries, best, cosines, strict=True):
        norms = np.linalg.norm(bank, axis=1) * np.linalg.norm(query)
        expected = bank @ query / norms
        np.testing.assert_array_equal(row, np.argsort(-expected)[:4])
        np.testing.assert_allclose(values, np.sort(expected)[::-1][:4])
    best, _ = embed.neighbours(queries, bank[:2], 4)
    assert best.shape == (3, 2)
