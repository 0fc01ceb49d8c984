# A user's own program has absl flags --config, --workdir, --checkpoint and --step, as
# most JAX programs have, and imports functions of this package (train, evaluate,
# report).
# Right: the import works, and the program's own flags are what they were.
# Why: a module whose functions are documented can be imported; flags belong to
# programs.
. "$(dirname "$0")/common.sh"

cat >"$T/mine.py" <<'PY'
import sys
from absl import flags
from ml_collections import config_flags

config_flags.DEFINE_config_file("config")
for name in ("workdir", "checkpoint", "html"):
    flags.DEFINE_string(name, f"my {name}", "Mine.")
flags.DEFINE_integer("step", 7, "Mine.")

from ser_jax import train
from ser_jax import open_run
from ser_jax import evaluate
from ser_jax import report

flags.FLAGS(["mine"])
assert flags.FLAGS.step == 7 and flags.FLAGS.workdir == "my workdir"
PY
"$PY" "$T/mine.py" >"$T/mine.log" 2>&1 || wrong "functions cannot be imported beside flags of the same names"
right "imported"
