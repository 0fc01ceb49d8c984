# A class folder holds .gif, .bmp and .tiff pictures beside .png ones.
# Right: they are read too, or the command says that (how many) files were left out.
# Why: a user whose set is partly TIFF trains on a part of it without knowing.
. "$(dirname "$0")/common.sh"

pictures "$T/pictures/cat" 5
must "$PY" - "$T/pictures/cat" <<'PY'
import sys
from PIL import Image
for i, suffix in enumerate(("gif", "bmp", "tiff")):
    Image.new("RGB", (12, 12), (i * 80, 0, 0)).save(f"{sys.argv[1]}/more{i}.{suffix}")
PY
prepare >"$T/prepare.log" 2>&1 || wrong "prepare fails"
[ "$(info split)" = "train=8" ] && right "all read"
grep -qi 'skip\|ignor\|left out\|not read\|other file\|\.gif\|\.tiff' "$T/prepare.log" && right "said so"
wrong "3 of 8 pictures left out, and no word of it"
