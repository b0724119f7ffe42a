"""Ask an Ovis2.5 about images, videos and text: the seed's six methods, kept callable.

    ovis = Ovis25Inference(model_path="models/finetuned")
    result = ovis.single_image_inference("digit.png", "Which digit is this?", enable_thinking=True,
                                         thinking_budget=2048)
    result             # all text, a `str`
    result.answer      # what follows the thought

An argument that is not given takes what the checkpoint was trained with, where it says so
(pixel limits, frames per video), else the value in the signature.
"""

# The signatures are the seed's.
# ruff: noqa: PLR0913, PLR0917

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import nn
from transformers.generation.streamers import BaseStreamer

from ovis_model.config import FrameSampling
from ovis_model.inference.defaults import (
    BUDGET,
    MANY_MAX_PIXELS,
    MAX_NEW_TOKENS,
    MIN_PIXELS,
    NUM_FRAMES,
    SINGLE_MAX_PIXELS,
    choose_settings,
    given,
)
from ovis_model.inference.generation import GenerationSettings, eos_ids, generate_ids
from ovis_model.inference.loading import choose_device, choose_dtype, find_checkpoint
from ovis_model.inference.pictures import ImageInput, VideoInput, open_frames, open_picture
from ovis_model.inference.results import GroundingResult, InferenceResult, Usage
from ovis_model.inference.streaming import StreamPiece, stream_text
from ovis_model.inference.thinking import ParsedOutput, parse_generation
from ovis_model.modeling.checkpoint import load_model
from ovis_model.processing.processing_ovis2_5 import EncodedSample, Ovis2_5Processor

RequestType = Literal["box", "point"]
REQUESTS: dict[str, str] = {
    "box": "Please provide the bounding box coordinates.",
    "point": "Please provide the point coordinates.",
}


