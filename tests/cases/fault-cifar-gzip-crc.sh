# A flipped pixel byte inside cifar-10-python.tar.gz: gzip -t refuses the file, prepare
# takes it, because tarfile stops reading before the CRC.
# Right: exit status not 0, one message that names the archive ("... is damaged"), no
# traceback, no data set.
. "$(dirname "$0")/common.sh"

cat > $T/make.py <<'P'
import gzip, io, pickle, sys, tarfile, numpy as np
def tar(members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as t:
        for name, data in members:
            info = tarfile.TarInfo(name); info.size = len(data); t.addfile(info, io.BytesIO(data))
    return out.getvalue()
pixels = np.random.default_rng(0).integers(0, 255, (4, 3072), np.uint8)
BATCHES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
NAMES = "airplane automobile bird cat deer dog frog horse ship truck".split()
files = {b: pickle.dumps({b"labels": [1, 2, 3, 4], b"data": pixels}, 3) for b in BATCHES} | {"batches.meta": pickle.dumps({b"label_names": [n.encode() for n in NAMES]}, 3)}
binary = {f"{b}.bin": b"".join(bytes([1]) + row.tobytes() for row in pixels) for b in BATCHES} | {"batches.meta.txt": "\n".join(NAMES).encode()}
whole = tar(files.items()); out = bytearray(gzip.compress(whole, 0)); at = bytes(out).rfind(pixels[3, -64:].tobytes()) + 9; out[at] ^= 8
open(sys.argv[1], "wb").write(out)
P
$PY $T/make.py $T/cifar.tar.gz
$PY -m ser_jax.data.prepare --cifar_archive=$T/cifar.tar.gz --data_dir=$T/data > $T/out 2>&1; rc=$?
tail -1 $T/out; grep -q Traceback $T/out && wrong "a traceback"
[ $rc -ne 0 ] && [ ! -e $T/data/cifar10 ] || wrong "rc $rc, damaged archive taken without a word"
