# A user trains in a container, as a user without a home that can be written to, with
# --workdir and data_dir elsewhere.
# Right: it trains; or, where a file in the home is needed, one line says so.
# Why: usual on clusters and in containers (docker run --user).
. "$(dirname "$0")/common.sh"

unset HOME
who="setpriv --reuid=54321 --regid=54321 --clear-groups"
if [ "$(id -u)" = 0 ] && $who "$PY" -c "import absl" 2>/dev/null; then chmod 777 "$T"; else who="env HOME=/proc/none"; fi
train_as() { $who "$PY" -m ser_jax.main $TINY "$@"; }
train_as --workdir="$T/run" >"$T/train.log" 2>&1 || wrong "training fails without a home"
train_as --workdir="$T/other" --config.dataset.data_dir="~/tensorflow_datasets" >"$T/default.log" 2>&1
grep -q Traceback "$T/default.log" && wrong "a traceback where the default data_dir cannot be made"
right "trained; the default data_dir is explained in a line"
