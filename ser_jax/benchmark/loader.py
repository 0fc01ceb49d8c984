"""How many images a second the loader delivers when nothing else runs."""

import itertools
import time

from ser_jax.data.host_transforms import RandomCrops
from ser_jax.data.loader import train_loader
from ser_jax.data.sources import Source

_WARMUP_BATCHES = 8


def loader_images_per_s(
    source: Source,
    transform: RandomCrops,
    *,
    batch_size: int,
    num_threads: int,
    prefetch_batches: int,
    seconds: float,
) -> float:
    """Images per second of the training loader: reading, decoding, cropping.

    Args:
        source: Records.
        transform: The host's part of the augmentation.
        batch_size: Images in a batch.
        num_threads: Threads that decode.
        prefetch_batches: Finished batches kept ahead.
        seconds: How long to measure; one batch at least.

    Returns:
        Images per second, once the first batches, which wait for the threads to start
        and then come from the buffer, are through.
    """
    batches = train_loader(
        source,
        transform,
        batch_size=batch_size,
        seed=0,
        num_threads=num_threads,
        prefetch_batches=prefetch_batches,
    )
    try:
        for _ in range(_WARMUP_BATCHES + prefetch_batches):
            next(batches)
        started = time.perf_counter()
        for num_batches in itertools.count(1):
            next(batches)
            elapsed = time.perf_counter() - started
            if elapsed >= seconds:
                return num_batches * batch_size / elapsed
    finally:
        batches.close()
    raise AssertionError("the loader is endless")
