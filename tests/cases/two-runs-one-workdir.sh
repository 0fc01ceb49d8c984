# A user starts a second run by mistake with the workdir of one that is still going (a
# job submitted twice).
# Right: the second is refused in a line while the first is alive, and the first is not
# harmed: metrics.jsonl has each of its steps once, in order.
# Why: two writers mix their curves and remove each other's checkpoints.
. "$(dirname "$0")/common.sh"

long="--config.max_steps=0 --config.total_epochs=5000.0 --config.checkpoint.every_steps=100000000"
"$PY" -m ser_jax.main $TINY $long --workdir="$T/run" >"$T/first.log" 2>&1 &
first=$!
trap 'kill -9 $first 2>/dev/null; wait $first 2>/dev/null; rm -rf "$T"' EXIT
for _ in $(seq 240); do
  [ "$(cat "$T/run/metrics.jsonl" 2>/dev/null | wc -l)" -ge 20 ] && break
  kill -0 $first 2>/dev/null || break
  sleep 0.5
done
kill -0 $first 2>/dev/null || { echo "NOT SET UP"; show; exit 2; }
timeout -k 5 60 "$PY" -m ser_jax.main $TINY $long --workdir="$T/run" >"$T/second.log" 2>&1
code=$?
kill -0 $first 2>/dev/null || wrong "the first run was ended by the second"
kill -STOP $first
verdict=$("$PY" - "$T/run/metrics.jsonl" <<'PY'
import json, sys
steps = [json.loads(line)["step"] for line in open(sys.argv[1]) if line.endswith("\n")]
if steps[:1] != [1] and steps[:1] != [0]: print("the first run's curves are gone; they begin at step", steps[:1])
elif steps != sorted(set(steps)): print("steps occur twice or out of order")
PY
)
kill -CONT $first
[ $code = 124 ] || [ $code = 137 ] && wrong "both train into one folder; $verdict"
[ -z "$verdict" ] || wrong "$verdict"
[ $code != 0 ] || wrong "the second run says it is done"
grep -q Traceback "$T/second.log" && wrong "a traceback"
right "refused"
