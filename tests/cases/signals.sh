# A run is asked to stop (by a person, a scheduler, a terminal that is gone) or killed.
# Right: the step is saved, status 130 or 75, no traceback; no loader worker is left,
# after SIGKILL neither.
. "$(dirname "$0")/common.sh"

TINY="$SMALL --config.max_steps=1900 --config.checkpoint.every_steps=1000"
cat >"$T/start.py" <<'PY'
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and this, nohup
os.execv(sys.argv[1], sys.argv[1:])
PY
for asked in "INT 0 130" "TERM 2 75" "HUP 2 75" "USR1 2 75" "KILL 2 137"; do
  read -r signal workers status <<<"$asked"
  rm -rf "$T/run"
  "$PY" "$T/start.py" "$PY" -m ser_jax.main $TINY --workdir="$T/run" \
    --config.loader.num_workers="$workers" >"$T/train.log" 2>&1 &
  pid=$!
  for _ in $(seq 600); do
    grep -q '^step ' "$T/train.log" && break
    kill -0 $pid 2>/dev/null || wrong "$signal: did not start"
    sleep .1
  done
  sleep 1
  children=$(pgrep -P $pid | tr '\n' ' ')
  kill -"$signal" $pid
  for _ in $(seq 400); do kill -0 $pid 2>/dev/null || break; sleep .1; done
  kill -0 $pid 2>/dev/null && { kill -9 $children $pid 2>/dev/null; wrong "$signal: still running after 40 s"; }
  wait $pid 2>/dev/null
  code=$?
  [ $code = "$status" ] || wrong "$signal: status $code, expected $status"
  sleep 5
  for child in $children; do
    kill -0 "$child" 2>/dev/null && { kill -9 $children 2>/dev/null; wrong "$signal: a worker is left"; }
  done
  grep -q Traceback "$T/train.log" && wrong "$signal: a traceback"
  [ "$signal" = KILL ] || ls "$T/run/checkpoints" | grep -q '^[0-9]*$' || wrong "$signal: nothing saved"
done
right "5 signals"
