# A user evaluates a colleague's run, in a folder that may only be read, with --results
# (and the report with --html) somewhere else.
# Right: both work.
# Why: that is what --results and --html are for.
. "$(dirname "$0")/common.sh"

must train
chmod -R a-w "$T/run"
who=
[ "$(id -u)" = 0 ] && who="setpriv --bounding-set -dac_override,-dac_read_search"
$who touch "$T/run/x" 2>/dev/null && { echo "NOT SET UP: permissions are not heeded"; exit 2; }
$who "$PY" -m ser_jax.report "$T/run" --html="$T/report.html" >"$T/report.log" 2>&1 || wrong "no report of a run that is read-only"
$who "$PY" -m ser_jax.evaluate --checkpoint="$T/run" --tasks=knn --results="$T/results" >"$T/evaluate.log" 2>&1 || wrong "no evaluation of a run that is read-only, with --results elsewhere"
[ -s "$T/results/results.json" ] || wrong "no results"
right "evaluated and reported"
