#!/usr/bin/env bash
# What launch/tpu.sh asks every worker of a slice to do, where this code lies in ~/ser_jax.
set -euo pipefail
usage="usage: tpu_worker.sh setup | start[_unless_stopped] CONFIG WORKDIR [FLAGS...] | status | stop | logs [FLAGS of tail]"
code=$(cd "$(dirname "$0")/.." && pwd)
python=$HOME/ser_jax_venv/bin/python
run=$HOME/ser_jax_run # log, pid, status (how it ended), stopped (by a person)

# The images have Python 3.10. Versions are those that the tests ran with.
setup() {
  export PATH="$HOME/.local/bin:$PATH"
  command -v uv >/dev/null ||
    PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --quiet --user uv
  uv venv --quiet --allow-existing --python 3.11 "$HOME/ser_jax_venv"
  uv pip install --quiet --python "$python" -c "$code/constraints.txt" -e "${code}[tpu,gcs]"
}

running() { [[ -f $run/pid ]] && grep -qs tpu_worker "/proc/$(<"$run/pid")/cmdline"; }

# In a session of its own, and deaf to SIGHUP: a VM that shuts down sends it with SIGTERM,
# and a second signal would end the run before it has saved.
start() {
  if running; then
    echo "$(hostname): a run is under way; stop it first" >&2
    return 1
  fi
  mkdir -p "$run"
  rm -f "$run/status" "$run/stopped"
  setsid nohup bash "$0" attend "$@" >>"$run/log" 2>&1 </dev/null &
  echo $! >"$run/pid"
}

start_unless_stopped() { [[ -f $run/stopped ]] || start "$@"; }

attend() {
  local status=0
  trap : TERM # the run's to act on
  cd "$code"
  "$python" -m ser_jax.main --config="$1" --workdir="$2" "${@:3}" || status=$?
  echo "$status" >"$run/status"
}

# One word: running, an exit status, stopped, lost (the machine has started anew), none.
status() {
  local word=none
  if running; then
    word=running
  elif [[ -f $run/stopped ]]; then
    word=stopped
  elif [[ -f $run/status ]]; then
    word=$(<"$run/status")
  elif [[ -f $run/pid ]]; then
    word=lost
  fi
  echo "run on $(hostname): $word"
}

stop() {
  mkdir -p "$run"
  touch "$run/stopped"
  if running; then kill -TERM -- "-$(<"$run/pid")"; fi
  while running; do sleep 1; done
  status
}

logs() { tail "$@" "$run/log" | sed -u "s/^/$(hostname): /"; }

command=${1:?$usage}
case $command in
  start* | attend) : "${2:?$usage}" "${3:?$usage}" ;;
  setup | status | stop | logs) ;;
  *)
    echo "$usage" >&2
    exit 2
    ;;
esac
"$@"
