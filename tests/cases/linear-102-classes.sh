# A user evaluates linearly on a set of 102 classes with 10 training pictures each, as
# Oxford Flowers has them.
# Right: linear evaluation gives a number.
# Why: it is one of the usual transfer sets; 1020 pictures are enough for 102 classes.
. "$(dirname "$0")/common.sh"

must "$PY" - "$T" <<'PY'
import pathlib, sys
import numpy as np
from PIL import Image
rng = np.random.default_rng(0)
for split, number in (("train", 10), ("test", 2)):
    for c in range(102):
        folder = pathlib.Path(sys.argv[1], "pictures", split, f"flower{c:03d}")
        folder.mkdir(parents=True)
        for i in range(number):
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f"{i}.png")
PY
must prepare
must train --config.dataset.name=mine
evaluate --tasks=linear >"$T/evaluate.log" 2>&1 || wrong "linear evaluation of 102 classes x 10 pictures is refused"
right "evaluated"
