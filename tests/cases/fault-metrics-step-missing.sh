# A row without step.
# Right: the row is passed over with a word, or one message that names file and line; no
# traceback.
. "$(dirname "$0")/common.sh"

mkdir -p $T/run/eval/8-online
cat > $T/run/metrics.jsonl <<'P'
{"step": 2, "wall_time": 1.0, "loss": 2.0}
{"step": 4, "wall_time": 2.0, "loss": 1.5}
P
echo '{"loss": 1.0}' >> $T/run/metrics.jsonl
$PY -m ser_jax.report $T/run > $T/out 2>&1; rc=$?
tail -2 $T/out
grep -q Traceback $T/out && wrong "a traceback"
[ $rc -eq 0 ] || grep -q metrics.jsonl $T/out || wrong "the file is not named"
exit 0
