# A user watches a training run, has seen enough and presses Ctrl-C.
# Right: the run ends soon, without a Python traceback, and either saves its step (as it
# does at SIGTERM) or says in a line what is kept.
# Why: Ctrl-C is the usual way to stop a program; 40 lines of Python look like a crash.
. "$(dirname "$0")/common.sh"

cat >"$T/press.py" <<'PY'
import pathlib, signal, subprocess, sys, time
run, log, *command = sys.argv[1:]
metrics = pathlib.Path(run) / "metrics.jsonl"
with open(log, "w") as output:
    child = subprocess.Popen(
        command, stdout=output, stderr=output,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    end = time.monotonic() + 180
    while time.monotonic() < end and child.poll() is None:
        if metrics.exists() and metrics.read_text().count("\n") >= 3:
            break
        time.sleep(0.2)
    else:
        child.kill()
        sys.exit(2)
    child.send_signal(signal.SIGINT)
    try:
        child.wait(60)
    except subprocess.TimeoutExpired:
        child.kill()
        sys.exit(3)
PY
"$PY" "$T/press.py" "$T/run" "$T/train.log" "$PY" -m ser_jax.main $TINY --workdir="$T/run" \
  --config.max_steps=0 --config.total_epochs=5000.0 --config.checkpoint.every_steps=1000000
case $? in
  0) ;;
  3) wrong "the run went on for a minute after Ctrl-C" ;;
  *) echo "NOT SET UP"; show; exit 2 ;;
esac
grep -q Traceback "$T/train.log" && wrong "a traceback at Ctrl-C"
right "ended without a traceback"
