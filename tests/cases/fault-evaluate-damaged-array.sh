# The array files of the newest checkpoint are gone, or cut, or zeros.
# Right: one message: checkpoint PATH is damaged.
. "$(dirname "$0")/common.sh"

TINY=$SMALL
train --config.max_steps=4 --config.checkpoint.every_steps=4 > $T/out 2>&1 || wrong "first run"
find $T/run/checkpoints/4/state/ocdbt.process_0/d -type f -size +8k -delete  # the arrays, not their index
$PY -m ser_jax.evaluate --checkpoint=$T/run --tasks=knn > $T/out 2>&1; rc=$?; tail -2 $T/out | cut -c1-200
[ $rc -ne 0 ] || wrong "damage not noticed"
grep -q Traceback $T/out && wrong "$(grep -c Traceback $T/out) tracebacks instead of one message"
grep -qi damaged $T/out || wrong "does not say that the checkpoint is damaged"
