# The run ends at a record that cannot be read: the steps since the last checkpoint are
# lost, here up to 1000.
# Right: the last good step is saved before the run ends (as for SIGTERM).
. "$(dirname "$0")/common.sh"

TINY=$SMALL
train --config.max_steps=2 > $T/out 2>&1 || wrong "first run"; rm -rf $T/run
shard=$(find $T/data -name "*train.array_record*"); info=$(find $T/data -name dataset_info.json)
train --config.max_steps=30 --config.checkpoint.every_steps=1000 > $T/out 2>&1 || wrong 'sound part'
[ -e $T/run/checkpoints/30 ] || wrong 'no step 30'
$PY - $shard <<'P'
import sys
data = bytearray(open(sys.argv[1], 'rb').read())
data[70445] ^= 8  # one record
open(sys.argv[1], 'wb').write(data)
P
train --config.max_steps=186 --config.checkpoint.every_steps=1000 > $T/out 2>&1 && wrong 'not noticed'
done=$(grep -o '"step": [0-9]*' $T/run/metrics.jsonl | tail -1 | tr -dc 0-9); saved=$(ls $T/run/checkpoints | grep -x '[0-9]*' | sort -n | tail -1)
echo "steps done $done, saved $saved"; [ $done -le 34 ] || [ $saved -ge $((done - 3)) ] || wrong "the steps since $saved are lost"
