#!/usr/bin/env bash
# Inputs and faults from users' reports, each a command line as they typed it; before a
# release. About half an hour. Each kind is also a test of the suite, in its process.
#   bash tests/cases/run_all.sh [NAME...]
cd "$(dirname "$0")"
names=("$@")
[ ${#names[@]} = 0 ] && names=($(ls ./*.sh | grep -v -e common -e run_all))
wrong=0
for name in "${names[@]}"; do
  name=$(basename "$name" .sh)
  started=$SECONDS
  said=$(bash "$name.sh" 2>&1)
  status=$?
  word=right
  [ $status = 0 ] || { word=WRONG; wrong=$((wrong + 1)); }
  printf '%s  %s, status %d, %d s: %s\n' "$word" "$name" $status $((SECONDS - started)) \
    "$(tail -n 1 <<<"$said" | cut -c1-120)"
done
echo "${#names[@]} cases, $wrong wrong."
[ $wrong = 0 ]
