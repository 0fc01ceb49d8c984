# A record file of the data set is damaged on disk (a broken copy, a bad sector).
# Right: training stops with one line that names the data set or its file.
# Why: the docs promise that an unreadable record stops the run and names itself.
. "$(dirname "$0")/common.sh"

pictures "$T/pictures/train" 60
must prepare
must "$PY" - "$T"/data/mine/1.0.0/*train*array_record* <<'PY'
import sys
data = bytearray(open(sys.argv[1], "rb").read())
middle = len(data) // 2
for i in range(middle - 3000, middle + 3000):
    data[i] ^= 0xFF
open(sys.argv[1], "wb").write(data)
PY
timeout -k 5 150 "$PY" -m ser_jax.main $TINY --config.max_steps=12 --config.dataset.name=mine --workdir="$T/run" >"$T/train.log" 2>&1
code=$?
[ $code = 124 ] || [ $code = 137 ] && wrong "no end"
[ $code = 0 ] && wrong "trained to the end on damaged data"
grep -q Traceback "$T/train.log" && wrong "a traceback"
grep -q 'mine' "$T/train.log" || wrong "the data set is not named"
right "one line"
