# One of the class folders cannot be listed by this user (no permission).
# Right: the command stops, or warns, naming the folder.
# Why: else the class is missing from the data set, silently.
. "$(dirname "$0")/common.sh"

pictures "$T/pictures/cat" 5; pictures "$T/pictures/dog" 5 1; pictures "$T/pictures/emu" 5 2
chmod 000 "$T/pictures/dog"
who=
if [ "$(id -u)" = 0 ]; then  # root could read it
  who="setpriv --bounding-set -dac_override,-dac_read_search"
fi
$who ls "$T/pictures/dog" >/dev/null 2>&1 && { echo "NOT SET UP: permissions are not heeded"; exit 2; }
timeout -k 5 120 $who "$PY" -m ser_jax.data.prepare --folder="$T/pictures" --name=mine --data_dir="$T/data" >"$T/prepare.log" 2>&1
code=$?
grep -q Traceback "$T/prepare.log" && wrong "a traceback"
grep -q 'dog' "$T/prepare.log" && right "it is named, exit status $code"
wrong "exit status $code; splits: $(info split); classes: $(info classes); no word of dog"
