# A user evaluates a run on its test split, later another task of it on other data
# (--eval_split, --train_split or --eval_data_dir), into the same folder.
# Right: results.json tells which result is of which data, or keeps them apart, or the
# second command is refused.
# Why: otherwise numbers of unlike data stand side by side in one table, and a report
# takes them for the run's test accuracy.
. "$(dirname "$0")/common.sh"

must train
must evaluate --tasks=knn
evaluate --tasks=health "--eval_split=train[:64]" >"$T/evaluate.log" 2>&1 || right "refused"
results="$T/run/eval/2-online/results.json"
grep -q '"health"' "$results" || right "kept apart"
grep -qF 'train[:64]' "$results" && right "results say of which data they are"
wrong "results.json has knn of 'test' and health of 'train[:64]', and no word of it"
