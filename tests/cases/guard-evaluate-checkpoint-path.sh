# A user gives --checkpoint the folder of a checkpoint, RUN/checkpoints/2, or
# RUN/checkpoints (it is called "checkpoint"), or a folder that is not there.
# Right: evaluated, or one line that says that the run's workdir is wanted.
# Why: the flag's name invites it.
. "$(dirname "$0")/common.sh"

must train
for path in "$T/run/checkpoints/2" "$T/run/checkpoints" "$T/none"; do
  "$PY" -m ser_jax.evaluate --checkpoint="$path" --tasks=knn >"$T/evaluate.log" 2>&1 && continue
  grep -q Traceback "$T/evaluate.log" && wrong "a traceback for --checkpoint=${path#$T/}"
  grep -qi 'checkpoint' "$T/evaluate.log" || wrong "no reason for --checkpoint=${path#$T/}"
done
right "evaluated, or a line"
