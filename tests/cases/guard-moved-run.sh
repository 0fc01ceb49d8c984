# A user trains, moves the run's folder and the data to another disk, evaluates and
# trains on.
# Right: both work; nothing depends on where they were.
# Why: runs are copied from clusters to other machines.
. "$(dirname "$0")/common.sh"

must train --config.max_steps=2
mv "$T/run" "$T/moved"; mv "$T/data" "$T/other"
"$PY" -m ser_jax.evaluate --checkpoint="$T/moved" --eval_data_dir="$T/other" --tasks=knn >"$T/evaluate.log" 2>&1 || wrong "evaluation fails"
"$PY" -m ser_jax.main $TINY --config.max_steps=3 --config.dataset.data_dir="$T/other" --workdir="$T/moved" >"$T/train.log" 2>&1 || wrong "training on fails"
grep -q 'Resuming after step 2' "$T/train.log" || wrong "it did not go on from step 2"
right "evaluated and trained on"
