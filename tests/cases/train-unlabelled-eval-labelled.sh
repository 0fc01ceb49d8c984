# A user has many pictures without labels in train/ and a few with classes in
# test/<class>/. prepare takes this (label -1 for splits without classes). Training
# starts with the k-NN probe, which is on by default.
# Right: it trains, without the probe, as for a set without labels; or one line says
# what to switch off.
# Why: training without labels is what self-supervision is for.
. "$(dirname "$0")/common.sh"

pictures "$T/pictures/train" 40
for class in cat dog; do pictures "$T/pictures/test/$class" 10 1; done
must prepare
train --config.dataset.name=mine --config.knn.every_epochs=1.0 >"$T/train.log" 2>&1
code=$?
grep -q Traceback "$T/train.log" && wrong "a traceback"
[ $code = 0 ] || { grep -qi 'label' "$T/train.log" && right "refused in a line"; wrong "exit status $code"; }
grep -q '"knn_accuracy": [0-9]' "$T/run/metrics.jsonl" && wrong "a k-NN accuracy without labels: $(grep -o '"knn_accuracy": [0-9.]*' "$T/run/metrics.jsonl" | head -1)"
right "trained"
