"""STL: the reference, and predictions by loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import interop_torch
from helpers.made_up_views import outputs_from
from helpers.reference_moco import mlp, moco_loss, online_heads
from helpers.support import assert_close

from ser_jax.methods.regularizers.stl import STL, transform

VIEWS = ("global/0", "global/1")


def heads_from(sd: dict) -> dict:
    """Parameters (or their gradients) of STL's heads."""
    return {
        "trans_backbone": mlp(sd, "trans_backbone."),
        "hypernetwork": interop_torch.dense(sd, "equi_transform.hypernet"),
        "projector": mlp(sd, "projector_equiv."),
        "trans_projector": mlp(sd, "trans_projector."),
    }


def regularizer_of(data) -> STL:
    settings = data.settings
    heads = heads_from(data.group("sd/"))
    hidden_dim, output_dim = heads["projector"]["fc2"]["kernel"].shape
    return STL(
        weight=settings["lambda_equi"],
        trans_weight=settings["lambda_trans"] / settings["lambda_equi"],
        temperature=settings["T"],
        hidden_dim=hidden_dim,
        output_dim=output_dim,
        trans_dim=settings["trans_dim"],
    )


@pytest.mark.slow
@pytest.mark.parity
def test_matches_the_reference_value_and_gradient(golden):
    data = golden("stl")
    sd, regularizer = data.group("sd/"), regularizer_of(data)
    heads = regularizer.make_heads()
    params = {"stl": heads_from(sd), "moco": online_heads(sd)}

    def value(params, queries):
        features = dict(zip(VIEWS, queries, strict=True))
        outputs, _ = heads.apply(
            {"params": params["stl"]},
            outputs_from(features, regularizer.layer),
            {},
            {},
            True,
            mutable=["batch_stats"],
        )
        loss_equiv, metrics = regularizer.loss(outputs, {})
        keys = [data["cls_k0"], data["cls_k1"]]
        loss_inv = moco_loss(data, params["moco"], queries, keys)
        return loss_inv + regularizer.weight * loss_equiv, (loss_inv, metrics)

    queries = [jnp.asarray(data[name]) for name in ("cls_q0", "cls_q1")]
    (loss, (loss_inv, metrics)), (grad_params, grad_queries) = jax.jit(
        jax.value_and_grad(value, argnums=(0, 1), has_aux=True)
    )(params, queries)
    np.testing.assert_allclose(loss_inv, data["loss_inv"], rtol=1e-5)
    np.testing.assert_allclose(metrics["loss_view"], data["loss_equi"], rtol=1e-5)
    np.testing.assert_allclose(metrics["loss_trans"], data["loss_trans"], rtol=1e-5)
    np.testing.assert_allclose(loss, data["loss"], rtol=1e-5)
    for grad, name in zip(grad_queries, ("grad_cls_q0", "grad_cls_q1"), strict=True):
        assert_close(grad, data[name])
    recorded = data.group("grad/")
    expected = {"stl": heads_from(recorded), "moco": online_heads(recorded)}
    jax.tree.map(assert_close, grad_params, expected)


@pytest.mark.parity
def test_maps_match_the_reference(golden):
    data = golden("stl")
    kernel = heads_from(data.group("sd/"))["hypernetwork"]["kernel"]
    for case in ("equitrans0", "equitrans1"):
        codes, x = data[f"{case}/t"], data[f"{case}/r"]
        d = x.shape[1]
        actual = transform(kernel.reshape(-1, d, d), codes, x)
        assert_close(actual, data[f"{case}/out"])


def test_maps_by_loops_value_and_gradient(rng):
    """Each image's matrix, made and applied. Red if output and input change places."""
    b, t, d = 3, 2, 4
    keys = jax.random.split(rng, 3)
    shapes = ((t, d, d), (b, t), (b, d))
    args = [jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True)]

    def by_loops(kernel, codes, x):
        rows = []
        for i in range(b):
            matrix = sum(codes[i, j] * kernel[j] for j in range(t))
            rows.append(jnp.stack([jnp.dot(matrix[o], x[i]) for o in range(d)]))
        return jnp.stack(rows)

    def run(function):
        def value(*args):
            return jnp.sum(jnp.sin(function(*args)))

        return jax.jit(jax.value_and_grad(value, argnums=(0, 1, 2)))(*args)

    jax.tree.map(
        lambda a, e: assert_close(a, e, 1e-5, 1e-6), run(transform), run(by_loops)
    )


