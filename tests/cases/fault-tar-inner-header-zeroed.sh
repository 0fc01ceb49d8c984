# A zeroed block in the header of an image inside a class of an ImageNet train tar: 20
# of 24 images are left.
# Right: exit status not 0, one message that names the archive, no data set; the sound
# archive (3 classes) is still taken.
. "$(dirname "$0")/common.sh"

cat > $T/make.py <<'P'
import io, sys, tarfile
from PIL import Image
def tar(members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as t:
        for name, data in members:
            info = tarfile.TarInfo(name); info.size = len(data); t.addfile(info, io.BytesIO(data))
    return out.getvalue()
def jpeg(i):
    out = io.BytesIO(); Image.new("RGB", (24, 24), (9 * i, 99, 5)).save(out, "JPEG"); return out.getvalue()
inner = [tar((f"{w}_{i}.JPEG", jpeg(i)) for i in range(8)) for w in ("n01440764", "n01443537", "n01484850")]
data = bytearray(tar(zip(("n01440764.tar", "n01443537.tar", "n01484850.tar"), inner)))
second = 512 + -(-len(inner[0]) // 512) * 512  # offset of the second class's header
open(sys.argv[2], "wb").write(data)  # sound
at = second + 512 + 4 * 1536; assert bytes(data[at : at + 9]) == b"n01443537"
data[at : at + 512] = bytes(512)
open(sys.argv[1], "wb").write(data)
P
$PY $T/make.py $T/a.tar $T/sound.tar
$PY -m ser_jax.data.prepare --imagenet_train_tar=$T/sound.tar --data_dir=$T/sound > $T/out 2>&1 || wrong "the sound archive is refused: $(tail -1 $T/out)"
$PY -m ser_jax.data.prepare --imagenet_train_tar=$T/a.tar --data_dir=$T/data > $T/out 2>&1; rc=$?
tail -1 $T/out; grep -q Traceback $T/out && wrong "a traceback"
[ $rc -ne 0 ] && [ ! -e $T/data/imagenet2012 ] || wrong "rc $rc, a data set of fewer images was written without a word"
