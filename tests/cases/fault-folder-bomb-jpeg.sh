# One JPEG of more than 178.9 Mpx.
# Right: taken, or listed as unreadable by name like any other bad file.
. "$(dirname "$0")/common.sh"

mkdir -p $T/pictures/a $T/pictures/b
$PY - $T <<'P'
import os, pathlib, sys
from PIL import Image
T = pathlib.Path(sys.argv[1]); f = T / "pictures"
for c in "ab":
    for i in range(3): Image.new("RGB", (24, 24), (9 * i, 99, 5)).save(f / c / f"{i}.jpg")
Image.MAX_IMAGE_PIXELS = None; Image.new("L", (13400, 13400)).save(f / "a" / "9.jpg")
P
$PY -m ser_jax.data.prepare --folder=$T/pictures --name=mine --data_dir=$T/data > $T/out 2>&1; rc=$?
tail -1 $T/out; grep -q Traceback $T/out && wrong "a traceback"
[ $rc -eq 0 ] || grep -q "9.jpg" $T/out || wrong "the picture is not named"
