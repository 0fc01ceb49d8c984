"""Says what `python -m ser_jax.compare` is called now."""

import sys

if __name__ == "__main__":
    sys.exit(
        "ser_jax: error: ser_jax.compare is "
        "`python -m ser_jax.report A B --markdown=DIR` now."
    )
