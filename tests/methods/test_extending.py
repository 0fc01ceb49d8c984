"""An objective, a regularizer: one file and one line each, proved by making them."""

import dataclasses
import importlib
import pathlib

import jax
import numpy as np
import pytest
from helpers.support import tiny_config, train_two_steps

import ser_jax
from ser_jax.methods.encode import encode
from ser_jax.methods.objectives import OBJECTIVES
from ser_jax.methods.regularizers import REGULARIZERS
from ser_jax.report.curves import compared_metrics, plot_curves
from ser_jax.storage.metrics import MetricWriter
from ser_jax.train.experiment import build
from ser_jax.views.recipe import recipe

pytestmark = pytest.mark.slow

OBJECTIVE = '''
"""The two views' embeddings lie where the same unit vectors do.

    L = mean over images of |u_0 - u_1|^2,   u_v = student[v] / |student[v]|
"""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp

from ser_jax.methods.metric import Metric, Panel
from ser_jax.methods.objectives.base import EMBEDDING_STD, MultiCropObjective, mean_std
from ser_jax.models.normalize import l2_normalize

DISTANCE = Metric("toy_distance", Panel("toy distance"), "views", is_compared=True)


class ToyHeads(nn.Module):
    output_dim: int

    def setup(self):
        self.projector = nn.Dense(self.output_dim)

    def student(self, cls, train):
        return self.projector(cls)


@dataclasses.dataclass(frozen=True)
class Toy(MultiCropObjective):
    output_dim: int = 4

    metrics: ClassVar[tuple[Metric, ...]] = (DISTANCE, EMBEDDING_STD)

    @property
    def embedding_dim(self):
        return self.output_dim

    def make_heads(self):
        return ToyHeads(self.output_dim)

    def loss(self, student, target, state, epoch):
        first, second = (l2_normalize(student[v.name]) for v in self.views[:2])
        loss = jnp.mean(jnp.sum(jnp.square(first - second), axis=1))
        return loss, {
            DISTANCE.name: jnp.sqrt(loss),
            EMBEDDING_STD.name: mean_std(first),
        }, state


METHOD = Toy
'''

REGULARIZER = '''
"""A small crop of an image, coloured as local views are, tells the whole.

    L = 1 - mean over images of cos(head(f_odd), f_0)
"""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp

from ser_jax.methods.metric import Metric, Panel
from ser_jax.methods.regularizers.base import FeatureRegularizer, pooled
from ser_jax.models.normalize import l2_normalize
from ser_jax.views.view import ViewSpec

COSINE = Metric("toy_cosine", Panel("toy cosine"), "odd crop", is_compared=True)


class ToyHeads(nn.Module):
    layer: int
    pool: str

    @nn.compact
    def __call__(self, student, target, views, train):
        odd, whole = (
            pooled(student[name], self.layer, self.pool)
            for name in ("odd/0", "global/0")
        )
        predicted = nn.Dense(whole.shape[1])(odd)
        return jnp.sum(l2_normalize(predicted) * l2_normalize(whole), axis=1)


@dataclasses.dataclass(frozen=True)
class Toy(FeatureRegularizer):
    metrics: ClassVar[tuple[Metric, ...]] = (COSINE,)

    def views(self, objective):
        return (ViewSpec("odd/0", "local", small=True),)

    def make_heads(self):
        return ToyHeads(self.layer, self.pool)

    def loss(self, outputs, views):
        return 1 - outputs.mean(), {COSINE.name: outputs.mean()}


METHOD = Toy
'''


@pytest.fixture
def add(tmp_path, monkeypatch):
    """The file, and the line."""

    def add(registry, name, text):
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setitem(registry, name, importlib.import_module(name).METHOD)

    return add


def assert_trains_and_is_drawn(experiment, metric, title, workdir, figures):
    before, after, metrics = train_two_steps(experiment)
    for part in before:  # the encoder and all heads learn
        moved = jax.tree.map(lambda a, b: np.any(a != b), before[part], after[part])
        assert any(jax.tree.leaves(moved)), part
    writer = MetricWriter(workdir)
    for step in (1, 2):
        writer.write_scalars(step, metrics)
    writer.close()
    plot_curves(workdir)
    axes = {ax.get_title(loc="left"): ax for ax in figures[0].axes}
    drawn = axes[title].lines[0].get_ydata()
    np.testing.assert_allclose(drawn, float(metrics[metric]))
    assert metric in [compared.name for compared in compared_metrics()]


def test_an_objective_is_one_file_and_one_line(add, tmp_path, figures):
    """Red if its settings, its training or its curve take another file."""
    add(OBJECTIVES, "toy_objective", OBJECTIVE)
    config = tiny_config("toy_objective", "none", **{"objective.output_dim": 6})
    experiment = build(config, 64)
    assert experiment.learner.objective.embedding_dim == 6
    assert_trains_and_is_drawn(
        experiment, "toy_distance", "toy distance", tmp_path / "run", figures
    )
    with pytest.raises(ValueError, match="has no setting 'output_din'"):
        config.objective.unlock().output_din = 3
        build(config, 64)


def test_a_regularizer_is_one_file_and_one_line(add, tmp_path, figures):
    """Red if a view of a name that nobody knows takes another file."""
    add(REGULARIZERS, "toy_regularizer", REGULARIZER)
    config = tiny_config("byol", "toy_regularizer", **{"augment.recipe": "dino"})
    experiment = build(config, 64)
    learner = experiment.learner
    views = dict(zip(learner.specs, learner.make_views.recipes, strict=True))
    odd = next(spec for spec in views if spec.name == "odd/0")
    expected = recipe("dino", "local", 8)
    norm = {"mean": experiment.mean, "std": experiment.std}
    assert views[odd] == dataclasses.replace(expected, **norm)
    crop = next(crop for crop in experiment.crops if crop.name == "odd/0")
    assert crop.size_px == 8 and crop.scale == (0.05, 0.4)  # of DINO's local views
    assert_trains_and_is_drawn(
        experiment, "toy_cosine", "toy cosine", tmp_path / "run", figures
    )


def test_a_view_of_a_new_name_has_statistics_of_its_own(add):
    """In an encoder with BatchNorm; red if it shares those of the local views."""
    add(REGULARIZERS, "toy_regularizer", REGULARIZER)
    config = tiny_config("byol", "toy_regularizer", **{"objective.num_local": 2})
    config.model.update(variant="resnet18", width=4, small_images=True)
    config.model.update(depth=0, num_heads=0, freeze_patch_embed=False)
    config.regularizer.pool = "mean_patch"
    experiment = build(config, 64)
    learner, shapes = experiment.learner, []

    class Watched:
        has_batch_norm = True

        def apply(self, variables, images, *args, **kwargs):
            shapes.append(images.shape)
            return learner.encoder.apply(variables, images, *args, **kwargs)

    def run(rng, batch):
        state = experiment.init_state(rng)
        views = learner.make_views(rng, batch, 0)
        variables = state.variables.encoder(target=False)
        encode(Watched(), **variables, views=views, specs=learner.specs)

    jax.eval_shape(run, experiment.init_rng, experiment.abstract_batch())
    whole, locals_, odd = (16, 16, 16, 3), (2 * 16, 8, 8, 3), (16, 8, 8, 3)
    assert shapes == [whole, whole, locals_, odd]


def test_no_other_file_knows_them():
    package = pathlib.Path(ser_jax.__file__).parent
    for path in package.rglob("*.py"):
        text = path.read_text().lower()
        assert "toy" not in text and '"odd' not in text, path
