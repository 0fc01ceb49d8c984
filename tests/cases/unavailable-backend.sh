# A user's shell has JAX_PLATFORMS=cuda, from the GPU machine, where there is no GPU.
# Right: one line that this backend is not there (of training, evaluation and
# benchmark).
# Why: the most usual mistake of set-up; the message drowns in a traceback.
. "$(dirname "$0")/common.sh"

JAX_PLATFORMS=cuda timeout -k 5 120 "$PY" -m ser_jax.main --config="$ROOT/configs/digits.py:moco_v3" --config.max_steps=1 \
  --workdir="$T/run" --config.dataset.data_dir="$T/data" >"$T/train.log" 2>&1
code=$?
[ $code = 0 ] && { echo "NOT SET UP: there is CUDA here"; exit 2; }
grep -q Traceback "$T/train.log" && wrong "a traceback"
grep -qi 'cuda' "$T/train.log" || wrong "no word of cuda"
right "one line"
