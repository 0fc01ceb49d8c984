# What the cases share. Exit status of a case: 0 right, 1 wrong, 2 could not be set up.
set -u
ROOT=$(cd "$(dirname "$0")/../.." && pwd)
cd "$ROOT"
PY=$(command -v "${PY:-python}")
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu} JAX_DISABLE_MOST_OPTIMIZATIONS=1
T=$(mktemp -d)
trap 'chmod -R u+rwX "$T" 2>/dev/null; rm -rf "$T"' EXIT
show() { for log in "$T"/*.log; do [ -f "$log" ] && { echo "--- ${log##*/}"; tail -n 12 "$log"; }; done; }
wrong() { echo "WRONG: $*"; show; exit 1; }
right() { echo "RIGHT: $*"; exit 0; }
must() { "$@" >"$T/setup.log" 2>&1 || { echo "NOT SET UP: $*"; show; exit 2; }; }
# A run of two steps of a network of one narrow block.
TINY="--config=$ROOT/configs/digits.py:moco_v3 --config.max_steps=2 --config.batch_size=16
  --config.model.width=16 --config.model.depth=1 --config.model.num_heads=1
  --config.objective.hidden_dim=16 --config.objective.output_dim=8
  --config.augment.image_size=8 --config.knn.every_epochs=0
  --config.dataset.data_dir=$T/data"
# A run on digits of one block, for more steps.
SMALL="--config=$ROOT/configs/digits.py --config.dataset.data_dir=$T/data
  --config.batch_size=16 --config.model.depth=1 --config.model.width=32
  --config.model.num_heads=2 --config.augment.image_size=16 --config.loader.num_threads=1
  --config.knn.every_epochs=0.0 --config.log_every_steps=2"
train() { "$PY" -m ser_jax.main $TINY --workdir="$T/run" "$@"; }
evaluate() { "$PY" -m ser_jax.evaluate --checkpoint="$T/run" "$@"; }
# pictures FOLDER NUMBER [SEED]: small pictures of noise.
pictures() { "$PY" - "$@" <<'PY'
import pathlib, sys
import numpy as np
from PIL import Image
folder, number = pathlib.Path(sys.argv[1]), int(sys.argv[2])
rng = np.random.default_rng(int(sys.argv[3]) if len(sys.argv) > 3 else 0)
folder.mkdir(parents=True, exist_ok=True)
for i in range(number):
    Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8)).save(folder / f"{i}.png")
PY
}
prepare() { timeout -k 5 120 "$PY" -m ser_jax.data.prepare --folder="$T/pictures" --name=mine --data_dir="$T/data" "$@"; }
# info split|classes: what has been prepared.
info() { "$PY" - "$T/data" "$1" <<'PY'
import sys
import tensorflow_datasets as tfds
info = tfds.builder_from_directory(f"{sys.argv[1]}/mine/1.0.0").info
if sys.argv[2] == "classes":
    print(*(info.features["label"].names if "label" in info.features else ["none"]))
else:
    print(*sorted(f"{k}={s.num_examples}" for k, s in info.splits.items()))
PY
}
# A module of the same run for scripts of users: `from small import config_in`.
cat >"$T/small.py" <<'PY'
import runpy
def config_in(scratch, **more):
    config = runpy.run_path("configs/digits.py")["get_config"]("moco_v3")
    config.update_from_flattened_dict({
        "max_steps": 2, "batch_size": 16, "model.width": 16, "model.depth": 1,
        "model.num_heads": 1, "augment.image_size": 8, "knn.every_epochs": 0.0,
        "objective.hidden_dim": 16, "objective.output_dim": 8,
        "dataset.data_dir": f"{scratch}/data", **more,
    })
    return config
PY
