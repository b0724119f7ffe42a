"""One question of a benchmark, whatever the format it came in."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ovis_model.tokens import IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER

#: Fields that came later: an item without them has the fingerprint it always had.
_LATER = {"hint", "options", "alternatives", "columns", "box", "size"}


class BenchmarkItem(BaseModel):
    """One question with its media and its true answer.

    Media are names that the benchmark's `MediaStore` knows; two items with the same name show the
    same picture.

    Attributes:
        id: Unique within the benchmark; the `index` of a TSV.
        image: Images: files, or pictures inside a TSV, in the order they are shown.
        video: A video file, or its frames as image files.
        question: What is asked; with one `<image>` per image or one `<video>`, each a line of its
            own, where the benchmark's prompt is `verbatim`.
        answer: What a right answer is; a `<box>` for the metric `iou`.
        alternatives: What is right as well.
        hint: Shown before the question by prompts with options.
        options: Texts by letter.
        columns: All else that the row says, as text: category, split and the like.
        box: For the metric `grounding`: x1, y1, x2, y2 in pixels.
        size: Width and height of the image that `box` is in, in pixels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(min_length=1)
    image: tuple[str, ...] = ()
    video: str | tuple[str, ...] | None = None
    question: str = Field(min_length=1)
    answer: str = Field(min_length=1)
    alternatives: tuple[str, ...] = ()
    hint: str = ""
    options: Mapping[str, str] = Field(default_factory=dict)
    columns: Mapping[str, str] = Field(default_factory=dict)
    box: tuple[float, float, float, float] | None = None
    size: tuple[float, float] | None = None

    @field_validator("image", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("options")
    @classmethod
    def _capital_letters(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        for letter in value:
            if len(letter) != 1 or not "A" <= letter <= "Z":
                raise ValueError(f"an option is called by a letter A to Z, not {letter!r}")
        return value

    @model_validator(mode="after")
    def _images_or_video(self) -> Self:
        if self.image and self.video is not None:
            raise ValueError("an item has images or one video, not both")
        return self

    @property
    def answers(self) -> tuple[str, ...]:
        """Every right answer."""
        return (self.answer, *self.alternatives)

    @property
    def videos(self) -> tuple[str | tuple[str, ...], ...]:
        """The video as a tuple of none or one."""
        return () if self.video is None else (self.video,)

    @property
    def media(self) -> tuple[str, ...]:
        """All media of the item: images, the video file, or its frames."""
        if isinstance(self.video, str):
            return (self.video,)
        return self.image + (self.video or ())

    @property
    def prompt(self) -> str:
        """The question without placeholders, for people."""
        text = self.question.replace(IMAGE_PLACEHOLDER, "").replace(VIDEO_PLACEHOLDER, "")
        return text.strip()

    @property
    def exam_content(self) -> dict[str, Any]:
        """What of the item decides what a score means, for fingerprints."""
        content = self.model_dump(mode="json")
        return {key: value for key, value in content.items() if value or key not in _LATER}
