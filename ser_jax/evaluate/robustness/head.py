"""The linear head as the classifier of other images."""

import logging
from typing import Any

from ser_jax.evaluate.classify.classifier import Classify
from ser_jax.evaluate.classify.linear import HeadOptions, linear_head
from ser_jax.evaluate.subject import Subject

_logger = logging.getLogger(__name__)


def head_classifier(
    subject: Subject, options: HeadOptions
) -> tuple[Classify, dict[str, Any]]:
    """The head that the task `linear` chooses, on its encoder.

    Args:
        subject: Whose.
        options: With which protocol.

    Returns:
        The classifier, and which it is, for the results.
    """
    head, feature = linear_head(subject, options)
    about = {"protocol": options.protocol, "feature": feature}
    return subject.classifier(head, feature), {"head": about}


def log_pass(name: str, done: int, total: int) -> None:
    """Says which pass over images comes next."""
    _logger.info("%s (pass %d of %d)", name, done + 1, total)


def not_generated(subject: Subject, flag: str) -> str | None:
    """Why images cannot be made here; None if they can.

    Args:
        subject: Whose images they would be made of.
        flag: What names published ones: "--corrupted=DIR".

    Returns:
        The reason, and what to do.
    """
    if subject.image_size in (32, 224):
        return None
    return (
        "images can be generated at 32 and 224 px, this encoder reads "
        f"{subject.image_size} px; give the published files, {flag}."
    )
