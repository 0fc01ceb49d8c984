# Archives of ImageNet and CIFAR-10 that were cut, changed by a byte or zeroed in part.
# Right: exit status not 0, one message that names the archive, no data set; sound ones
# are taken, ImageNet's of three classes, too.
. "$(dirname "$0")/common.sh"

archive() { # KIND FLAG NAME
  rm -rf "$T/data"
  "$PY" "$ROOT/tests/cases/make_archive.py" "$1" "$T/$3" || exit 2
  "$PY" -m ser_jax.data.prepare "--$2=$T/$3" --data_dir="$T/data" >"$T/prepare.log" 2>&1
  status=$?
  grep -q Traceback "$T/prepare.log" && wrong "$1: a traceback"
}
for kind in "imagenet sound" "cifar sound"; do
  case $kind in imagenet*) archive "$kind" imagenet_train_tar a.tar ;; *) archive "$kind" cifar_archive a.tar.gz ;; esac
  [ $status = 0 ] || wrong "$kind: refused"
done
for kind in "imagenet cut at a class" "imagenet inner header zeroed" "imagenet outer header flipped" \
  "cifar batch zeroed" "cifar batch short" "cifar label 200" "cifar checksum"; do
  case $kind in imagenet*) archive "$kind" imagenet_train_tar a.tar ;; *) archive "$kind" cifar_archive a.tar.gz ;; esac
  [ $status != 0 ] && [ ! -e "$T"/data/*/*/dataset_info.json ] || wrong "$kind: status $status, taken without a word"
  tail -n 1 "$T/prepare.log" | grep -q "$T/a.tar" || wrong "$kind: the archive is not named"
done
right "9 archives"
