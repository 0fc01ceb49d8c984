# A user evaluates, finds bad pictures in the data set, replaces them by as many good
# ones, prepares it anew under the same name and evaluates again.
# Right: features are read anew from the pictures that are there now.
# Why: else the second evaluation gives the numbers of the first data set. The docs
# promise that parts are computed anew "if checkpoint, data or crop have changed".
. "$(dirname "$0")/common.sh"

make() { for class in cat dog; do pictures "$T/pictures/train/$class" 20 "$1"; pictures "$T/pictures/test/$class" 10 "$2"; done; }
make 1 2
must prepare
must train --config.dataset.name=mine
must evaluate --tasks=knn
cp "$T/run/eval/2-online/features/train/features.npy" "$T/first.npy"
rm -r "$T/pictures" "$T/data/mine"
make 3 4
must prepare
evaluate --tasks=knn >"$T/evaluate.log" 2>&1 || right "refused"
cmp -s "$T/first.npy" "$T/run/eval/2-online/features/train/features.npy" && wrong "all pictures are others, the features are the same"
right "features of the new pictures"
