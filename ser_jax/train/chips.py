"""What a chip can do, by its data sheet."""

from typing import NamedTuple

_GB, _GIB = 10**9, 2**30


class Chip(NamedTuple):
    """One device as JAX counts devices.

    Attributes:
        flops: Peak FLOP/s of dense bfloat16 products.
        bandwidth: Bytes per second between its memory and its cores.
        memory: Bytes that programs may use, where a device does not tell; None where it
            comes in several sizes.
        clock_hz: Cycles a second that the TPU compiler's estimates are in; None where
            there are no such estimates.
    """

    flops: float
    bandwidth: float
    memory: int | None = None
    clock_hz: float | None = None


# Parts of `jax.Device.device_kind`; the first that fits counts. Vendors' data sheets,
# no sparsity; v4 and v5p: a chip's two cores are one device.
CHIPS = {
    "H100 PCIe": Chip(756e12, 2_000 * _GB),
    "H100": Chip(989e12, 3_350 * _GB, 80 * _GB),
    "H200": Chip(989e12, 4_800 * _GB, 141 * _GB),
    "A100-SXM4-80GB": Chip(312e12, 2_039 * _GB, 80 * _GB),
    "A100": Chip(312e12, 2_039 * _GB),
    "TPU v6": Chip(918e12, 1_640 * _GB, int(31.25 * _GIB), 1.75e9),
    "TPU v5 lite": Chip(197e12, 819 * _GB, int(15.75 * _GIB), 1.5e9),
    "TPU v5e": Chip(197e12, 819 * _GB, int(15.75 * _GIB), 1.5e9),
    "TPU v5": Chip(459e12, 2_765 * _GB, int(95 * _GIB), 1.75e9),
    "TPU v4": Chip(275e12, 1_228 * _GB, int(32 * _GIB), 1.05e9),
}


def chip(device_kind: str) -> Chip | None:
    """The chip of a kind of device.

    Args:
        device_kind: `jax.Device.device_kind`.

    Returns:
        Its figures; None for CPUs and devices not in the table.
    """
    found = (figures for kind, figures in CHIPS.items() if kind in device_kind)
    return next(found, None)
