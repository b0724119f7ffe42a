"""What an inspection finds at a path: plain facts that travel between processes as JSON."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from PIL import Image

Kind = Literal["image", "video"]


@dataclass(frozen=True, slots=True)
class MediaFact:
    """One image or video file, as it was when it was looked at.

    Attributes:
        path: As samples name it, relative to the folder of the raw data.
        kind: What a sample says it is.
        sha256: Digest of the file's bytes, or None if they were not read.
        pixels: Digest of the shown picture's size and RGB bytes, the same in whatever format it is
            stored without loss; None unless it was decoded.
        num_bytes: Size of the file.
        problem: Reason code (`reasons.MEDIA_PROBLEMS`) why it cannot be used, or None.
        detail: That problem in words, without the folder the data lies in.
        notes: Reason codes (`reasons.MEDIA_NOTES`) worth counting.
        format: What it is by content: "JPEG", "PNG", "mp4", ...
        mode: Pillow's mode of the stored pixels, such as "RGB" or "I;16"; None for a video.
        width, height: Pixels as the picture is shown, that is upright; of a video's frames.
        turned: Whether the stored picture had to be turned to be upright.
        look: What `ovis_model.data.media.images.look` says of the shown picture, or None where
            there is too little detail to compare (below 64 px a side, or of one colour).
        num_frames: Frames of a video, counted from its packets; None for an image.
        seconds: Duration of a video.
        frames_per_second: Mean frame rate of a video.
    """

    path: str
    kind: Kind
    sha256: str | None = None
    pixels: str | None = None
    num_bytes: int = 0
    problem: str | None = None
    detail: str | None = None
    notes: tuple[str, ...] = ()
    format: str | None = None
    mode: str | None = None
    width: int | None = None
    height: int | None = None
    turned: bool = False
    look: str | None = None
    num_frames: int | None = None
    seconds: float | None = None
    frames_per_second: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Take it back from JSON values.

        Example:
            >>> fact = MediaFact("a.png", "image", notes=("blank",))
            >>> MediaFact.from_dict(fact.to_dict()) == fact
            True
        """
        return cls(**{**values, "notes": tuple(values.get("notes", ()))})

    @property
    def content(self) -> str:
        """What tells it from other media: its pixels where they are known, else its bytes."""
        return self.pixels or self.sha256 or ""

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height, or None if unknown."""
        return None if self.width is None or self.height is None else (self.width, self.height)


def pixel_digest(image: Image.Image) -> str:
    """Return the hexadecimal sha256 of what a picture shows, the same in every lossless format.

    Args:
        image: Upright and in RGB.
    """
    shown = f"{image.width} {image.height} ".encode() + image.tobytes()
    return hashlib.sha256(shown).hexdigest()
