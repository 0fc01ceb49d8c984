# A user's learning rate is far too high; the loss is not finite.
# Right: one line that says so, at which step, and what to change.
# Why: it must not go on for days, nor end in a traceback.
. "$(dirname "$0")/common.sh"

train --config.max_steps=60 --config.optimizer.base_lr=1e30 --config.optimizer.warmup_epochs=0.0 >"$T/train.log" 2>&1
code=$?
[ $code = 0 ] && wrong "trained to the end"
grep -q Traceback "$T/train.log" && wrong "a traceback"
grep -qi 'diverged' "$T/train.log" || wrong "not said"
right "one line"
