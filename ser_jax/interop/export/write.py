"""From an encoder to a folder."""

from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from ser_jax.interop.export.card import card
from ser_jax.interop.export.outgoing import outgoing
from ser_jax.interop.export.targets import TARGETS
from ser_jax.storage.files import PathLike, as_path, whole_folder, write_text


def export(
    module: Any,
    variables: Mapping[str, Any],
    mean: Sequence[float],
    std: Sequence[float],
    folder: PathLike,
    *,
    to: str,
    about: Mapping[str, Any],
) -> list[epath.Path]:
    """Writes an encoder for other programs, with a model card; all of it or nothing.

    Args:
        module: A `ViT` or a `ResNet`.
        variables: Its variables: {"params"}, and "batch_stats" of a ResNet.
        mean: Channel means of normalised images.
        std: Channel standard deviations.
        folder: Where; absent or empty.
        to: Which format, of `TARGETS`.
        about: For the card, in its order: name to text or number ("recipe", "data",
            "seed" and so on); under "measured", name to number.

    Returns:
        The files.

    Raises:
        ValueError: If the format is not known or cannot hold the encoder, or weights
            and module are not of one encoder, or not finite.
        FileExistsError: If there is something in the folder.
    """
    if to not in TARGETS:
        raise ValueError(f"expected one of {', '.join(TARGETS)}, got {to!r}.")
    target, encoder = TARGETS[to], outgoing(module, variables, mean, std)
    if refusal := target.refusal(encoder):
        raise ValueError(f"{to}: {refusal}")
    path = as_path(folder)
    with whole_folder(path) as partial:
        target.write(encoder, partial)
        write_text(partial / "README.md", card(target, encoder, path.name, about))
    return sorted(path.iterdir())
