# A user's folders have blanks and brackets in their names: "my data [v2]".
# Right: data is prepared, trained on and evaluated there as anywhere; or such a workdir
# is refused in a line before any work.
# Why: such names are usual on desktops. A run that says it is done must have left a
# checkpoint that can be read, there and after the folder was renamed.
. "$(dirname "$0")/common.sh"

odd="$T/my data [v2]"; mkdir "$odd"
for class in cat dog; do pictures "$odd/pictures/train/$class" 20; pictures "$odd/pictures/test/$class" 10 1; done
"$PY" -m ser_jax.data.prepare --folder="$odd/pictures" --name=mine --data_dir="$odd/data" >"$T/prepare.log" 2>&1 || wrong "prepare fails"
"$PY" -m ser_jax.main $TINY --config.dataset.name=mine --config.dataset.data_dir="$odd/data" --workdir="$odd/run" >"$T/train.log" 2>&1 ||
  { grep -q Traceback "$T/train.log" || [ -d "$odd/run/checkpoints" ] || right "refused in a line"; wrong "training fails"; }
"$PY" -m ser_jax.evaluate --checkpoint="$odd/run" --tasks=knn >"$T/evaluate.log" 2>&1 || wrong "evaluation fails"
"$PY" -m ser_jax.report "$odd/run" >"$T/report.log" 2>&1 || wrong "no report"
right "done"
