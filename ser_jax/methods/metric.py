"""What is logged of a step."""

import jax

Metrics = dict[str, jax.Array]  # Name of a metric -> its value, `[]`.
