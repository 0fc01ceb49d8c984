# A user updates the package, which since has one setting more (with a default that is
# what it did before), and evaluates a run trained with the version before.
# Right: the run is evaluated, the new setting at its default.
# Why: a run of a week of GPUs cannot be repeated for every update.
. "$(dirname "$0")/common.sh"

cat >"$T/older.py" <<'PY'
import copy, sys
from ser_jax.storage import checkpoint
from ser_jax import main
from ser_jax.config import flags as command_line
from absl import app
save = checkpoint.Checkpointer.save
def older(self, step, state, meta, *rest):
    meta = copy.deepcopy(meta)
    del meta["config"]["model"]["drop_path_rate"]
    return save(self, step, state, meta, *rest)
checkpoint.Checkpointer.save = older
main._define_flags()
app.run(main.main, flags_parser=command_line.parse_flags)
PY
must "$PY" "$T/older.py" $TINY --workdir="$T/run"
evaluate --tasks=knn >"$T/evaluate.log" 2>&1 || wrong "a run without the setting model.drop_path_rate (0 by default) is refused"
right "evaluated"
