# A summary.json that holds null stops a sweep.
# Right: the run is done again, or one message that names the file.
. "$(dirname "$0")/common.sh"

TINY=$SMALL
S="$PY -m ser_jax.sweep ${TINY} --config.max_steps=4 --seeds=0 --metric=loss --workdir=$T/sweep"
$S > $T/out 2>&1 || wrong "first sweep: $(tail -1 $T/out)"
for f in $(find $T/sweep -name summary.json); do echo null > $f; done
$S > $T/out 2>&1; rc=$?; tail -1 $T/out
grep -q Traceback $T/out && wrong "a traceback"
[ $rc -eq 0 ] || grep -q summary.json $T/out || wrong "the file is not named"
