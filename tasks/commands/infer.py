"""`ovis infer`: ask a model from the command line.

ovis infer models/finetuned "Which digit is this?" --image digit.png
ovis infer models/finetuned --batch requests.jsonl --output answers.jsonl
"""

import argparse
import json
import sys
from typing import Any

from ovis_model.errors import ConfigError


def add_parser(commands: Any) -> None:
    """Add the command to those of `ovis`.

    Args:
        commands: What `add_subparsers` returned.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        "infer", help="ask a model about images, a video or nothing but itself"
    )
    parser.add_argument("model", help="a checkpoint folder, or a name on the Hugging Face Hub")
    parser.add_argument("prompt", nargs="?", help="the question; with --batch, the common one")
    parser.add_argument("--image", action="append", default=[], help="path or address; repeatable")
    parser.add_argument("--video", help="a video file, its address, or a folder of frames")
    parser.add_argument("--batch", help="a JSONL file of requests, or a folder of images")
    parser.add_argument("--output", help="the JSONL file that receives a batch's answers")
    parser.add_argument("--system", help="a system message")
    parser.add_argument("--thinking", action="store_true", help="think before answering")
    parser.add_argument(
        "--thinking-budget", type=_budget, help="tokens of thinking, or auto; implies it"
    )
    parser.add_argument("--max-new-tokens", type=int, help="tokens in all")
    parser.add_argument("--greedy", action="store_true", help="take the likeliest token, always")
    parser.add_argument("--seed", type=int, help="of sampling")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")


def _budget(text: str) -> int | str:
    """Read a number of tokens, or `auto`: what `ovis eval sweep` recorded."""
    return text if text == "auto" else int(text)


def infer(options: argparse.Namespace) -> None:
    """Answer one question, or a batch of them.

    Raises:
        ConfigError: If the arguments cannot work together.
        OvisError: If the model or what it is shown cannot be used.
    """
    _check(options)
    # Imported here: torch takes seconds, which `ovis status` need not wait for.
    from ovis_model.inference.ovis25_inference import Ovis25Inference  # noqa: PLC0415

    try:
        ovis = Ovis25Inference(options.model, device="auto")
        if options.batch:
            _answer_batch(ovis, options)
        else:
            _answer(ovis, options)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _check(options: argparse.Namespace) -> None:
    if options.batch and not options.output:
        raise ConfigError("--batch needs --output, the file that receives the answers")
    if options.batch and (options.image or options.video or options.json):
        raise ConfigError("--batch names its own media, and always writes JSON")
    if not options.batch and options.prompt is None:
        raise ConfigError("say what to ask, or give --batch")
    if not options.batch and options.output:
        raise ConfigError("--output belongs to --batch; redirect the text of one answer instead")


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    chosen = {
        "thinking_budget": options.thinking_budget,
        "max_new_tokens": options.max_new_tokens,
        "seed": options.seed,
    }
    given = {name: value for name, value in chosen.items() if value is not None}
    thinking = options.thinking or options.thinking_budget is not None
    return {"enable_thinking": thinking, "do_sample": not options.greedy, **given}


def _answer(ovis: Any, options: argparse.Namespace) -> None:
    chat = ovis.chat(system=options.system)
    stream = chat.send_streaming(
        options.prompt, images=options.image, video=options.video, **_settings(options)
    )
    for piece in stream:
        if not options.json:
            sys.stdout.write(piece)
            sys.stdout.flush()
    sys.stdout.write(json.dumps(stream.result.to_dict()) + "\n" if options.json else "\n")


def _answer_batch(ovis: Any, options: argparse.Namespace) -> None:
    system = {} if options.system is None else {"system": options.system}
    answers = ovis.batch_inference(
        options.batch, options.prompt, output=options.output, **system, **_settings(options)
    )
    failed = [answer for answer in answers if answer.error is not None]
    sys.stdout.write(f"{len(answers) - len(failed)} answers in {options.output}\n")
    for answer in failed:
        sys.stderr.write(f"request {answer.id}: {answer.error}\n")
