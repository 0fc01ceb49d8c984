# A user trains with loader.num_workers=1; the system kills the worker (out of memory).
# Right: within two minutes the run ends with an error, or it goes on with a new worker.
# Why: a run that waits for ever holds its machine and tells nobody.
. "$(dirname "$0")/common.sh"

cat >"$T/kill.py" <<'PY'
import os, pathlib, signal, subprocess, sys, time
run, log, *command = sys.argv[1:]
metrics = pathlib.Path(run) / "metrics.jsonl"
rows = lambda: metrics.read_text().count("\n") if metrics.exists() else 0
def children(pid):
    found = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid and "resource_tracker" not in (stat.parent / "cmdline").read_text():
                found.append(int(stat.parent.name))
        except (OSError, IndexError):
            pass
    return found
with open(log, "w") as output:
    child = subprocess.Popen(command, stdout=output, stderr=output)
    def stop(code):
        for pid in [*children(child.pid), child.pid]:
            try: os.kill(pid, signal.SIGKILL)
            except OSError: pass
        sys.exit(code)
    end = time.monotonic() + 180
    while rows() < 5 and child.poll() is None and time.monotonic() < end:
        time.sleep(0.3)
    workers = children(child.pid)
    if child.poll() is not None or rows() < 5 or not workers:
        stop(2)
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    time.sleep(20)  # what is prefetched
    before, end = rows(), time.monotonic() + 100
    while time.monotonic() < end:
        if child.poll() is not None:
            stop(0 if child.returncode else 4)
        if rows() > before + 5:
            stop(0)
        time.sleep(0.5)
    stop(3)
PY
"$PY" "$T/kill.py" "$T/run" "$T/train.log" "$PY" -m ser_jax.main $TINY --workdir="$T/run" --config.log_every_steps=10 \
  --config.max_steps=0 --config.total_epochs=100000.0 --config.checkpoint.every_steps=1000000 --config.loader.num_workers=1
case $? in
  0) ;;
  3) wrong "two minutes after its worker was killed the run still waits" ;;
  4) wrong "said to be done" ;;
  *) echo "NOT SET UP"; show; exit 2 ;;
esac
right "ended or went on"
