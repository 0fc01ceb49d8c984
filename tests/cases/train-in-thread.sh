# A user calls ser_jax.train.train from a thread: a notebook server, a GUI, a job queue.
# Right: it trains. (SIGTERM need not be listened to there.)
# Why: Python allows signal handlers in the main thread only; that is no reason not to
# train.
. "$(dirname "$0")/common.sh"

cat >"$T/mine.py" <<'PY'
import concurrent.futures, sys
from absl import flags
from small import config_in
from ser_jax import train
flags.FLAGS(["mine"])
scratch = sys.argv[1]
with concurrent.futures.ThreadPoolExecutor(1) as pool:
    print(pool.submit(train, config_in(scratch), f"{scratch}/run").result()["steps"])
PY
"$PY" "$T/mine.py" "$T" >"$T/mine.log" 2>&1 || wrong "train fails in a thread"
right "trained in a thread"
