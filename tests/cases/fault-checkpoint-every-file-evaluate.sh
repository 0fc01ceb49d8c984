# Every file of the newest checkpoint, four kinds of damage, then evaluate.
# Right: no traceback, no wrong number. About four minutes.
. "$(dirname "$0")/common.sh"

"$PY" tests/cases/damage.py evaluate truncate,flip,delete,zero >"$T/trials.log" 2>&1 || wrong "see its lines"
right "$(tail -n 1 "$T/trials.log")"