def shapes_in(jaxpr) -> set[tuple[int, ...]]:
    """Shapes of all that a program computes."""
    shapes = set()
    for equation in jaxpr.eqns:
        shapes.update(v.aval.shape for v in equation.outvars)
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                shapes |= shapes_in(inner)
    return shapes


def test_no_matrix_per_image_is_ever_stored():
    """Red if W(t) is made first: `b * d * d` numbers, forward or backward."""
    b, t, d = 16, 3, 8
    args = [jnp.zeros(s) for s in ((t, d, d), (b, t), (b, d))]

    def value(*args):
        return jnp.sum(jnp.sin(transform(*args)))

    program = jax.make_jaxpr(jax.value_and_grad(value, argnums=(0, 1, 2)))(*args)
    sizes = {int(np.prod(shape)) for shape in shapes_in(program.jaxpr)}
    assert max(sizes) == b * t * d < b * d * d


def run_heads(rng, features: dict, regularizer: STL):
    heads = regularizer.make_heads()
    outputs = outputs_from(features, regularizer.layer)
    return jax.jit(lambda: heads.init_with_output(rng, outputs, {}, {}, True))()


def test_a_pair_lends_each_other_its_transformation(rng):
    """Predictions by hand from the parameters. Red without the swap of partners."""
    b, d, t = 4, 6, 5
    regularizer = STL(layer=2, hidden_dim=7, output_dim=3, trans_dim=t)
    features = {
        name: jax.random.normal(jax.random.fold_in(rng, i), (b, d))
        for i, name in enumerate(VIEWS)
    }
    outputs, variables = run_heads(rng, features, regularizer)
    params = jax.tree.map(np.asarray, variables["params"])

    def plain_mlp(name, x):
        p = params[name]
        x = x @ p["fc1"]["kernel"]
        x = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-5)
        x = np.maximum(x * p["bn1"]["scale"] + p["bn1"]["bias"], 0)
        return x @ p["fc2"]["kernel"]

    first, second = (np.asarray(features[name]) for name in VIEWS)
    forth = plain_mlp("trans_backbone", np.hstack([first, second]))
    back = plain_mlp("trans_backbone", np.hstack([second, first]))
    kernel = params["hypernetwork"]["kernel"]

    def carried(codes, x):
        rows = []
        for i in range(b):
            partner = i + 1 if i % 2 == 0 else i - 1
            matrix = (codes[partner] @ kernel).reshape(d, d)
            rows.append(matrix @ x[i])
        return np.stack(rows)

    predicted = [carried(back, second), carried(forth, first)]
    assert_close(
        outputs.predicted,
        np.vstack([plain_mlp("projector", x) for x in predicted]),
    )
    assert_close(
        outputs.embedded,
        np.vstack([plain_mlp("projector", x) for x in (first, second)]),
    )
    for codes, rows in ((outputs.even_codes, (0, 2)), (outputs.odd_codes, (1, 3))):
        chosen = np.stack([x[i] for x in (forth, back) for i in rows])
        assert_close(codes, plain_mlp("trans_projector", chosen))


@pytest.mark.slow
def test_loss_weighs_codes_inside_the_term(rng):
    features = {
        name: jax.random.normal(rng, (4, 6)) + i for i, name in enumerate(VIEWS)
    }
    regularizer = STL(
        layer=2, hidden_dim=4, output_dim=3, trans_dim=5, trans_weight=0.3
    )
    outputs, _ = run_heads(rng, features, regularizer)
    loss, metrics = regularizer.loss(outputs, {})
    np.testing.assert_allclose(
        loss, metrics["loss_view"] + 0.3 * metrics["loss_trans"], rtol=1e-6
    )
    assert metrics["loss_trans"] > 0


def test_it_asks_for_a_paired_batch_and_refuses_an_odd_one(rng):
    assert STL.paired and STL().views(()) == ()
    with pytest.raises(ValueError, match="must be even, got 3"):
        run_heads(rng, dict.fromkeys(VIEWS, jnp.ones((3, 4))), STL())


@pytest.mark.parametrize("change", [{"temperature": 0.0}, {"trans_weight": -1.0}])
def test_bad_settings_are_refused(change):
    (name,) = change
    with pytest.raises(ValueError, match=name):
        STL(**change)
