"""Which encoder of a file is meant, and whose layout it is."""

import dataclasses
from collections.abc import Sequence

from ser_jax.interop.answers import Given
from ser_jax.interop.files.refused import UnreadableError, shown
from ser_jax.interop.finding import Place
from ser_jax.interop.layouts import LAYOUTS
from ser_jax.interop.layouts.base import TARGETS, Layout


@dataclasses.dataclass(frozen=True, eq=False)
class Chosen:
    """An encoder of a file.

    Attributes:
        place: Where it is.
        layout: Its layout.
        role: Its role there.
        others: Roles of the other encoders.
    """

    place: Place
    layout: Layout
    role: str
    others: tuple[str, ...]


def choose(places: Sequence[Place], given: Given) -> Chosen:
    """The encoder that is meant.

    Args:
        places: All encoders of the file.
        given: What the user says: `layout` and `role`.

    Returns:
        The encoder: the layout's default if no role is given.

    Raises:
        UnreadableError: If the given layout does not fit, or it is not clear which
            encoder is meant.
    """
    layout = _layout(places, given.layout)
    found: dict[str, Place] = {}
    for place in places:
        role = layout.role(place)
        if role is None:
            continue
        if role in found:
            raise UnreadableError(
                f"has two encoders that are {role} in {layout.about}: "
                f"{found[role].where} and {place.where}; save the one that is meant"
            )
        found[role] = place
    in_order = [role for role in layout.roles if role in found]
    role = _role(in_order, given.role)
    others = tuple(x for x in in_order if x != role)
    return Chosen(found[role], layout, role, others)


def _layout(places: Sequence[Place], name: str | None) -> Layout:
    by_name = {layout.name: layout for layout in LAYOUTS}
    if name is not None and name not in by_name:
        raise UnreadableError(
            f"layout is one of {', '.join(by_name)}, not {shown(name)}"
        )
    fitting = [x for x in LAYOUTS if any(x.role(place) for place in places)]
    if name is None:
        return fitting[0]
    if by_name[name] not in fitting:
        where = ", ".join(place.where for place in places)
        raise UnreadableError(
            f"has no encoder of layout {name}: that at {where} is of "
            f"{' or '.join(x.name for x in fitting)}"
        )
    return by_name[name]


def _role(roles: Sequence[str], given: str | None) -> str:
    if given is None or given in roles:
        return given or roles[0]
    if given in ("online", "target"):
        wanted = [role for role in roles if (role in TARGETS) == (given == "target")]
        if wanted:
            return wanted[0]
    raise UnreadableError(
        f"has no encoder that is {shown(given)}: it has {', '.join(roles)}"
    )
