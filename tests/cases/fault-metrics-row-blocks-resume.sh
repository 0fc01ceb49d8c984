# An odd row in metrics.jsonl ends the resumption of a run with sound checkpoints.
# Right: it goes on, or one message that names file and line.
. "$(dirname "$0")/common.sh"

TINY=$SMALL
train --config.max_steps=4 --config.checkpoint.every_steps=4 > $T/out 2>&1 || wrong "first run"
echo "{\"loss\": 1.0}" >> $T/run/metrics.jsonl
train --config.max_steps=8 --config.checkpoint.every_steps=4 > $T/out 2>&1; rc=$?; tail -1 $T/out
grep -q Traceback $T/out && wrong "a traceback"
[ $rc -eq 0 ] || grep -q metrics.jsonl $T/out || wrong "the file is not named"
