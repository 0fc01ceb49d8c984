# A picture folder holds a named pipe (or another thing that is no file) called *.jpg.
# Right: it is listed as unreadable, or skipped with a word; the command ends.
# Why: reading it waits for ever, without a message.
. "$(dirname "$0")/common.sh"

pictures "$T/pictures/cat" 10; pictures "$T/pictures/dog" 10 1
mkfifo "$T/pictures/cat/pipe.jpg"
timeout -k 5 40 "$PY" -m ser_jax.data.prepare --folder="$T/pictures" --name=mine --data_dir="$T/data" --max_bad_frac=0.2 >"$T/prepare.log" 2>&1
code=$?
[ $code = 124 ] || [ $code = 137 ] && wrong "still waiting after 40 s"
grep -q Traceback "$T/prepare.log" && wrong "a traceback"
grep -q 'pipe.jpg' "$T/prepare.log" || wrong "no word of pipe.jpg"
right "ended, exit status $code"
