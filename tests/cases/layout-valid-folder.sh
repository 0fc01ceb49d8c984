# A user's data has train/<class>/ and valid/<class>/ (as many published sets have).
# Right: two splits with classes; or the command stops or warns, naming "valid".
# Why: else train and valid become one unlabelled split, and the encoder is trained on
# what it should be validated on.
. "$(dirname "$0")/common.sh"

for class in cat dog; do pictures "$T/pictures/train/$class" 6; pictures "$T/pictures/valid/$class" 4 1; done
prepare >"$T/prepare.log" 2>&1 || right "refused"
case "$(info split)" in
  "train=12 val=8" | "train=12 valid=8" | "train=12 validation=8")
    [ "$(info classes)" = "cat dog" ] || wrong "two splits, but classes: $(info classes)"
    right "two splits, two classes" ;;
esac
grep -qi 'valid' "$T/prepare.log" && right "warned"
wrong "splits: $(info split); classes: $(info classes)"
