"""Ask an Ovis2.5 about images, videos and text: the seed's six methods, kept callable.

    ovis = Ovis25Inference(model_path="models/finetuned")
    result = ovis.single_image_inference("digit.png", "Which digit is this?", enable_thinking=True,
                                         thinking_budget=2048)
    result             # all text, a `str`
    result.answer      # what follows the thought

Every method has a twin that streams, with `_streaming` at the end of its name; `chat` begins a
conversation, `batch_inference` answers many requests.  An argument that is not given takes what
the checkpoint was trained with, where it says so (pixel limits, frames per video, top_p, top_k,
repetition_penalty), else the value in the signature.
"""

# The signatures are the seed's.
# ruff: noqa: PLR0913, PLR0917

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import nn

from ovis_model.inference.auto_budget import read_auto_budget
from ovis_model.inference.batch import (
    Batch,
    BatchAnswer,
    BatchInput,
    read_requests,
    write_answers,
)
from ovis_model.inference.chat import ChatSession
from ovis_model.inference.defaults import (
    BUDGET,
    MANY_MAX_PIXELS,
    MAX_NEW_TOKENS,
    MIN_PIXELS,
    NUM_FRAMES,
    SINGLE_MAX_PIXELS,
    Budget,
    Options,
    SamplingDefaults,
    SettingsChooser,
    given,
)
from ovis_model.inference.engine import (
    OWN_PIXELS,
    Engine,
    Pixels,
    Question,
    answered,
    first_messages,
    streamed,
)
from ovis_model.inference.generation import GenerationSettings
from ovis_model.inference.grounding import RequestType
from ovis_model.inference.loading import choose_device, choose_dtype, find_checkpoint
from ovis_model.inference.messages import grounding_prompt
from ovis_model.inference.pictures import (
    ImageInput,
    Media,
    VideoInput,
    open_frames,
    open_media,
    open_picture,
)
from ovis_model.inference.results import GroundingResult, InferenceResult
from ovis_model.inference.streaming import AnswerStream
from ovis_model.modeling.checkpoint import load_model
from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor

log = logging.getLogger(__name__)


