#!/usr/bin/env bash
# A run on a TPU slice, from nothing to its end; docs/tpu.md has the commands in order.
set -euo pipefail
usage="\
usage: bash launch/tpu.sh COMMAND NAME ... [--dry_run]
  create NAME TYPE ZONE [FLAGS...]       asks for a slice; FLAGS are gcloud's: --spot, --reserved
  setup  NAME                            waits for it, sends this code, installs it everywhere
  stage  NAME SOURCE [TARGET]            copies data from a bucket to every worker (/dev/shm/data)
  run    NAME CONFIG WORKDIR [FLAGS...]  starts it on all workers, where it needs nobody here
  logs   NAME [FLAGS...]                 of all workers; FLAGS are tail's: -n 100, -F
  status NAME                            of the slice, and of the run on every worker
  stop   NAME                            saves and stops; watch leaves it so
  resume NAME                            the same run goes on, on a new slice if this one is gone
  watch  NAME                            to its end: resumes it whenever it was preempted
  delete NAME                            gives the slice back
--dry_run prints what would be called. What was created and run is kept in
~/.local/state/ser_jax/NAME (XDG_STATE_HOME); SER_JAX_POLL_S (60) is how often to look."

fail() {
  echo "tpu.sh: error: $*" >&2
  exit 1
}

say() { echo "$(date '+%Y-%m-%d %H:%M:%S') $name: $*"; }

call() {
  if [[ $dry_run ]]; then
    printf '%q ' "$@" >&3
    echo >&3
  else
    "$@"
  fi
}

# keep FILE WORDS...: for commands to come.
keep() {
  if [[ $dry_run ]]; then return; fi
  mkdir -p "$state"
  printf '%q ' "${@:2}" >"$state/$1"
}

# recall FILE WORDS...: sets `kept`, quoted for eval; WORDS stand for it in a dry run.
recall() {
  if [[ -f $state/$1 ]]; then
    kept=$(<"$state/$1")
  elif [[ $dry_run ]]; then
    kept="${*:2}"
  else
    fail "$name has no $1 that is known here; first: bash launch/tpu.sh $1 $name ${*:2}"
  fi
}

tpus() { call gcloud compute tpus "$@"; }

in_zone() { zone=$2; }

# The images for each generation: cloud.google.com/tpu/docs/runtimes
image() {
  case $1 in
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    *) echo tpu-ubuntu2204-base ;;
  esac
}

# create TYPE ZONE [FLAGS...]
create() {
  tpus queued-resources create "$name" --zone="$2" --node-id="$name" \
    --accelerator-type="$1" --runtime-version="$(image "$1")" \
    --scopes=https://www.googleapis.com/auth/cloud-platform "${@:3}"
}

drop() { tpus queued-resources delete "$name" --zone="$zone" --force --quiet "$@"; }

# ACTIVE, SUSPENDED, ... as gcloud has it; ABSENT; UNKNOWN if it could not be asked.
slice_state() {
  local said
  if said=$(tpus queued-resources describe "$name" --zone="$zone" \
    --format='value(state.state)' --verbosity=error 2>&1); then
    echo "${said:-ACTIVE}" # which nobody says in a dry run
  elif [[ $said == *NOT_FOUND* ]]; then
    echo ABSENT
  else
    echo UNKNOWN
  fi
}

on_workers() {
  tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$1"
}

# worker WORDS...: a command of launch/tpu_worker.sh, on all of them.
worker() { on_workers "bash ser_jax/launch/tpu_worker.sh $(printf '%q ' "$@")"; }

run_status() {
  on_workers "if [ -e ser_jax ]; then bash ser_jax/launch/tpu_worker.sh status; else echo \"run on \$(hostname): none\"; fi"
}

# What all words come to: done, stopped, running, interrupted, failed, unreachable.
run_state() {
  local words
  words=$(run_status 2>/dev/null </dev/null) || words=""
  words=$(sed -n 's/^run on [^ ]*: //p' <<<"$words" | sort -u | tr '\n' ' ')
  case " $words" in
    " ") echo unreachable ;;
    *" stopped "*) echo stopped ;;
    *" running "*) echo running ;;
    *" lost "* | *" none "*) echo interrupted ;; # for want of one, the others fail
    " 0 ") echo "done" ;;
    " 75 " | " 0 75 ") echo interrupted ;;
    *) echo failed ;;
  esac
}

stopped() { [[ -f $state/stopped ]]; }

wait_for_slice() {
  local now
  while now=$(slice_state) && [[ $now != ACTIVE ]]; do
    if [[ $now == SUSPENDED || $now == FAILED || $now == ABSENT ]]; then
      fail "the slice $name is $now; a new one: bash launch/tpu.sh resume $name"
    fi
    if [[ $command == resume_unless_stopped ]] && stopped; then fail "$name was stopped"; fi
    say "the slice is $now"
    sleep "$poll_s"
  done
}

