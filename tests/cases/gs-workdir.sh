# A user of a cloud TPU gives --workdir=gs://bucket/run, as other JAX trainers take it.
# Right: one line that a workdir is a path of a file system (or it is written to the
# bucket). No folder "gs:" appears in the current directory.
# Why: results look saved in the bucket and are lost with the machine.
. "$(dirname "$0")/common.sh"

mkdir "$T/here"; cd "$T/here"
timeout -k 5 180 "$PY" -m ser_jax.main $TINY --config.max_steps=1 --workdir=gs://no-such-bucket-of-mine/run >"$T/train.log" 2>&1
code=$?
[ -e "$T/here/gs:" ] && wrong "exit status $code, and a local folder named 'gs:'"
grep -q Traceback "$T/train.log" && wrong "a traceback"
[ $code != 0 ] || wrong "said to be done, but where?"
right "refused in a line"
