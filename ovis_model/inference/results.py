"""What `Ovis25Inference` returns: text that also knows its parts."""

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from PIL import Image

from ovis_model.inference.coco import GroundedImage, to_coco
from ovis_model.inference.generation import GenerationSettings
from ovis_model.inference.grounding import (
    Box,
    Grounding,
    Point,
    RequestType,
    draw_overlay,
    parse_grounding,
)
from ovis_model.inference.thinking import FinishReason, ParsedOutput, ThinkingClosed
from ovis_model.processing.processing_ovis2_5 import EncodedSample


@dataclass(frozen=True)
class Usage:
    """Tokens an answer took.

    Attributes:
        prompt_tokens: Positions of the prompt, visual ones included.
        visual_tokens: Positions that images or frames take, indicators included.
        thinking_tokens: Generated before the thought closed.
        answer_tokens: Generated after it.
        generated_tokens: Generated in all, end token and forced sentence included.
    """

    prompt_tokens: int
    visual_tokens: int
    thinking_tokens: int
    answer_tokens: int
    generated_tokens: int

    @classmethod
    def of(cls, prompt: EncodedSample, output: ParsedOutput) -> Self:
        """Count what a prompt and its output took."""
        return cls(
            prompt_tokens=len(prompt.input_ids),
            visual_tokens=int((prompt.input_ids < 0).sum()),
            thinking_tokens=output.thinking_tokens,
            answer_tokens=output.answer_tokens,
            generated_tokens=output.generated_tokens,
        )


class InferenceResult(str):
    """Everything the model wrote, as a `str`; its parts as attributes.

    Attributes:
        thinking: The thought, "" if there is none.
        answer: What follows the thought, "" if it never closed.
        finish_reason: "stop" if the model ended its turn, "stop_string" if a stop string did,
            "length" if max_new_tokens cut the output.
        thinking_closed: "natural", "forced" by the budget, "never" or "none".
        usage: Token counts.
        settings: How it was generated, defaults of the checkpoint included.
    """

    thinking: str
    answer: str
    finish_reason: FinishReason
    thinking_closed: ThinkingClosed
    usage: Usage
    settings: GenerationSettings

    def __new__(cls, output: ParsedOutput, usage: Usage, settings: GenerationSettings) -> Self:
        """Wrap a parsed output."""
        result = super().__new__(cls, output.text)
        result._output = output
        result.thinking = output.thinking
        result.answer = output.answer
        result.finish_reason = output.finish_reason
        result.thinking_closed = output.thinking_closed
        result.usage = usage
        result.settings = settings
        return result

    _output: ParsedOutput

    def __getnewargs__(self) -> tuple[Any, ...]:
        """Let results be copied and sent to other processes."""
        return self._output, self.usage, self.settings

    @property
    def output(self) -> ParsedOutput:
        """What was generated, taken apart."""
        return self._output

    @property
    def text(self) -> str:
        """The whole text as a plain `str`."""
        return str(self)

    @property
    def truncated_thinking(self) -> bool:
        """Whether the thought did not end by itself."""
        return self.thinking_closed in ("forced", "never")

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values that `json.dumps` takes."""
        return {
            "text": self.text,
            "thinking": self.thinking,
            "answer": self.answer,
            "finish_reason": self.finish_reason,
            "thinking_closed": self.thinking_closed,
            "truncated_thinking": self.truncated_thinking,
            "usage": asdict(self.usage),
            "settings": {**asdict(self.settings), "stop": list(self.settings.stop)},
        }


class GroundingResult(InferenceResult):
    """An answer that locates things; boxes and points are those of the answer, not the thought.

    Attributes:
        image: The picture that was asked about, upright.
        request_type: Whether boxes or points were asked for; it decides what coordinates
            without a tag mean.
    """

    image: Image.Image
    request_type: RequestType

    @classmethod
    def of(
        cls,
        output: ParsedOutput,
        usage: Usage,
        settings: GenerationSettings,
        *,
        image: Image.Image,
        request_type: RequestType,
    ) -> Self:
        """Wrap a parsed output about an image."""
        result = cls(output, usage, settings)
        result.image = image
        result.request_type = request_type
        return result

    @cached_property
    def grounding(self) -> Grounding:
        """What the answer locates, and how much of it could not be read."""
        return parse_grounding(self.answer, untagged=self.request_type)

    @property
    def boxes(self) -> tuple[Box, ...]:
        """Boxes as fractions of the image."""
        return self.grounding.boxes

    @property
    def points(self) -> tuple[Point, ...]:
        """Points as fractions of the image."""
        return self.grounding.points

    @property
    def pixel_boxes(self) -> list[tuple[float, float, float, float]]:
        """Boxes (x1, y1, x2, y2) in pixels of the image."""
        return [box.to_pixels(*self.image.size) for box in self.boxes]

    @property
    def pixel_points(self) -> list[tuple[float, float]]:
        """Points (x, y) in pixels of the image."""
        return [point.to_pixels(*self.image.size) for point in self.points]

    def overlay(self, colour: str = "red") -> Image.Image:
        """Draw what was located, with its labels, on a copy of the image."""
        located: list[Box | Point] = [*self.boxes, *self.points]
        marks = [(mark, colour) for mark in located]
        return draw_overlay(self.image, marks, with_labels=True)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values; coordinates as fractions and as pixels."""
        size = self.image.size
        return {
            **super().to_dict(),
            "image_size": list(size),
            "boxes": [_placed(box, list(box.to_pixels(*size))) for box in self.boxes],
            "points": [_placed(point, list(point.to_pixels(*size))) for point in self.points],
            "num_malformed": self.grounding.num_malformed,
        }

    def to_coco(self, file_name: str | Path) -> dict[str, Any]:
        """Return a COCO data set of this one image; see `coco.to_coco` for several."""
        return to_coco([GroundedImage(str(file_name), *self.image.size, self.grounding)])


def _placed(mark: Box | Point, pixels: list[float]) -> dict[str, Any]:
    return {**asdict(mark), "conforms": mark.conforms, "pixels": pixels}
