"""What every base costs with every add-on: the tables of docs/choosing.md.

    python benchmarks/methods.py

Each step is traced at the size of its config, nothing is compiled or run; standard
output is two markdown tables: FLOPs over those of the base alone, and millions of
parameters in the heads of the add-on. A few minutes on two cores.
"""

import pathlib
import runpy

from ser_jax.train.accounting import account
from ser_jax.train.experiment import build

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
BASES = ("moco_v3", "dino", "barlow_twins", "simclr", "byol")
ADD_ONS = ("ser", "augself", "stl", "equimod", "essl", "2plus4", "ser_2plus4")


def spent(base: str, preset: str) -> dict:
    """The account of one step of `configs/<base>.py:<preset>`."""
    config = runpy.run_path(str(CONFIGS / f"{base}.py"))["get_config"](preset)
    # Only schedules depend on the size of the data set: any will do.
    return account(build(config, 1000 * config.batch_size))


def row(base: str) -> tuple[list[str], list[str]]:
    """A base's cells in the two tables."""
    alone = spent(base, "none")
    flops = [f"{alone['flops_per_image'] / 1e9:.1f}"]
    parameters = [f"{alone['parameters']['encoder'] / 1e6:.1f}"]
    for preset in ADD_ONS:
        account_of = spent(base, preset)
        flops.append(f"{account_of['flops_per_step'] / alone['flops_per_step']:.3f}")
        parameters.append(f"{account_of['parameters']['regularizer'] / 1e6:.2f}")
    return flops, parameters


def main() -> None:
    """Prints both tables."""
    tables = [list(cells) for cells in zip(*map(row, BASES), strict=True)]
    for first, table in zip(("alone, GFLOP", "encoder, M"), tables, strict=True):
        print(f"\n| | {first} | {' | '.join(ADD_ONS)} |")
        print(f"|---|---:|{'---:|' * len(ADD_ONS)}")
        for base, cells in zip(BASES, table, strict=True):
            print(f"| `{base}` | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
