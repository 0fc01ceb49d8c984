# A user trains on two devices, evaluates on one, and trains on with four.
# Right: all of it works; a checkpoint does not depend on the devices that wrote it.
# Why: one trains on a cluster and evaluates on a desk.
. "$(dirname "$0")/common.sh"

devices() { export XLA_FLAGS="--xla_force_host_platform_device_count=$1"; }
devices 2; must train --config.max_steps=2
devices 1; evaluate --tasks=knn >"$T/evaluate.log" 2>&1 || wrong "evaluation on one device fails"
devices 4; train --config.max_steps=3 >"$T/train.log" 2>&1 || wrong "training on with four devices fails"
grep -q 'Resuming after step 2' "$T/train.log" || wrong "it did not go on from step 2"
right "trained, evaluated, trained on"
