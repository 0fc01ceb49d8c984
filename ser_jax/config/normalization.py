"""Mean and standard deviation of the pictures of a data set, in [0, 1], per channel."""

RGB = tuple[float, float, float]

IMAGENET: tuple[RGB, RGB] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
DIGITS: tuple[RGB, RGB] = ((0.305, 0.305, 0.305), (0.376, 0.376, 0.376))

# As EquiMod (cifar10) and solo-learn (cifar100) have them.
_OWN: dict[str, tuple[RGB, RGB]] = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "digits": DIGITS,
}


def own_normalization(dataset: str) -> tuple[RGB, RGB]:
    """What the pictures of a data set are normalised by, if a config does not say.

    Args:
        dataset: Its name.

    Returns:
        Mean and standard deviation; ImageNet's for a set that is not known.
    """
    return _OWN.get(dataset, IMAGENET)
