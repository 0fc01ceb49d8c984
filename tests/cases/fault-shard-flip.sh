# Flipped bytes in an ArrayRecord shard: ArrayRecord notices, but its RuntimeError goes
# through as a traceback, names no file and no record, and nothing is saved.
# docs/data.md: "An unreadable record stops the run and names itself." Right: one
# message that names data set and record; the last step saved.
. "$(dirname "$0")/common.sh"

TINY=$SMALL
train --config.max_steps=2 > $T/out 2>&1 || wrong "first run"; rm -rf $T/run
shard=$(find $T/data -name "*train.array_record*"); info=$(find $T/data -name dataset_info.json)
$PY - $shard <<'P'
import sys
data = bytearray(open(sys.argv[1], 'rb').read())
for at in range(20000, 200000, 9001): data[at] ^= 8
open(sys.argv[1], 'wb').write(data)
P
train --config.max_steps=90 --config.checkpoint.every_steps=1000 > $T/out 2>&1; rc=$?; grep -aE "error|Error" $T/out | tail -1 | cut -c1-200
[ $rc -ne 0 ] || wrong "not noticed"
grep -q Traceback $T/out && wrong "a traceback, rc $rc"
grep -q digits $T/out || wrong "the data set is not named"
