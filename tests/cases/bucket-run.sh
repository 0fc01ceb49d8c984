# A run in a bucket: eight SIGKILLs at random moments, most of them while it saves; the end
# is bit for bit that of an undisturbed run on a disk; then evaluated and reported on.
#   bash bucket-run.sh                                        the tests' own server
#   BUCKET=gs://MINE/scratch bash bucket-run.sh               Google's
#   SERVER=http://127.0.0.1:9000 bash bucket-run.sh           their testbench:
#     git clone https://github.com/googleapis/storage-testbench && cd storage-testbench
#     python -m venv .venv && . .venv/bin/activate && pip install .
#     gunicorn --bind=127.0.0.1:9000 --threads=16 'testbench:run()'
. "$(dirname "$0")/common.sh"

if [ -z "${BUCKET:-}" ]; then
  if [ -z "${SERVER:-}" ]; then
    "$PY" tests/helpers/bucket.py >"$T/url" &
    trap 'kill '$!' 2>/dev/null; rm -rf "$T"' EXIT
    for i in $(seq 100); do [ -s "$T/url" ] && break; sleep .1; done
    SERVER=$(cat "$T/url")
  fi
  export STORAGE_EMULATOR_HOST=$SERVER TENSORSTORE_GCS_HTTP_URL=$SERVER
  export CLOUD_STORAGE_EMULATOR_ENDPOINT=$SERVER
  export GOOGLE_AUTH_TOKEN_FOR_TESTING=x FSSPEC_GCS_TOKEN=anon
  BUCKET=gs://ser-jax-$$/scratch
  curl -sf -X POST -H 'Content-Type: application/json' -d "{\"name\": \"ser-jax-$$\"}" \
    "$SERVER/storage/v1/b?project=test" >"$T/bucket.log" || wrong "no bucket made"
fi
A="--config.max_steps=24 --config.checkpoint.every_steps=2"
"$PY" -m ser_jax.main $SMALL $A --workdir="$T/here" >"$T/here.log" 2>&1 ||
  wrong "undisturbed run on a disk"
in_bucket="$A --config.dataset.data_dir=$BUCKET/data --workdir=$BUCKET/run"
for k in $(seq "${KILLS:-8}"); do
  "$PY" -m ser_jax.main $SMALL $in_bucket >"$T/run.log" 2>&1 & p=$!
  for i in $(seq 600); do grep -q Compiled "$T/run.log" && break; kill -0 $p 2>/dev/null || break; sleep .1; done
  sleep $((RANDOM % 3)).$((RANDOM % 10)); kill -9 $p 2>/dev/null; wait $p 2>/dev/null
  grep -q "Traceback\|ser_jax: error" "$T/run.log" && wrong "restart $k"
done
"$PY" -m ser_jax.main $SMALL $in_bucket >"$T/run.log" 2>&1 || wrong "last restart"
"$PY" - "$T/here" "$BUCKET/run" 2>"$T/compare.log" <<'P' || wrong "the end differs"
import sys, jax, numpy as np, orbax.checkpoint as ocp
from ser_jax.storage.files import as_path
x, y = (jax.tree.leaves(ocp.PyTreeCheckpointHandler().restore(as_path(w) / "checkpoints/24/state")) for w in sys.argv[1:])
sys.exit(not all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in zip(x, y, strict=True)))
P
"$PY" -m ser_jax.evaluate --checkpoint="$BUCKET/run" --tasks=knn,linear --scratch="$T/scratch" \
  >"$T/evaluate.log" 2>&1 || wrong "evaluate"
"$PY" -m ser_jax.report "$BUCKET/run" >"$T/report.log" 2>&1 || wrong "report"
"$PY" -m ser_jax.data.stage --source="$BUCKET/data" --data_dir="$T/staged" \
  >"$T/stage.log" 2>&1 || wrong "stage"
right "killed $k times, $(grep -c . "$T/evaluate.log") lines of results in $BUCKET"
