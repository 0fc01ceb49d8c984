"""Reference cases of weights of other packages: what to import, what must come out."""

import dataclasses
import functools
import json
import os
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.interop.answers import Given
from ser_jax.models.outputs import norm_grid
from ser_jax.models.resnet_blocks import ResidualBlock
from ser_jax.models.vit import ViT

FOLDER = os.environ.get("SER_INTEROP_DIR")
ROLES = ("student", "teacher", "momentum", "online")


def manifest() -> list[dict]:
    if FOLDER is None:
        return []
    path = pathlib.Path(FOLDER) / "manifest.json"
    return json.loads(path.read_text())["cases"]


@dataclasses.dataclass(frozen=True)
class Case:
    """One file, read in one way, and one record."""

    name: str
    file: str
    record: str
    inputs: str
    arch: dict = dataclasses.field(hash=False)
    resample: str | None = None

    def __str__(self):
        return f"{self.name}-{self.file}-{self.record.removesuffix('.npz')}"

    @property
    def path(self) -> pathlib.Path:
        folder = pathlib.Path(FOLDER) / self.name
        has_config = (folder / "config.json").is_file()
        return folder if has_config else folder / self.file

    @property
    def role(self) -> str | None:
        found = re.search(f"_({'|'.join(ROLES)})", self.record)
        return found and found[1]

    @property
    def expected(self) -> dict[str, np.ndarray]:
        with np.load(pathlib.Path(FOLDER) / self.name / self.record) as data:
            return dict(data)

    @property
    def images(self) -> np.ndarray:
        with np.load(pathlib.Path(FOLDER) / "inputs.npz") as data:
            return data[self.inputs].astype(np.float32)

    def given(self) -> Given:
        """What the files do not say; heads, epsilon or filter as the record has it."""
        if self.arch["kind"] != "vit":
            return Given(role=self.role)
        said: dict = {"role": self.role}
        if "wrong_heads" in self.record:
            said["num_heads"] = int(self.expected["num_heads"])
        elif not self.name.startswith("hf"):
            said["num_heads"] = self.arch["num_heads"]
        if self.file.endswith(".safetensors"):
            said["cls_insert"] = self.arch["cls_insert"] or None
        if eps := re.search(r"_eps_(.*)\.npz", self.record):
            said["norm_eps"] = float(eps[1])
        elif self.name == "hf_vit_eps":
            said["norm_eps"] = self.arch["ln_eps"]
        if self.resample:
            said["positions"] = self.resample
        return Given(**said)


def cases() -> list[Case]:
    found = []
    for entry in manifest():
        if "arch" not in entry or entry.get("refuse"):
            continue
        files = [name for name in entry["files"] if not name.endswith(".json")]
        for file in files:
            for record, inputs in entry["expected"].items():
                case = Case(
                    entry["name"],
                    file,
                    record,
                    inputs or "",
                    entry["arch"],
                    entry.get("resample"),
                )
                alone = file.endswith(".safetensors") and case.role
                if inputs and not alone:
                    found.append(case)
    return found


def tolerance(expected: np.ndarray) -> float:
    return 3.1e-5 * max(1.0, float(np.abs(expected).max(initial=0)) / 14)


def plain_norm(x: np.ndarray, eps: float) -> np.ndarray:
    x = x.astype(np.float64)
    x = x - x.mean(axis=-1, keepdims=True)
    return x / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + eps)


@functools.partial(jax.jit, static_argnums=0)
def _apply(module, variables, images):
    return module.apply(
        variables,
        images,
        mutable=["intermediates"],
        capture_intermediates=lambda m, _: isinstance(m, ResidualBlock),
    )


def outputs(imported, images) -> dict[str, np.ndarray]:
    """What an encoder gives, by the names of the records; blocks are normed."""
    module, variables = imported.module, imported.variables
    if not isinstance(module, ViT):
        out, inner = jax.device_get(_apply(module, variables, images))
        found = {"cls": out.cls}
        for stage, blocks in enumerate(module.stage_sizes, start=1):
            block = inner["intermediates"][f"stage{stage}_block{blocks}"]
            found[f"stage{stage}"] = block["__call__"][0][0]
        return found
    layers = tuple(range(1, module.depth))
    norms = {
        norm_grid(k): {
            "scale": jnp.ones(module.width),
            "bias": jnp.zeros(module.width),
        }
        for k in layers
    }
    params = dict(variables["params"]) | norms
    all_layers = module.clone(grid_layers=layers, cls_layers=())
    out, _ = jax.device_get(_apply(all_layers, {"params": params}, images))
    found = {"cls": out.cls, "tokens": out.tokens}
    for k in layers:
        found[f"block{k}"] = out.grids[k].tokens
    for k in module.grid_layers:
        norm = variables["params"][norm_grid(k)]
        found[f"grid{k}"] = found[f"block{k}"] * norm["scale"] + norm["bias"]
    return found


def differences(imported, case: Case) -> dict[str, tuple[float, float]]:
    """Largest difference and tolerance, of each thing that was recorded."""
    actual, expected = outputs(imported, case.images), case.expected
    found = {}
    for name, value in actual.items():
        if name not in expected:
            continue
        wanted = expected[name].astype(np.float32)
        if name.startswith("block"):
            wanted = plain_norm(wanted, imported.module.norm_eps)
            wanted = wanted[:, wanted.shape[1] - value.shape[1] :]
        assert value.shape == wanted.shape, (name, value.shape, wanted.shape)
        worst = float(np.abs(value - wanted).max())
        found[name] = (worst, tolerance(wanted))
    assert "cls" in found
    return found