class Ovis25Inference:
    """A loaded model and its processor.

    All methods take `Options` as further keyword arguments: a system message, stop strings, a
    seed, and how to sample.
    """

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
            attn_implementation: One of `attention.IMPLEMENTATIONS`; None means "auto".
            revision: Of a model on the Hub.
            local_files_only: Never ask the Hub, use its cache alone.

        Raises:
            CheckpointError: If there is no such checkpoint, or it is incomplete.
        """
        path = find_checkpoint(model_path, revision=revision, local_files_only=local_files_only)
        self.device = choose_device(device)
        self.processor = Ovis2_5Processor.from_pretrained(path)
        defaults = SamplingDefaults.read(path)
        self.model = load_model(
            path,
            dtype=dtype or choose_dtype(torch_dtype, self.device),
            attn_implementation=attn_implementation,
        )
        nn.Module.to(self.model, self.device)  # transformers' own `to` hides its signature
        log.info("attention: vit %(vit)s; llm %(llm)s", self.model.attention_in_use)
        self.engine = Engine(
            self.model, self.processor, SettingsChooser(defaults, partial(read_auto_budget, path))
        )

    def _single_image_inference(
        self,
        image_input: ImageInput,
        text_prompt: str,
        enable_thinking: bool = False,
        enable_thinking_budget: bool = False,
        thinking_budget: Budget = BUDGET,
        max_new_tokens: int = MAX_NEW_TOKENS,
        temperature: float = 0.6,
        do_sample: bool = True,
        min_pixels: int = MIN_PIXELS,
        max_pixels: int = SINGLE_MAX_PIXELS,
        **options: Unpack[Options],
    ) -> Question[InferenceResult]:
        """Ask about one image.

        Args:
            image_input: Path, http(s) address, data: URL, base64, bytes, PIL image or uint8 array.
            text_prompt: The question.
            enable_thinking: Let the model think before it answers.
            enable_thinking_budget: Limit the thought; passing `thinking_budget` does so too.
            thinking_budget: Tokens after which the thought is closed; "auto" is what
                `ovis eval sweep` recorded.
            max_new_tokens: Tokens in all; not given, 3072 with thinking and 1024 without.
            temperature: Of sampling.
            do_sample: Sample; False takes the likeliest token.
            min_pixels: Smaller images are enlarged to this area.
            max_pixels: Larger ones are reduced to this area.
            **options: See `Options`.

        Raises:
            ValueError: If the arguments cannot work together.
            DataError: If the image cannot be used.
        """
        thinking = (enable_thinking, enable_thinking_budget, thinking_budget)
        choose = self.engine.settings.choose
        settings = choose(thinking, max_new_tokens, temperature, do_sample, options)
        media = Media(images=(open_picture(image_input),))
        return self._ask(text_prompt, settings, media, (min_pixels, max_pixels), options)

    single_image_inference = answered(_single_image_inference)

    def single_image_inference_streaming(
        self,
        image_input: ImageInput,
        text_prompt: str,
        enable_thinking: bool = False,
        enable_thinking_budget: bool = False,
        thinking_budget: Budget = BUDGET,
        max_new_tokens: int = MAX_NEW_TOKENS,
        temperature: float = 0.6,
        min_pixels: int = MIN_PIXELS,
        max_pixels: int = SINGLE_MAX_PIXELS,
        **options: Unpack[Options],
    ) -> AnswerStream[InferenceResult]:
        """Ask about one image and read the text as it is written.

        Arguments are those of `single_image_inference`; a temperature of 0 is greedy.

        Returns:
            Text pieces for `for` or `async for`, each with its `phase`, "thinking" or "answer";
            then `result` is the whole answer.  Closing it stops the model.

        Raises:
            ValueError: At once, if the arguments cannot work together.
            DataError: At once, if the image cannot be used.
        """
        return self.engine.stream(
            self._single_image_inference(
                image_input,
                text_prompt,
                enable_thinking,
                enable_thinking_budget,
                thinking_budget,
                max_new_tokens,
                temperature,
                temperature > 0,
                min_pixels,
                max_pixels,
                **options,
            )
        )

    def _multi_image_inference(
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
        thinking_budget: Budget = BUDGET,
        min_pixels: int = MIN_PIXELS,
        **options: Unpack[Options],
    ) -> Question[InferenceResult]:
        """Ask about several images, shown in order before the question.

        Raises:
            ValueError: If there is no image, or the arguments cannot work together.
            DataError: If an image cannot be used.
        """
        if len(image_paths) == 0:
            raise ValueError("multi_image_inference needs at least one image")
        thinking = (enable_thinking, enable_thinking_budget, thinking_budget)
        choose = self.engine.settings.choose
        settings = choose(thinking, max_new_tokens, temperature, do_sample, options)
        media = open_media(image_paths, None, self.processor.frame_sampling)
        return self._ask(text_prompt, settings, media, (min_pixels, max_pixels), options)

    multi_image_inference = answered(_multi_image_inference)
    multi_image_inference_streaming = streamed(_multi_image_inference)

    def _video_inference(
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
        thinking_budget: Budget = BUDGET,
        min_pixels: int = MIN_PIXELS,
        **options: Unpack[Options],
    ) -> Question[InferenceResult]:
        """Ask about a video.

        Args:
            video_path: A video file, its http(s) address, a folder of frames, or the frames.
            text_prompt: The question.
            num_frames: Frames to take; not given, as many as in training, and all of a list.
            max_new_tokens: See `single_image_inference`; likewise the other arguments.
            temperature: Of sampling.
            do_sample: Sample; False takes the likeliest token.
            max_pixels: Larger frames are reduced to this area.
            enable_thinking: Let the model think before it answers.
            enable_thinking_budget: Limit the thought.
            thinking_budget: Tokens after which the thought is closed.
            min_pixels: Smaller frames are enlarged to this area.
            **options: See `Options`.

        Raises:
            ValueError: If the arguments cannot work together.
            DataError: If the video cannot be used.
        """
        thinking = (enable_thinking, enable_thinking_budget, thinking_budget)
        choose = self.engine.settings.choose
        settings = choose(thinking, max_new_tokens, temperature, do_sample, options)
        frames = open_frames(video_path, self.processor.frame_sampling, given(num_frames))
        media = Media(frames=tuple(frames))
        return self._ask(text_prompt, settings, media, (min_pixels, max_pixels), options)

    video_inference = answered(_video_inference)
    video_inference_streaming = streamed(_video_inference)

    def _text_only_inference(
        self,
        text_prompt: str,
        max_new_tokens: int = MAX_NEW_TOKENS,
        temperature: float = 0.6,
        do_sample: bool = True,
        enable_thinking: bool = False,
        enable_thinking_budget: bool = False,
        thinking_budget: Budget = BUDGET,
        **options: Unpack[Options],
    ) -> Question[InferenceResult]:
        """Ask without any picture.

        Raises:
            ValueError: If the arguments cannot work together.
        """
        thinking = (enable_thinking, enable_thinking_budget, thinking_budget)
        choose = self.engine.settings.choose
        settings = choose(thinking, max_new_tokens, temperature, do_sample, options)
        return self._ask(text_prompt, settings, Media(), OWN_PIXELS, options)

    text_only_inference = answered(_text_only_inference)
    text_only_inference_streaming = streamed(_text_only_inference)

    def _grounding_inference(
        self,
        image_input: ImageInput,
        text_prompt: str,
        request_type: RequestType = "box",
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        enable_thinking: bool = False,
        enable_thinking_budget: bool = False,
        thinking_budget: Budget = BUDGET,
        min_pixels: int = MIN_PIXELS,
        max_pixels: int = SINGLE_MAX_PIXELS,
        **options: Unpack[Options],
    ) -> Question[GroundingResult]:
        """Ask where something is; greedy.

        Args:
            image_input: See `single_image_inference`.
            text_prompt: What to find, best inside `<ref>` and `</ref>`.
            request_type: "box" or "point".
            max_new_tokens: See `single_image_inference`; likewise the other arguments.
            enable_thinking: Let the model think before it answers.
            enable_thinking_budget: Limit the thought.
            thinking_budget: Tokens after which the thought is closed.
            min_pixels: Smaller images are enlarged to this area.
            max_pixels: Larger ones are reduced to this area.
            **options: See `Options`.

        Raises:
            ValueError: If the prompt is empty or the request type unknown.
            DataError: If the image cannot be used.
        """
        prompt = grounding_prompt(text_prompt, request_type)
        thinking = (enable_thinking, enable_thinking_budget, thinking_budget)
        choose = self.engine.settings.choose
        settings = choose(thinking, max_new_tokens, 0.0, False, options)
        image = open_picture(image_input)
        asked = self._ask(
            prompt, settings, Media(images=(image,)), (min_pixels, max_pixels), options
        )

        def locate(*parts: Any) -> GroundingResult:
            return GroundingResult.of(*parts, image=image, request_type=request_type)

        return Question(asked.prompt, settings, locate)

    grounding_inference = answered(_grounding_inference)
    grounding_inference_streaming = streamed(_grounding_inference)

    def batch_inference(
        self,
        requests: BatchInput,
        prompt: str | None = None,
        *,
        batch_size: int = 8,
        output: str | Path | None = None,
        enable_thinking: bool = False,
        enable_thinking_budget: bool = False,
        thinking_budget: Budget = BUDGET,
        max_new_tokens: int = MAX_NEW_TOKENS,
        temperature: float = 0.6,
        do_sample: bool = True,
        num_frames: int = NUM_FRAMES,
        min_pixels: int = MIN_PIXELS,
        max_pixels: int = SINGLE_MAX_PIXELS,
        **options: Unpack[Options],
    ) -> list[BatchAnswer]:
        """Answer many requests, several at a time; those on the same media read them once.

        Args:
            requests: A list of `Request`s, of mappings with the same keys or of plain prompts; a
                JSONL file of such mappings; or a folder of images.
            prompt: For requests without one of their own, so for a folder.
            batch_size: Requests generated together.
            output: A JSONL file that receives the answers, or None.
            enable_thinking: See `single_image_inference`; likewise the other arguments.
            enable_thinking_budget: Limit the thought.
            thinking_budget: Tokens after which the thought is closed.
            max_new_tokens: Tokens of each answer.
            temperature: Of sampling.
            do_sample: Sample; False takes the likeliest token, as a single request would.
            num_frames: Frames taken of a video.
            min_pixels: Smaller pictures are enlarged to this area.
            max_pixels: Larger ones are reduced to this area.
            **options: See `Options`; a request's own system message goes before this one.

        Returns:
            One answer per request, in their order; a request that cannot be used has an `error`
            instead of a `result`.

        Raises:
            ValueError: If the arguments cannot work, whatever the request.
            DataError: If the JSONL file or the folder cannot be read.
        """
        thinking = (enable_thinking, enable_thinking_budget, thinking_budget)
        choose = self.engine.settings.choose
        settings = choose(thinking, max_new_tokens, temperature, do_sample, options)
        batch = Batch(
            self.engine,
            settings,
            batch_size=batch_size,
            pixels=(min_pixels, max_pixels),
            num_frames=given(num_frames),
            system=options.get("system"),
        )
        answers = batch.answer(read_requests(requests, prompt))
        if output is not None:
            write_answers(Path(output), answers)
        return answers

    def chat(
        self,
        system: str | None = None,
        *,
        min_pixels: int = MIN_PIXELS,
        max_pixels: int = SINGLE_MAX_PIXELS,
    ) -> ChatSession:
        """Begin a conversation, each turn of which may show images.

        Args:
            system: A system message, or None.
            min_pixels: Smaller pictures are enlarged to this area.
            max_pixels: Larger ones are reduced to this area.
        """
        return ChatSession(self.engine, system=system, pixels=(min_pixels, max_pixels))

    def _ask(
        self,
        text: str,
        settings: GenerationSettings,
        media: Media,
        pixels: Pixels,
        options: Options,
    ) -> Question[InferenceResult]:
        messages = first_messages(text, media, options.get("system"))
        prompt = self.engine.encode(messages, settings, media, pixels)
        return Question(prompt, settings, InferenceResult)
