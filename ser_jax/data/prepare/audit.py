"""Every picture is decoded once: what can be kept, what cannot, what was done to it."""

import collections
import concurrent.futures
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from etils import epath

from ser_jax.data.decode import decode_image, read_header, upright
from ser_jax.data.prepare.image_set import ImageSplit, Item, PrepareError
from ser_jax.data.prepare.scan import as_text
from ser_jax.data.prepare.write import encode_png
from ser_jax.data.progress import ProgressLine
from ser_jax.storage.files import write_text

_LINE_EVERY_S = 5.0


class Storable(NamedTuple):
    """A picture as it is stored.

    Attributes:
        data: The encoded image, which every reader of TFDS shows as RGB.
        notes: What was done to it that a user may want to know.
    """

    data: bytes
    notes: tuple[str, ...] = ()


def to_storable(data: bytes, turn: bool = False) -> Storable:
    """The picture as it is stored.

    Args:
        data: An encoded image.
        turn: Turn it as its EXIF orientation says.

    Returns:
        The same bytes for JPEG in RGB or grey and for PNG in RGB of 8 bits; any other
        image, and one that is turned or reduced, as RGB PNG, without further loss.

    Raises:
        UnreadableImageError: If the image cannot be decoded in full.
    """
    image = decode_image(data)
    header = read_header(data)
    turned = header.orientation if turn else 1
    notes = {
        "turned as EXIF says": turned > 1,
        "not turned as EXIF says": turned != header.orientation,
        "alpha dropped": header.has_alpha,
        "16 bits cut to 8": header.has_16_bits,
        "CMYK converted": header.mode == "CMYK",
        "first of several frames": header.has_more_frames,
        "larger than is read, reduced": header.factor > 1,
    }
    done = tuple(note for note, is_so in notes.items() if is_so)
    as_it_is = {"JPEG": ("RGB", "L"), "PNG": ("RGB",)}.get(header.format, ())
    if header.mode in as_it_is and set(done) <= {"not turned as EXIF says"}:
        return Storable(data, done)
    return Storable(encode_png(upright(image, turned)), done)


class Audit:
    """Decodes every image in threads, passes on the good, remembers the bad."""

    def __init__(
        self,
        lost: Sequence[str] = (),
        turn: bool = False,
        allow_incomplete: bool = False,
    ):
        """Begins with what is lost already, a line each."""
        self.num_images = len(lost)
        self.bad = list(lost)
        self._turn = turn
        self._allow_incomplete = allow_incomplete
        self._notes = collections.Counter[str]()

    def examples(
        self, name: str, split: ImageSplit
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """(key, TFDS example) of the readable images; progress goes to stderr."""
        num_images, num_bad = 0, 0
        progress = ProgressLine(1.0, every_s=_LINE_EVERY_S)
        started = time.monotonic()

        def text() -> str:
            rate = num_images / max(time.monotonic() - started, 1e-9)
            return (
                f"{name}: {num_images} images, {item.done_frac:.0%}, {rate:.0f}/s, "
                f"{num_bad} unreadable"
            )

        for item, future in _in_threads(split, self._turn):
            num_images += 1
            try:
                image = future.result()
            # Undecodable; cannot be opened; a codec asks for what there is not.
            except (ValueError, OSError, MemoryError) as error:
                num_bad += 1
                reason = as_text(str(error)) or type(error).__name__
                self.bad.append(f"{name}: {as_text(item.name)}\t{reason}")
            else:
                self._notes.update(image.notes)
                yield item.name, {"image": image.data, **item.fields}
            progress.update(item.done_frac, text)
        progress.close()
        say(f"{name}: {num_images} images read, {num_bad} unreadable; writing shards")
        self._compare(name, num_images, split.num_published)
        self.num_images += num_images
        if num_images == num_bad:
            raise PrepareError(f"split {name!r} has no readable image")

    def _compare(self, name: str, num_images: int, num_published: int | None) -> None:
        """Refuses nearly all of a published set; what is less is meant as a part."""
        if num_published in (None, num_images):
            return
        counts = f"{num_published:,} images are published, {num_images:,} are here"
        if 2 * num_images > num_published and not self._allow_incomplete:
            raise PrepareError(
                f"split {name!r}: {counts}; get the archive anew, or give "
                "--allow_incomplete to take it as it is; no data set was written"
            )
        say(f"{name}: {counts}: right for a part of the data set alone")

    def report(self, path: epath.Path) -> str:
        """Lists the bad images on stderr and in a file; says where, in one phrase.

        Args:
            path: Where to list them.

        Returns:
            The phrase, with what was done to how many of the others.
        """
        notes = "".join(f", {n} {note}" for note, n in sorted(self._notes.items()))
        if not self.bad:
            path.unlink(missing_ok=True)  # of an earlier run
            return f"none unreadable{notes}"
        for line in self.bad[:20]:
            say(f"unreadable: {line}")
        write_text(path, "\n".join(self.bad))
        return f"{len(self.bad)} unreadable, listed in {path}{notes}"


def _in_threads(
    split: ImageSplit, turn: bool
) -> Iterator[tuple[Item, concurrent.futures.Future[Storable]]]:
    """Loads and decodes ahead of the consumer, a bounded number, in order."""
    num_threads = os.cpu_count() or 1
    pending: collections.deque[tuple[Item, concurrent.futures.Future[Storable]]]
    pending = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
        for item in split.items:
            future = pool.submit(lambda item: to_storable(item.load(), turn), item)
            pending.append((item, future))
            if len(pending) > 4 * num_threads:
                yield pending.popleft()
        yield from pending


def say(line: str) -> None:
    """Prints a line to stderr."""
    print(line, file=sys.stderr, flush=True)
