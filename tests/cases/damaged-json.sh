# A row of metrics.jsonl, or a summary, that is something else (a full disk, an editor).
# Right: it is passed over with a word, or one message names file and line.
. "$(dirname "$0")/common.sh"

report() { # WHAT FILE: reports on the run, whose FILE was changed
  "$PY" -m ser_jax.report "$T/run" >"$T/report.log" 2>&1
  code=$?
  grep -q Traceback "$T/report.log" && wrong "$1: a traceback"
  [ $code = 0 ] || grep -q "$2" "$T/report.log" || wrong "$1: the file is not named"
}
mkdir -p "$T/run"
for row in '[1, 2]' '{"loss": 1.0}'; do
  printf '{"step": 2, "wall_time": 1.0, "loss": 2.0}\n{"step": 4, "wall_time": 2.0, "loss": 1.5}\n%s\n' "$row" >"$T/run/metrics.jsonl"
  report "$row" metrics.jsonl
done
for summary in null '{"steps": 4, '; do
  echo "$summary" >"$T/run/summary.json"
  report "$summary" summary.json
done
right "4 files"
