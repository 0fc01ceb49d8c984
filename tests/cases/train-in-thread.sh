# A user calls ser_jax.train.train from a thread: a notebook server, a GUI, a job queue.
# Right: it trains. (SIGTERM need not be listened to there.)
# Why: Python allows signal handlers in the main thread only; that is no reason not to
# train.
. "$(dirname "$0")/common.sh"

cat >"$T/mine.py" <<'PY'
import concurrent.futures, importlib.util, sys
from absl import flags
from ser_jax import train
root, scratch = sys.argv[1:]
flags.FLAGS(["mine"])
spec = importlib.util.spec_from_file_location("digits", f"{root}/configs/digits.py")
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
config = module.get_config("moco_v3")
config.update_from_flattened_dict({
    "max_steps": 2, "batch_size": 16, "model.width": 16, "model.depth": 1,
    "model.num_heads": 1, "augment.image_size": 8, "knn.every_epochs": 0.0,
    "objective.hidden_dim": 16, "objective.output_dim": 8, "dataset.data_dir": f"{scratch}/data",
})
with concurrent.futures.ThreadPoolExecutor(1) as pool:
    print(pool.submit(train, config, f"{scratch}/run").result()["steps"])
PY
"$PY" "$T/mine.py" "$ROOT" "$T" >"$T/mine.log" 2>&1 || wrong "train fails in a thread"
right "trained in a thread"
