"""Whether pictures look otherwise where their averages do not tell: a classifier two-sample test.

Half of the pictures is there to fit a line that tells the two sides apart, the other half to see
whether it does.  What is fitted has not seen what is tested, so that the test may take the places
along the line for any other number.  A picture's half is decided by its content: new data often
holds some of the old, and a picture in different halves of the two sides would be both.

Source: Lopez-Paz and Oquab, Revisiting classifier two-sample tests, 2017; the classifier is
Fisher's linear discriminant.
"""

import hashlib

import numpy as np

from ovis_model.drift.pictures import TINY_SIDE
from ovis_model.drift.profile import Profile

#: Share of the mean variance that is added to every direction: pictures have nearly empty ones.
SHRINKAGE = 0.1
#: Pictures that each side needs to fit a line.
MIN_FITTED = 20


def score_looks(reference: Profile, new: Profile) -> list[np.ndarray]:
    """Place the pictures of the half that is tested along the line.

    Returns:
        Per side float64 [num_samples]; NaN for the half that was fitted and for samples without a
        picture.  All NaN where a side has too few to fit.
    """
    sides = [_Side(profile) for profile in (reference, new)]
    scores = [np.full(len(side.is_fitted), np.nan) for side in sides]
    if min(int(side.is_fitted.sum()) for side in sides) < MIN_FITTED:
        return scores
    line = fit_line(*(side.pictures[side.is_fitted] for side in sides))
    for side, places in zip(sides, scores, strict=True):
        places[side.is_tested] = side.pictures[side.is_tested] @ line
    return scores


class _Side:
    """Pictures float64 [num_samples, num_pixels] from 0 to 1, and what each is there for."""

    def __init__(self, profile: Profile) -> None:
        content = bytes.fromhex("".join(one or "00" * TINY_SIDE**2 for one in profile.tiny))
        self.pictures = np.frombuffer(content, np.uint8).reshape(-1, TINY_SIDE**2) / 255
        self.is_fitted = np.array([bool(one) and _is_first_half(one) for one in profile.tiny])
        self.is_tested = np.array([bool(one) for one in profile.tiny]) & ~self.is_fitted


def _is_first_half(tiny: str) -> bool:
    return hashlib.blake2b(tiny.encode(), digest_size=1).digest()[0] % 2 == 0


def fit_line(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the direction in which the sides differ most, in units of how they vary.

    Args:
        first: Pictures float64 [num_first, num_pixels].
        second: Likewise, [num_second, num_pixels].

    Returns:
        float64 [num_pixels], of length 1; zero where the sides have the same mean.
    """
    means = [side.mean(axis=0) for side in (first, second)]
    centred = np.concatenate([first - means[0], second - means[1]])
    covariance = centred.T @ centred / len(centred)
    ridge = SHRINKAGE * np.trace(covariance) / len(covariance) + 1e-9
    direction: np.ndarray = np.linalg.solve(
        covariance + ridge * np.eye(len(covariance)), means[1] - means[0]
    )
    return direction / (np.linalg.norm(direction) or 1.0)
