# Every file of the newest checkpoint, flipped or gone, then resume.
# Right: the older step with a warning (or, of two files without content of their own,
# on), and an end bit for bit as undisturbed. About five minutes.
. "$(dirname "$0")/common.sh"

"$PY" tests/cases/damage.py resume flip,delete >"$T/trials.log" 2>&1 || wrong "see its lines"
right "$(tail -n 1 "$T/trials.log")"
