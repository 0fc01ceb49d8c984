# No room for a checkpoint (a limit on the size of files stands for the full disk). The
# one before is kept and the run stops with rc 1, which is right; but the message stands
# among up to 84 tracebacks of Orbax.
# Right: one message, "no space for checkpoint ...; checkpoint 4 is the last".
. "$(dirname "$0")/common.sh"

TINY=$SMALL
train --config.max_steps=4 --config.checkpoint.every_steps=4 > $T/out 2>&1 || wrong "first run"
(ulimit -f 200; train --config.max_steps=12 --config.checkpoint.every_steps=4 > $T/out 2>&1); rc=$?
grep "ser_jax: error" $T/out | cut -c1-200; [ $rc -ne 0 ] || wrong "went on without saving"
[ -e $T/run/checkpoints/4/files.json ] || wrong "the checkpoint before is gone"
n=$(grep -c Traceback $T/out); [ $n -eq 0 ] || wrong "$n tracebacks around the message"
