# A user evaluates on a set of two classes (defect or not), with everything that needs
# only labels.
# Right: top-1 is given; top-5 is 1 or left out.
# Why: many sets have fewer than five classes.
. "$(dirname "$0")/common.sh"

for class in bad good; do pictures "$T/pictures/train/$class" 60 "$RANDOM"; pictures "$T/pictures/test/$class" 8 "$RANDOM"; done
must prepare
must train --config.dataset.name=mine --config.knn.every_epochs=1.0 --config.max_steps=6
evaluate --tasks=knn,linear,logreg,health >"$T/evaluate.log" 2>&1 || wrong "evaluation fails with two classes"
right "evaluated"
