"""What validation and extraction report; apart from them, because reading a report is instant."""

from ovis_model.reports import Report


class ExpectationReport(Report):
    """What one expectation found."""

    description: str
    passed: bool
    num_bad: int
    examples: list[str]


class QuarantinedSample(Report):
    """One sample set aside: why, by reason code, and where in the annotation file it stands."""

    id: str
    place: str
    reasons: dict[str, str]


class ValidationReport(Report):
    """What validation found; `passed` says whether the outputs were written."""

    passed: bool
    num_samples: int
    num_ok: int
    num_quarantined: int
    bad_fraction: float
    max_bad_fraction: float
    num_train: int
    num_holdout: int
    num_media: int
    num_groups: int
    largest_group: int
    num_generated_ids: int
    ignored_keys: dict[str, int]
    kinds: dict[str, int]
    expectations: dict[str, ExpectationReport]
    quarantined: list[QuarantinedSample]


class ExtractionReport(Report):
    """What extraction wrote."""

    num_samples: dict[str, int]
    num_images: int
    num_videos: int
    num_frames: int
    num_unique_media: int
    media_bytes: int
    frame_sampling: dict[str, str | int]
