# The update makes weights infinite while loss and gradient of that step were finite.
# Right: a state that is not finite is not saved (or is not called good).
. "$(dirname "$0")/common.sh"

TINY=$SMALL
train --config.max_steps=20 --config.checkpoint.every_steps=1 --config.optimizer.base_lr=1e42 --config.optimizer.warmup_epochs=0.0 > $T/out 2>&1 && wrong "did not stop"
grep "ser_jax: error" $T/out | cut -c1-250; grep -q Traceback $T/out && wrong "a traceback"
$PY - $T/run <<'P' 2> /dev/null || wrong "a checkpoint with weights that are not finite was saved"
import pathlib, sys, jax, numpy as np, orbax.checkpoint as ocp
for path in (pathlib.Path(sys.argv[1]) / "checkpoints").glob("[0-9]*"):
    for leaf in jax.tree.leaves(ocp.PyTreeCheckpointHandler().restore(path / "state")):
        if not np.isfinite(np.asarray(leaf, np.float64)).all(): sys.exit(1)
P
