# A user prepares COCO's folder as it is unpacked: train2017/*.jpg, val2017/*.jpg.
# Right: two splits without classes; or one unlabelled split; or the command stops or
# warns. "train2017" and "val2017" are no classes.
# Why: k-NN and linear evaluation then measure how well train is told from val, and the
# validation pictures are trained on.
. "$(dirname "$0")/common.sh"

pictures "$T/pictures/train2017" 10; pictures "$T/pictures/val2017" 6 1
prepare >"$T/prepare.log" 2>&1 || right "refused"
[ "$(info classes)" = "none" ] && right "no classes; splits: $(info split)"
grep -v '^/' "$T/prepare.log" | grep -qi 'class\|label\|val2017' && right "warned"
wrong "classes: $(info classes); splits: $(info split)"
