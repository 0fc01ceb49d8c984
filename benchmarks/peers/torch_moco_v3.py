"""MoCo v3's training step, ViT-S/16, in PyTorch with timm: what a user would else run.

timm's ViT-S/16 (scaled dot product attention), projector and predictor with BatchNorm,
an EMA target, the symmetric contrastive loss, AdamW: `configs/moco_v3.py`, layer by
layer. Views are tensors of noise that are there already: no loader, no augmentation.
It runs on the GPU that there is, else on the CPU.

    python benchmarks/peers/torch_moco_v3.py --batch=16 --steps=5 --json=FILE

Needs torch and timm and nothing of ser_jax (so argparse, not absl), since it may run in
an environment of its own. `compare.py` runs it in turns with ours.
"""

import argparse
import copy
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

try:
    import timm
    import torch
    import torch.nn.functional as F
    from torch import nn
except ModuleNotFoundError as error:
    sys.exit(f"the PyTorch step needs {error.name}: pip install torch timm")

SEED = 0
IMAGE_SIZE = 224
WIDTH, HIDDEN, OUT = 384, 4096, 256  # of encoder, heads, embedding
TEMPERATURE, MOMENTUM = 0.2, 0.99
WARMUP_STEPS = 2


def mlp(widths: list[int]) -> nn.Sequential:
    """Linear layers with BatchNorm and ReLU between, a plain BatchNorm at the end.

    Args:
        widths: Of the input, the hidden layers, the output.

    Returns:
        The module, `[b, widths[0]]` -> `[b, widths[-1]]`.
    """
    layers: list[nn.Module] = []
    for i, (before, after) in enumerate(zip(widths, widths[1:], strict=False), 2):
        is_last = i == len(widths)
        layers.append(nn.Linear(before, after, bias=False))
        layers.append(nn.BatchNorm1d(after, affine=not is_last))
        if not is_last:
            layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class Network(nn.Module):
    """Encoder, projector and predictor.

    Attributes:
        encoder: ViT-S/16, its patch embedding frozen.
        projector: Three layers.
        predictor: Two layers; the target has none.
    """

    def __init__(self) -> None:
        """Makes the online network."""
        super().__init__()
        self.encoder = timm.create_model("vit_small_patch16_224", num_classes=0)
        self.encoder.patch_embed.requires_grad_(False)
        self.projector = mlp([WIDTH, HIDDEN, HIDDEN, OUT])
        self.predictor: nn.Module = mlp([OUT, HIDDEN, OUT])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns queries `[b, OUT]` from `[b, 3, h, w]`; of the target, keys."""
        return self.predictor(self.projector(self.encoder(images)))

    def with_target(self) -> list[nn.Parameter]:
        """The parameters that the target has too, in its order."""
        return [*self.encoder.parameters(), *self.projector.parameters()]


def contrastive(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """2 tau cross-entropy of each query with its own key among all, `[]`, float32."""
    queries, keys = (F.normalize(x.float(), dim=1) for x in (queries, keys))
    logits = queries @ keys.T / TEMPERATURE
    labels = torch.arange(len(queries), device=queries.device)
    return 2 * TEMPERATURE * F.cross_entropy(logits, labels)


def make_step(
    batch: int, device: torch.device, dtype: str, is_compiled: bool
) -> tuple[Callable[[], float], dict[str, int]]:
    """A training step on a batch of noise.

    Args:
        batch: Images, each seen as two views.
        device: Where.
        dtype: "float32", or "bfloat16" for autocast.
        is_compiled: Whether both forward passes and the loss, and their backward pass,
            are compiled by `torch.compile`.

    Returns:
        A function that makes one step, waits for it and returns its loss; the number
        of parameters of `encoder`, `objective` (both heads) and `target`.
    """
    online = Network().to(device).train()
    target = copy.deepcopy(online)
    target.predictor = nn.Identity()
    target.requires_grad_(False)
    trained = [p for p in online.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, 1.5e-4, weight_decay=0.1, fused=True)
    views = torch.randn((2, batch, 3, IMAGE_SIZE, IMAGE_SIZE), device=device).unbind()
    moved, towards = target.with_target(), online.with_target()
    is_autocast = dtype == "bfloat16"

    def loss_of(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=is_autocast):
            queries = online(first), online(second)
            with torch.no_grad():
                keys = target(first), target(second)
        return contrastive(queries[0], keys[1]) + contrastive(queries[1], keys[0])

    forward = torch.compile(loss_of) if is_compiled else loss_of

    def step() -> float:
        with torch.no_grad():
            torch._foreach_lerp_(moved, towards, 1 - MOMENTUM)
        optimizer.zero_grad(set_to_none=True)
        loss = forward(*views)
        loss.backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return float(loss.detach())

    heads = (*online.projector.parameters(), *online.predictor.parameters())
    parts = {
        "encoder": online.encoder.parameters(),
        "objective": heads,
        "target": target.parameters(),
    }
    return step, {name: sum(p.numel() for p in part) for name, part in parts.items()}


def seconds_of(step: Callable[[], float]) -> float:
    """Seconds of a step."""
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """What the step costs.

    Args:
        args: The command line.

    Returns:
        Figures by name, JSON-ready. Names that `python -m ser_jax.benchmark` writes too
        mean the same; `first_step_s` holds what `torch.compile` takes.
    """
    torch.manual_seed(SEED)
    if args.threads:
        torch.set_num_threads(args.threads)
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.set_float32_matmul_precision("high")  # TF32, which is JAX's default there
    device = torch.device("cuda" if on_gpu else "cpu")
    step, parameters = make_step(args.batch, device, args.dtype, args.compile)
    first_step_s = seconds_of(step)
    for _ in range(WARMUP_STEPS):
        step()
    step_s = [seconds_of(step) for _ in range(args.steps)]
    return {
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "torch_version": torch.__version__,
        "timm_version": timm.__version__,
        "threads": torch.get_num_threads(),
        "batch_size": args.batch,
        "parameters": parameters,
        "first_step_s": first_step_s,
        "step_s": statistics.median(step_s),
        "images_per_s": args.batch / statistics.median(step_s),
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if on_gpu else None,
        "loss": step(),
    }


def main() -> None:
    """Measures the step and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, default=16, help="images")
    parser.add_argument("--steps", type=int, default=5, help="steps timed")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--compile", action="store_true", help="torch.compile it")
    parser.add_argument("--threads", type=int, help="of a CPU; PyTorch's choice if not")
    parser.add_argument("--json", required=True, help="file to write the figures to")
    args = parser.parse_args()
    pathlib.Path(args.json).write_text(json.dumps(measure(args), indent=2) + "\n")


if __name__ == "__main__":
    main()
