# A user's folder holds one strip of 8000 x 1 px (a line of a scanner, a spacer of a web
# page), a file of a few hundred bytes, among ordinary pictures; the network reads 224
# px.
# Right: it is prepared, trained on and evaluated like the others, without gigabytes of
# memory (2 GB in all; without the strip the whole evaluation takes 0.5 GB).
# Why: pictures "of any size" are promised. A few such files end an evaluation for lack
# of memory.
. "$(dirname "$0")/common.sh"

pictures "$T/pictures/train/a" 20; pictures "$T/pictures/train/b" 20 1
pictures "$T/pictures/test/a" 8 2; pictures "$T/pictures/test/b" 8 3
must "$PY" -c "from PIL import Image; Image.new('RGB', (8000, 1), 'red').save('$T/pictures/test/a/strip.png')"
must "$PY" -c "from PIL import Image; Image.new('RGB', (2000, 1), 'red').save('$T/pictures/train/a/strip.png')"
prepare >"$T/prepare.log" 2>&1 || wrong "prepare fails"
train --config.dataset.name=mine --config.augment.image_size=224 --config.model.variant=Ti/16 --config.max_steps=3 \
  >"$T/train.log" 2>&1 || wrong "training fails"
cat >"$T/peak.py" <<'PY'
import resource, subprocess, sys
code = subprocess.run(sys.argv[2:], stdout=sys.stderr).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
sys.exit(code)
PY
peak=$("$PY" "$T/peak.py" - "$PY" -m ser_jax.evaluate --checkpoint="$T/run" --tasks=knn 2>"$T/evaluate.log") || wrong "evaluation fails, at $peak MB"
[ "$peak" -lt 2000 ] || wrong "evaluation took $peak MB because of one strip"
right "evaluated in $peak MB"
