"""Command line: `python -m ser_jax.interop FILE`: what a file of weights is.

Its layout, sizes, heads and positions, what is guessed and what would be ignored.
Nothing is written, and nothing in the file is run.
"""

import sys

from absl import app, flags

from ser_jax.interop.flags import define_given_flags, given_from_flags
from ser_jax.interop.imported import import_weights


def main(argv: list[str]) -> None:
    """Describes the file that the command line names."""
    if len(argv) != 2:
        sys.exit(
            "ser_jax: error: expected one file or folder of weights: "
            "python -m ser_jax.interop FILE"
        )
    try:
        print(import_weights(argv[1], given_from_flags()).describe())
    except (ValueError, OSError) as error:
        sys.exit(f"ser_jax: error: {error}")


def _parse(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        sys.exit(f"ser_jax: error: {error}")


if __name__ == "__main__":
    define_given_flags()
    app.run(main, flags_parser=_parse)
