# SIGTERM with two loader workers: the step is saved, rc 0, no worker left. A guard.
. "$(dirname "$0")/common.sh"

TINY="--config=configs/digits.py --config.dataset.data_dir=$T/data --config.batch_size=16 --config.model.depth=1 --config.model.width=32 --config.model.num_heads=2 --config.augment.image_size=16 --config.loader.num_threads=1 --config.knn.every_epochs=0.0 --config.log_every_steps=2"
train() { $PY -m ser_jax.main $TINY --workdir=$T/run "$@"; }
cat > $T/start.py <<'P'
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler); os.execv(sys.argv[1], sys.argv[1:])
P
$PY $T/start.py $PY -m ser_jax.main $TINY --workdir=$T/run --config.max_steps=1900 --config.checkpoint.every_steps=1000 --config.loader.num_workers=2 > $T/out 2>&1 & p=$!
for i in $(seq 600); do grep -q '^step ' $T/out && break; kill -0 $p 2>/dev/null || wrong "did not start: $(tail -1 $T/out)"; sleep .1; done; sleep 1
kids=$(pgrep -P $p | tr '\n' ' '); worker=$(for c in $kids; do tr '\0' ' ' < /proc/$c/cmdline | grep -q spawn_main && echo $c; done | head -1)
kill -TERM $p
for i in $(seq 400); do kill -0 $p 2>/dev/null || break; sleep .1; done
kill -0 $p 2>/dev/null && { for c in $kids; do kill -9 $c 2>/dev/null; done; kill -9 $p; wrong "still running after 40 s"; }
wait $p; rc=$?; sleep 5; left=""; for c in $kids; do kill -0 $c 2>/dev/null && { left="$left $c"; kill -9 $c; }; done
[ -z "$left" ] || wrong "workers left over 5 s later:$left"
grep -q Traceback $T/out && wrong "a traceback, rc $rc"
saved=$(ls $T/run/checkpoints | grep -c "^[0-9]*$"); [ $saved -gt 0 ] || wrong "rc $rc and nothing saved"; exit 0
