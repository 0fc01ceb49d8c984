# Twelve SIGKILLs at random moments; the end is bit for bit that of an undisturbed run.
# A guard.
. "$(dirname "$0")/common.sh"

TINY=$SMALL
A="--config.max_steps=120 --config.checkpoint.every_steps=4"
$PY -m ser_jax.main $TINY --workdir=$T/ref $A > $T/ref.txt 2>&1 || wrong "undisturbed run"
for k in $(seq 12); do
  $PY -m ser_jax.main $TINY --workdir=$T/run $A > $T/k.txt 2>&1 & p=$!
  for i in $(seq 300); do grep -q Compiled $T/k.txt && break; kill -0 $p 2>/dev/null || break; sleep .1; done
  sleep 0.$((RANDOM % 10)); kill -9 $p 2>/dev/null; wait $p 2>/dev/null
  grep -q "Traceback\|ser_jax: error" $T/k.txt && wrong "restart $k: $(tail -1 $T/k.txt)"
done
train $A > $T/k.txt 2>&1 || wrong "last: $(tail -1 $T/k.txt)"
$PY - $T 2> /dev/null <<'P' || wrong "the end differs"
import pathlib, sys, jax, numpy as np, orbax.checkpoint as ocp
x, y = (jax.tree.leaves(ocp.PyTreeCheckpointHandler().restore(pathlib.Path(sys.argv[1]) / w / "checkpoints/120/state")) for w in ("ref", "run"))
sys.exit(not all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in zip(x, y, strict=True)))
P
