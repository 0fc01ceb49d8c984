# A class folder holds a link to the folder above it.
# Right: every picture is in the data set once, or the command stops and names the link.
# Why: else each picture is there some forty times, and classes become unlabelled,
# silently.
. "$(dirname "$0")/common.sh"

pictures "$T/pictures/cat" 5; pictures "$T/pictures/dog" 5 1
ln -s .. "$T/pictures/cat/again"
prepare >"$T/prepare.log" 2>&1
code=$?
[ $code = 124 ] || [ $code = 137 ] && wrong "no end after 120 s"
grep -q Traceback "$T/prepare.log" && wrong "a traceback"
[ $code != 0 ] && { grep -q again "$T/prepare.log" && right "refused"; wrong "stopped, but not because of the link"; }
[ "$(info split)" = "train=10" ] || wrong "10 pictures became $(info split); classes: $(info classes)"
[ "$(info classes)" = "cat dog" ] || wrong "classes: $(info classes)"
right "each once"
