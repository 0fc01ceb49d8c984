"""What an encoder can be written as, by name."""

from ser_jax.interop.export import hf, jax, onnx, safetensors, timm
from ser_jax.interop.export.outgoing import Target

_IN_ORDER = (timm.TARGET, hf.TARGET, safetensors.TARGET, onnx.TARGET, jax.TARGET)
TARGETS: dict[str, Target] = {target.name: target for target in _IN_ORDER}
