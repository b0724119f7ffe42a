"""How sure a score is."""

import math

#: Two-sided 95 % quantile of the normal distribution.
Z_95 = 1.959963984540054


def wilson_interval(num_correct: int, num_items: int, *, z: float = Z_95) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion, as fractions 0 to 1.

    Unlike the textbook interval it stays inside [0, 1] and has a width at 0 and at 100 %.

    Raises:
        ValueError: If there are no items, or more correct ones than items.

    Example:
        >>> low, high = wilson_interval(20, 20)
        >>> round(low, 4), high
        (0.8389, 1.0)
    """
    if num_items < 1 or not 0 <= num_correct <= num_items:
        raise ValueError(f"{num_correct} correct of {num_items} items is not a proportion")
    share = num_correct / num_items
    spread = z**2 / num_items
    centre = share + spread / 2
    margin = z * math.sqrt(share * (1 - share) / num_items + spread / (4 * num_items))
    low, high = (centre - margin) / (1 + spread), (centre + margin) / (1 + spread)
    # At the ends the formula is exact, its floating point is not.
    return (0.0 if num_correct == 0 else low), (1.0 if num_correct == num_items else high)
