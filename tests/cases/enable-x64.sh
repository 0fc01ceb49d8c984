# A user has JAX_ENABLE_X64=1 in the shell, for other work with JAX, and trains.
# Right: the run trains to its end (the config says float32), or says in one line that
# it cannot be done with 64 bit.
# Why: it is a documented switch of JAX; a type error from inside the step helps nobody.
. "$(dirname "$0")/common.sh"

JAX_ENABLE_X64=1 train >"$T/train.log" 2>&1
code=$?
grep -q Traceback "$T/train.log" && wrong "a traceback with JAX_ENABLE_X64=1"
[ $code = 0 ] || grep -qi 'x64\|64.bit' "$T/train.log" || wrong "failed without saying why"
[ $code != 0 ] && right "refused in a line"
JAX_ENABLE_X64=1 evaluate --tasks=knn,linear >"$T/evaluate.log" 2>&1 || wrong "evaluation fails with JAX_ENABLE_X64=1"
right "trained and evaluated"
