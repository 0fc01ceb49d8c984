# A user calls ser_jax.train.train from a script of their own (no absl.app), with
# loader.num_workers=1 in the config.
# Right: it trains, or one line says what the script has to do first.
# Why: train is documented as a function; that the loader's workers want absl's flags
# parsed is known to readers of the loader only.
. "$(dirname "$0")/common.sh"

cat >"$T/mine.py" <<'PY'
import sys
from small import config_in
from ser_jax import train

def main(scratch):
    try:
        config = config_in(scratch, **{"loader.num_workers": 1})
        print(train(config, f"{scratch}/run")["steps"])
    except (ValueError, OSError) as error:  # what train says it raises
        print("refused:", error)

if __name__ == "__main__":
    main(sys.argv[1])
PY
timeout -k 5 180 "$PY" "$T/mine.py" "$T" >"$T/mine.log" 2>&1
code=$?
[ $code = 124 ] || [ $code = 137 ] && wrong "no end"
[ $code = 0 ] || wrong "train fails: $(tail -n 1 "$T/mine.log" | cut -c1-120)"
right "trained, or explained"
