# A user's class folders have one picture beside them: IMAGES/overview.png.
# Right: the classes are kept, or the command stops or warns, naming the picture.
# Why: else one stray file silently makes the whole data set unlabelled, which is
# noticed after days of training, when k-NN and linear evaluation say there are no
# labels.
. "$(dirname "$0")/common.sh"

pictures "$T/pictures/cat" 6; pictures "$T/pictures/dog" 6 1
cp "$T/pictures/cat/0.png" "$T/pictures/overview.png"
prepare >"$T/prepare.log" 2>&1 || right "refused"
[ "$(info classes)" = "cat dog" ] && right "classes kept"
grep -qi 'overview\|label\|class' "$T/prepare.log" && right "warned"
wrong "classes: $(info classes), and no word of it"