class Ovis25Inference:
    """A loaded model and its processor."""

    def __init__(
        self,
        model_path: str | Path = "AIDC-AI/Ovis2.5-9B",
        device: str = "cuda",
        torch_dtype: torch.dtype = torch.bfloat16,
        *,
        dtype: torch.dtype | None = None,
        attn_implementation: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> None:
        """Load a checkpoint.

        Args:
            model_path: A checkpoint folder, or a name on the Hugging Face Hub.
            device: "auto", "cpu", "cuda" or "cuda:N"; without a GPU the CPU is used, and said.
            torch_dtype: Precision on a GPU.  On a CPU bfloat16 becomes float32, which is faster
                and more exact there.
            dtype: Precision anywhere, as it stands.
            attn_implementation: Attention of the language model; None lets transformers choose.
            revision: Of a model on the Hub.
            local_files_only: Never ask the Hub, use its cache alone.

        Raises:
            CheckpointError: If there is no such checkpoint, or it is incomplete.
        """
        path = find_checkpoint(model_path, revision=revision, local_files_only=local_files_only)
        self.device = choose_device(device)
        self.processor = Ovis2_5Processor.from_pretrained(path)
        self.model = load_model(
            path,
            dtype=dtype or choose_dtype(torch_dtype, self.device),
            attn_implementation=attn_implementation,
        )
        nn.Module.to(self.model, self.device)  # transformers' own `to` hides its signature

    def single_image_inference(
        self,
        image_input: ImageInput,
        text_prompt: str,
        enable_thinking: bool = False,
        enable_thinking_budget: bool = False,
        thinking_budget: int = BUDGET,
        max_new_tokens: int = MAX_NEW_TOKENS,
        temperature: float = 0.6,
        do_sample: bool = True,
        min_pixels: int = MIN_PIXELS,
        max_pixels: int = SINGLE_MAX_PIXELS,
    ) -> InferenceResult:
        """Ask about one image.

        Args:
            image_input: PIL image, path or http(s) address.
            text_prompt: The question.
            enable_thinking: Let the model think before it answers.
            enable_thinking_budget: Limit the thought; passing `thinking_budget` does so too.
            thinking_budget: Tokens after which the thought is closed.
            max_new_tokens: Tokens in all; not given, 3072 with thinking and 1024 without.
            temperature: Of sampling.
            do_sample: Sample; False takes the likeliest token.
            min_pixels: Smaller images are enlarged to this area.
            max_pixels: Larger ones are reduced to this area.

        Raises:
            ValueError: If the token limits leave no room for an answer.
            DataError: If the image cannot be used.
        """
        settings = choose_settings(
            thinking=(enable_thinking, enable_thinking_budget, thinking_budget),
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            do_sample=do_sample,
        )
        return self._ask(
            text_prompt,
            settings,
            images=[open_picture(image_input)],
            pixels=(min_pixels, max_pixels),
        )

    def single_image_inference_streaming(
        self,
        image_input: ImageInput,
        text_prompt: str,
        enable_thinking: bool = False,
        enable_thinking_budget: bool = False,
        thinking_budget: int = BUDGET,
        max_new_tokens: int = MAX_NEW_TOKENS,
        temperature: float = 0.6,
        min_pixels: int = MIN_PIXELS,
        max_pixels: int = SINGLE_MAX_PIXELS,
    ) -> Generator[StreamPiece, None, InferenceResult]:
        """Ask about one image and read the text as it is written.

        Arguments are those of `single_image_inference`; a temperature of 0 is greedy.

        Returns:
            A generator of text pieces, each with its `phase`, "thinking" or "answer".  Its return
            value is the whole result; closing it stops the model.

        Raises:
            ValueError: At once, if the token limits leave no room for an answer.
            DataError: At once, if the image cannot be used.
        """
        settings = choose_settings(
            thinking=(enable_thinking, enable_thinking_budget, thinking_budget),
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            do_sample=temperature > 0,
        )
        prompt = self._encode(
            text_prompt,
            settings,
            images=[open_picture(image_input)],
            pixels=(min_pixels, max_pixels),
        )
        return self._stream(prompt, settings)

    def multi_image_inference(
        self,
        image_paths: Sequence[ImageInput],
        text_prompt: str,
        max_new_tokens: int = MAX_NEW_TOKENS,
        temperature: float = 0.6,
        do_sample: bool = True,
        max_pixels: int = MANY_MAX_PIXELS,
        *,
        enable_thinking: bool = False,
        enable_thinking_budget: bool = False,
        thinking_budget: int = BUDGET,
        min_pixels: int = MIN_PIXELS,
    ) -> InferenceResult:
        """Ask about several images, shown in order before the question.

        Raises:
            ValueError: If there is no image, or no room for an answer.
            DataError: If an image cannot be used.
        """
        if not image_paths:
            raise ValueError("multi_image_inference needs at least one image")
        settings = choose_settings(
            thinking=(enable_thinking, enable_thinking_budget, thinking_budget),
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            do_sample=do_sample,
        )
        images = [open_picture(image) for image in image_paths]
        return self._ask(text_prompt, settings, images=images, pixels=(min_pixels, max_pixels))

    def video_inference(
        self,
        video_path: VideoInput,
        text_prompt: str,
        num_frames: int = NUM_FRAMES,
        max_new_tokens: int = MAX_NEW_TOKENS,
        temperature: float = 0.6,
        do_sample: bool = True,
        max_pixels: int = MANY_MAX_PIXELS,
        *,
        enable_thinking: bool = False,
        enable_thinking_budget: bool = False,
        thinking_budget: int = BUDGET,
        min_pixels: int = MIN_PIXELS,
    ) -> InferenceResult:
        """Ask about a video.

        Args:
            video_path: A video file, or a sequence of frames.
            text_prompt: The question.
            num_frames: Frames taken of a file; not given, as many as in training.
            max_new_tokens: See `single_image_inference`; likewise the other arguments.
            temperature: Of sampling.
            do_sample: Sample; False takes the likeliest token.
            max_pixels: Larger frames are reduced to this area.
            enable_thinking: Let the model think before it answers.
            enable_thinking_budget: Limit the thought.
            thinking_budget: Tokens after which the thought is closed.
            min_pixels: Smaller frames are enlarged to this area.

        Raises:
            ValueError: If the token limits leave no room for an answer.
            DataError: If the video cannot be used.
        """
        settings = choose_settings(
            thinking=(enable_thinking, enable_thinking_budget, thinking_budget),
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            do_sample=do_sample,
        )
        sampling = self.processor.frame_sampling
        if given(num_frames) is not None:
            sampling = FrameSampling(min_frames=num_frames, max_frames=num_frames)
        return self._ask(
            text_prompt,
            settings,
            frames=open_frames(video_path, sampling),
            pixels=(min_pixels, max_pixels),
        )

    def text_only_inference(
        self,
        text_prompt: str,
        max_new_tokens: int = MAX_NEW_TOKENS,
        temperature: float = 0.6,
        do_sample: bool = True,
        enable_thinking: bool = False,
        enable_thinking_budget: bool = False,
        thinking_budget: int = BUDGET,
    ) -> InferenceResult:
        """Ask without any picture.

        Raises:
            ValueError: If the token limits leave no room for an answer.
        """
        settings = choose_settings(
            thinking=(enable_thinking, enable_thinking_budget, thinking_budget),
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            do_sample=do_sample,
        )
        return self._ask(text_prompt, settings)

    def grounding_inference(
        self,
        image_input: ImageInput,
        text_prompt: str,
        request_type: RequestType = "box",
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        enable_thinking: bool = False,
        enable_thinking_budget: bool = False,
        thinking_budget: int = BUDGET,
        min_pixels: int = MIN_PIXELS,
        max_pixels: int = SINGLE_MAX_PIXELS,
    ) -> GroundingResult:
        """Ask where something is; greedy.

        Args:
            image_input: PIL image, path or http(s) address.
            text_prompt: What to find, best inside `<ref>` and `</ref>`.
            request_type: "box" or "point".
            max_new_tokens: See `single_image_inference`; likewise the other arguments.
            enable_thinking: Let the model think before it answers.
            enable_thinking_budget: Limit the thought.
            thinking_budget: Tokens after which the thought is closed.
            min_pixels: Smaller images are enlarged to this area.
            max_pixels: Larger ones are reduced to this area.

        Raises:
            ValueError: If the prompt is empty or the request type unknown.
            DataError: If the image cannot be used.
        """
        prompt = grounding_prompt(text_prompt, request_type)
        settings = choose_settings(
            thinking=(enable_thinking, enable_thinking_budget, thinking_budget),
            max_new_tokens=max_new_tokens,
            temperature=0.0,
            do_sample=False,
        )
        image = open_picture(image_input)
        encoded = self._encode(prompt, settings, images=[image], pixels=(min_pixels, max_pixels))
        output, usage = self._generate(encoded, settings)
        return GroundingResult.of(output, usage, image)

    def _ask(self, text: str, settings: GenerationSettings, **pictures: Any) -> InferenceResult:
        return InferenceResult(*self._generate(self._encode(text, settings, **pictures), settings))

    def _encode(
        self,
        text: str,
        settings: GenerationSettings,
        *,
        images: Sequence[Image.Image] = (),
        frames: Sequence[Image.Image] | None = None,
        pixels: tuple[int, int] = (MIN_PIXELS, SINGLE_MAX_PIXELS),
    ) -> EncodedSample:
        """Encode one question; pictures come before the text, as in training."""
        settings.check(self.processor.token_ids)
        shown = [{"type": "image"}] * len(images) if frames is None else [{"type": "video"}]
        content = [*shown, {"type": "text", "text": text}]
        return self.processor.encode_prompt(
            [{"role": "user", "content": content}],
            images=images,
            frames=frames,
            enable_thinking=settings.enable_thinking,
            min_pixels=given(pixels[0]),
            max_pixels=given(pixels[1]),
        )

    def _generate(
        self, prompt: EncodedSample, settings: GenerationSettings
    ) -> tuple[ParsedOutput, Usage]:
        row = generate_ids(self.model, self.processor, [prompt], settings)[0].tolist()
        return self._parse(prompt, row)

    def _stream(
        self, prompt: EncodedSample, settings: GenerationSettings
    ) -> Generator[StreamPiece, None, InferenceResult]:
        def generate(streamer: BaseStreamer) -> torch.Tensor:
            return generate_ids(self.model, self.processor, [prompt], settings, streamer=streamer)

        token_ids = self.processor.token_ids
        row = yield from stream_text(
            generate, self.processor.tokenizer, token_ids, eos_ids=eos_ids(token_ids)
        )
        return InferenceResult(*self._parse(prompt, row))

    def _parse(self, prompt: EncodedSample, row: list[int]) -> tuple[ParsedOutput, Usage]:
        token_ids = self.processor.token_ids
        output = parse_generation(
            row, self.processor.tokenizer, token_ids, eos_ids=eos_ids(token_ids)
        )
        usage = Usage(
            prompt_tokens=len(prompt.input_ids),
            visual_tokens=int((prompt.input_ids < 0).sum()),
            thinking_tokens=output.thinking_tokens,
            answer_tokens=output.answer_tokens,
            generated_tokens=output.generated_tokens,
        )
        return output, usage


def grounding_prompt(text: str, request_type: str) -> str:
    """Write a request for boxes or points in the words Ovis2.5 was taught.

    Raises:
        ValueError: If there is nothing to find, or the request type is unknown.

    Example:
        >>> grounding_prompt("Find the <ref>red apple</ref>", "point")
        'Find the <ref>red apple</ref>. Please provide the point coordinates.'
    """
    if request_type not in REQUESTS:
        raise ValueError(f"request_type is one of {', '.join(REQUESTS)}, not {request_type!r}")
    wanted = text.strip()
    if not wanted:
        raise ValueError("grounding needs a prompt that says what to find")
    if not wanted.endswith("."):
        wanted += "."
    return f"{wanted} {REQUESTS[request_type]}"
