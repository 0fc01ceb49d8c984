# The disk (here: the file size limit) is full while a data set is prepared.
# Right: one line that says so; no data set, and no staging folder is left.
# Why: preparing doubles the space that pictures take; running out of it is usual.
. "$(dirname "$0")/common.sh"

pictures "$T/pictures/cat" 400; pictures "$T/pictures/dog" 400 1
(ulimit -f 100; prepare) >"$T/prepare.log" 2>&1
code=$?
[ $code = 0 ] && wrong "said to be done"
grep -q Traceback "$T/prepare.log" && wrong "a traceback, exit status $code"
[ -d "$T/data/mine/1.0.0" ] && wrong "a data set was left"
[ -n "$(find "$T/data" -mindepth 1 -name '.mine*')" ] && wrong "a staging folder was left"
grep -qi 'large\|limit\|space' "$T/prepare.log" || wrong "no reason given, exit status $code"
right "one line, nothing left"
