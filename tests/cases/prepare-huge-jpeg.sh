# A folder of pictures from the web holds a 23 MB JPEG of 45,000 x 45,000 px (a
# "decompression bomb", of one grey). The same as PNG is refused, as Pillow does.
# Right: it is listed as unreadable (too large), or handled within a sane amount of
# memory; the others are prepared with --max_bad_frac=0.2.
# Why: decoding it takes 6 GB in prepare, and again in every training thread: out of
# memory.
. "$(dirname "$0")/common.sh"

pictures "$T/pictures/cat" 10
must "$PY" - "$T/pictures/cat/huge.jpg" <<'PY'
import io, struct, sys
from PIL import Image
side = 45_000 // 32 * 32
buffer = io.BytesIO()
Image.new("L", (8, 8), 128).save(buffer, "JPEG")
data = bytearray(buffer.getvalue())
frame, scan = data.index(b"\xff\xc0"), data.index(b"\xff\xda")
data[frame + 5 : frame + 9] = struct.pack(">HH", side, side)
header = data[: scan + 2 + struct.unpack(">H", data[scan + 2 : scan + 4])[0]]
blocks = (side // 8) ** 2  # each: no change of the mean, nothing else; 6 bit
with open(sys.argv[1], "wb") as file:
    file.write(header + b"\x28\xa2\x8a" * (blocks // 4) + b"\xff\xd9")
PY
cat >"$T/limited.py" <<'PY'
import resource, subprocess, sys
resource.setrlimit(resource.RLIMIT_AS, (5 << 30, 5 << 30))
code = subprocess.run(sys.argv[1:], timeout=150).returncode
print("peak MB:", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
sys.exit(code)
PY
"$PY" "$T/limited.py" "$PY" -m ser_jax.data.prepare --folder="$T/pictures" --name=mine --data_dir="$T/data" --max_bad_frac=0.2 >"$T/prepare.log" 2>&1
code=$?
grep -q 'Traceback' "$T/prepare.log" && wrong "a traceback for lack of memory (5 GB)"
[ $code = 0 ] || wrong "exit status $code although --max_bad_frac=0.2"
grep -q 'huge.jpg' "$T/prepare.log" || [ "$(info split)" = "train=11" ] || wrong "no word of huge.jpg"
right "handled within 5 GB"
