# Every file of the newest checkpoint, flipped or gone, then resume.
# Right: the older step with a warning (or, of two files without content of their own,
# on), and an end bit for bit as undisturbed. About five minutes.
. "$(dirname "$0")/common.sh"

$PY "$ROOT/tests/cases/damage.py" $T/rows.jsonl resume flip,delete > $T/out 2> $T/err || { tail -3 $T/err; wrong "the script itself"; }
$PY - $T/rows.jsonl <<'P' || wrong "see above"
import collections, json, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
print(dict(collections.Counter(row["verdict"] for row in rows)), "of", len(rows))
bad = [row for row in rows if "TRACEBACK" in row["verdict"] or "WRONG" in row["verdict"] or "DIFFERS" in row["verdict"] or "SILENTLY" in row["verdict"] or row["verdict"].startswith("silent, False")]
for row in bad[:5]: print(row["file"], row["damage"], row["verdict"], row["message"][:80])
sys.exit(bool(bad) or not rows)
P
