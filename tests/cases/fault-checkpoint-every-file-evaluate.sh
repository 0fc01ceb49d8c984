# Every file of the newest checkpoint, four kinds of damage, then evaluate.
# Right: no traceback, no wrong number. About four minutes.
. "$(dirname "$0")/common.sh"

$PY "$ROOT/tests/cases/damage.py" $T/rows.jsonl evaluate truncate,flip,delete,zero > $T/out 2> $T/err || { tail -3 $T/err; wrong "the script itself"; }
$PY - $T/rows.jsonl <<'P' || wrong "see above"
import collections, json, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
print(dict(collections.Counter(row["verdict"] for row in rows)), "of", len(rows))
bad = [row for row in rows if "TRACEBACK" in row["verdict"] or "WRONG" in row["verdict"] or "DIFFERS" in row["verdict"] or "SILENTLY" in row["verdict"] or row["verdict"].startswith("silent, False")]
for row in bad[:5]: print(row["file"], row["damage"], row["verdict"], row["message"][:80])
sys.exit(bool(bad) or not rows)
P
