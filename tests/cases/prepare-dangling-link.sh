# A class folder holds a link to a picture that is gone; the user allows a few bad files
# with --max_bad_frac=0.2.
# Right: the link is listed as unreadable, like any other file that cannot be read, and
# the rest is prepared.
# Why: sets made of links are usual, and that is what --max_bad_frac is for.
. "$(dirname "$0")/common.sh"

pictures "$T/pictures/cat" 10; pictures "$T/pictures/dog" 10 1
ln -s "$T/gone/picture.png" "$T/pictures/cat/zz.png"
prepare --max_bad_frac=0.2 >"$T/prepare.log" 2>&1 || wrong "one dangling link stops it, whatever --max_bad_frac says"
[ "$(info split)" = "train=20" ] || wrong "splits: $(info split)"
grep -q 'zz.png' "$T/prepare.log" "$T"/data/*.txt || wrong "the link is not listed"
right "listed, the rest prepared"
