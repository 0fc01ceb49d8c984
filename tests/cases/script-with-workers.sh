# A user calls ser_jax.train.train from a script of their own (no absl.app), with
# loader.num_workers=1 in the config.
# Right: it trains, or one line says what the script has to do first.
# Why: train is documented as a function; that the loader's workers want absl's flags
# parsed is known to readers of the loader only.
. "$(dirname "$0")/common.sh"

cat >"$T/mine.py" <<'PY'
import importlib.util, sys
from ser_jax import train

def main():
    root, scratch = sys.argv[1:]
    spec = importlib.util.spec_from_file_location("digits", f"{root}/configs/digits.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config("moco_v3")
    config.update_from_flattened_dict({
        "max_steps": 2, "batch_size": 16, "model.width": 16, "model.depth": 1,
        "model.num_heads": 1, "augment.image_size": 8, "knn.every_epochs": 0.0,
        "objective.hidden_dim": 16, "objective.output_dim": 8,
        "dataset.data_dir": f"{scratch}/data", "loader.num_workers": 1,
    })
    try:
        print(train(config, f"{scratch}/run")["steps"])
    except (ValueError, OSError) as error:  # what train says it raises
        print("refused:", error)

if __name__ == "__main__":
    main()
PY
timeout -k 5 180 "$PY" "$T/mine.py" "$ROOT" "$T" >"$T/mine.log" 2>&1
code=$?
[ $code = 124 ] || [ $code = 137 ] && wrong "no end"
[ $code = 0 ] || wrong "train fails: $(tail -n 1 "$T/mine.log" | cut -c1-120)"
right "trained, or explained"