pack() {
  call mkdir -p "$state"
  call tar -C "$(dirname "$0")/.." -czf "$state/ser_jax.tgz" --exclude=__pycache__ \
    ser_jax configs launch setup.py pyproject.toml MANIFEST.in README.md constraints.txt
}

send() {
  if [[ $(run_state) == running ]]; then # or its code would change below it
    fail "a run is under way on $name; first: bash launch/tpu.sh stop $name"
  fi
  tpus tpu-vm scp --zone="$zone" --worker=all "$state/ser_jax.tgz" "$name:"
  on_workers "mkdir -p ser_jax && tar -xzf ser_jax.tgz -C ser_jax && bash ser_jax/launch/tpu_worker.sh setup"
}

# stage SOURCE [TARGET]
stage() {
  local target=${2:-/dev/shm/data}
  on_workers "$(printf 'mkdir -p %q && gcloud storage rsync -r %q %q' "$target" "$1" "$target")"
}

recreate() {
  call touch "$state/recreating" # or it would seem that somebody has deleted it
  drop
  recall create TYPE ZONE
  eval "create $kept"
}

# again start|start_unless_stopped: the same run, with the code that it had.
again() {
  wait_for_slice
  send
  if [[ -f $state/stage ]]; then
    recall stage
    eval "stage $kept"
  fi
  call rm -f "$state/recreating"
  if stopped; then fail "$name was stopped"; fi
  recall run CONFIG WORKDIR
  eval "worker $1 $kept"
}

# resume start|start_unless_stopped: the same, on a new slice if this one is gone.
resume() {
  case $(slice_state) in
    SUSPENDED | FAILED) recreate ;;
    ABSENT)
      recall create TYPE ZONE
      eval "create $kept"
      ;;
  esac
  again "$1"
}

# Until the run is done, was stopped, or has failed.
watch_run() {
  local now before="" failures=0
  until stopped; do
    now=$(slice_state)
    if [[ $now == ACTIVE ]]; then now=$(run_state); fi
    if [[ $now != "$before" ]]; then say "$now"; fi
    before=$now
    case $now in
      "done") return ;;
      stopped) break ;;
      interrupted | SUSPENDED | FAILED | ABSENT)
        if [[ $now == ABSENT && ! -f $state/recreating ]]; then
          fail "the slice $name was deleted; a new one: bash launch/tpu.sh resume $name"
        fi
        bash "$0" resume_unless_stopped "$name" || say "not resumed; tried again"
        ;;
      failed)
        failures=$((failures + 1)) # of a slice that goes, the run may be seen to end first
        if ((failures == 2)); then
          worker logs -n 20
          fail "the run failed; its end is above"
        fi
        ;;
    esac
    if [[ $now != failed ]]; then failures=0; fi
    sleep "$poll_s"
  done
  say "was stopped; to go on: bash launch/tpu.sh resume $name"
}

show_status() {
  local now
  now=$(slice_state)
  if [[ ! $dry_run ]]; then echo "slice $name: $now"; fi
  if [[ $now == ACTIVE ]]; then run_status; fi
}

stop_run() {
  call touch "$state/stopped"
  if [[ $(slice_state) == ACTIVE ]]; then
    worker stop
  else
    say "the slice is not there; watch will leave it so"
  fi
}

dry_run="" words=()
for word in "$@"; do
  if [[ $word == --dry_run ]]; then dry_run=yes; else words+=("$word"); fi
done
set -- ${words[@]+"${words[@]}"}
command=${1:-} name=${2:-}
case $command-$# in
  create-[0-3] | run-[0-3] | stage-[0-2] | *-[01]) command="" ;;
esac
commands=" create setup stage run logs status stop resume resume_unless_stopped watch delete "
if [[ $commands != *" $command "* ]]; then
  echo "$usage" >&2
  exit 2
fi
exec 3>&1 # what a dry run prints, wherever output goes
state=${XDG_STATE_HOME:-$HOME/.local/state}/ser_jax/$name
poll_s=${SER_JAX_POLL_S:-60}
if [[ $command != create ]]; then
  recall create TYPE ZONE
  eval "in_zone $kept"
fi
case $command in
  create)
    create "${@:3}"
    call rm -rf "$state"
    keep create "${@:3}"
    ;;
  setup)
    wait_for_slice
    pack
    send
    ;;
  stage)
    stage "${@:3}"
    keep stage "${@:3}"
    ;;
  run)
    worker start "${@:3}"
    call rm -f "$state/stopped"
    keep run "${@:3}"
    ;;
  logs) if (($# > 2)); then worker logs "${@:3}"; else worker logs -n 20; fi ;;
  status) show_status ;;
  stop) stop_run ;;
  resume)
    call rm -f "$state/stopped"
    resume start
    ;;
  resume_unless_stopped) resume start_unless_stopped ;;
  watch)
    if [[ $dry_run ]]; then
      slice_state >/dev/null
      run_status
      recreate
      again start_unless_stopped
    else
      watch_run
    fi
    ;;
  delete)
    drop --async
    call rm -rf "$state"
    ;;
esac
