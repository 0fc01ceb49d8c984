"""Layouts: where libraries put encoders. The first that fits a file has it."""

from ser_jax.interop.layouts.barlow import BarlowTwins
from ser_jax.interop.layouts.base import Layout
from ser_jax.interop.layouts.dino import DINO, DINOFull, DINOPart
from ser_jax.interop.layouts.dinov2 import DINOv2, DINOv2Training
from ser_jax.interop.layouts.flat import DeiTLike, Other, TimmOrDINO, Torchvision
from ser_jax.interop.layouts.hf import HuggingFace
from ser_jax.interop.layouts.lightly import Lightly
from ser_jax.interop.layouts.mmlab import MMLab
from ser_jax.interop.layouts.moco import MoCo, MoCoV3
from ser_jax.interop.layouts.ser import SERFlat, SEROnBarlow, SEROnDINO, SEROnMoCo
from ser_jax.interop.layouts.solo import SoloLearn
from ser_jax.interop.layouts.timm import Timm, TimmFolder, TimmTraining
from ser_jax.interop.layouts.vissl import VISSL

LAYOUTS: tuple[Layout, ...] = (
    VISSL(),
    HuggingFace(),
    MoCoV3(),
    MoCo(),
    SEROnDINO(),
    DINOv2Training(),
    DINOFull(),
    SEROnMoCo(),
    TimmTraining(),
    BarlowTwins(),
    MMLab(),
    Lightly(),
    SoloLearn(),
    DINOPart(),
    SEROnBarlow(),
    DeiTLike(),
    TimmFolder(),
    SERFlat(),
    DINOv2(),
    Torchvision(),
    TimmOrDINO(),
    Timm(),
    DINO(),
    Other(),
)
