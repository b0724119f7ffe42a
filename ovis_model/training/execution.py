"""How the arithmetic of a training is done: what each key asks for, what was picked, and why.

A key that cannot be honoured on this machine stops the training before the model is loaded.
What is left to choose is told in one line of the log, and in the report under `execution`.
"""

import os
import shutil
from importlib.util import find_spec
from typing import Any

import torch
from transformers import TrainingArguments

from ovis_model.errors import ConfigError
from ovis_model.modeling.attention import describe_attention, pick_implementation
from ovis_model.modeling.modeling_ovis2_5 import Ovis2_5ForConditionalGeneration
from ovis_model.train_config import TrainConfig
from ovis_model.training.arguments import zero_stage
from ovis_model.training.environment import has_gpu

#: Kernels of liger-kernel that compute what Qwen3's own code does; the loss is this project's.
LIGER_KERNELS = {"rope": True, "rms_norm": True, "swiglu": True}
NO_LIGER_KERNELS = {"cross_entropy": False, "fused_linear_cross_entropy": False}
#: Attention that needs CUDA and 16 bits.
HALF_ON_CUDA = ("flash_attention_2", "varlen")
#: What `quantize_base` may say beside "none", and how many bits that is.
QUANTIZED = {"int8": 8, "nf4": 4}
NOT_QUANTIZED = ("visual_tokenizer", "vte", "lm_head")


def check_execution(config: TrainConfig, arguments: TrainingArguments) -> None:
    """Refuse what this machine cannot do, or what does not go together.

    Args:
        config: The train section.
        arguments: Made from it.

    Raises:
        ConfigError: Saying which key, what is missing, and what to do.
    """
    findings = [
        _fault_of_precision(config, arguments),
        _fault_of_liger(arguments),
        _fault_of_compiling(arguments),
        _fault_of_quantizing(config, arguments),
    ]
    if any(findings):
        raise ConfigError("train: " + "; ".join(filter(None, findings)))


def _fault_of_precision(config: TrainConfig, arguments: TrainingArguments) -> str:
    if arguments.fp16 and not has_gpu():
        return "fp16 needs a GPU, and there is none here; set bf16: true, or neither"
    half = arguments.bf16 or arguments.fp16
    if config.attn_implementation in HALF_ON_CUDA and not (has_gpu() and half):
        missing = "bf16: true" if has_gpu() else "a GPU"
        return (
            f"attn_implementation {config.attn_implementation!r} needs CUDA and 16 bits: "
            f"{missing} is missing; say auto, which picks what works"
        )
    return ""


def _fault_of_liger(arguments: TrainingArguments) -> str:
    missing = _missing("liger_kernel", "liger-kernel") if arguments.use_liger_kernel else ""
    return f"use_liger_kernel: {missing}; remove the key" if missing else ""


def _fault_of_compiling(arguments: TrainingArguments) -> str:
    backend = arguments.torch_compile_backend or "inductor"
    compiler = os.environ.get("CXX", "g++")
    if arguments.torch_compile and backend == "inductor" and not shutil.which(compiler):
        return (
            f"torch_compile needs a C++ compiler, and there is no {compiler!r} here; install one, "
            "or set torch_compile: false"
        )
    return ""


def _fault_of_quantizing(config: TrainConfig, arguments: TrainingArguments) -> str:
    if config.quantize_base == "none":
        return ""
    missing = _missing("bitsandbytes", "bitsandbytes")
    if not missing and zero_stage(arguments) == 3:
        missing = "ZeRO-3 cuts parameters into pieces, which quantised ones do not bear"
    return f"quantize_base: {missing}; set quantize_base: none" if missing else ""


def _missing(module: str, package: str) -> str:
    """Say what a GPU package lacks here, "" if nothing."""
    lacking = [] if has_gpu() else ["a GPU"]
    if find_spec(module) is None:
        lacking.append(f"the package {package} (pip install {package})")
    return f"{' and '.join(lacking)} missing" if lacking else ""


def quantization(config: TrainConfig, arguments: TrainingArguments) -> Any:
    """Return how transformers is to quantise the language model while loading, or None."""
    if config.quantize_base == "none":
        return None
    return _quantize(config.quantize_base, arguments)  # pragma: no cover - gpu


def _quantize(kind: str, arguments: TrainingArguments) -> Any:  # pragma: no cover - gpu
    from transformers import BitsAndBytesConfig  # noqa: PLC0415 - it looks for the package

    bits = QUANTIZED[kind]
    return BitsAndBytesConfig(
        load_in_8bit=bits == 8,
        load_in_4bit=bits == 4,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16 if arguments.bf16 else torch.float32,
        llm_int8_skip_modules=list(NOT_QUANTIZED),
    )


def apply_kernels(  # pragma: no cover - gpu
    model: Ovis2_5ForConditionalGeneration, arguments: TrainingArguments
) -> None:
    """Put liger-kernel's parts in the place of the language model's, if asked for."""
    if not arguments.use_liger_kernel:
        return
    from liger_kernel.transformers import apply_liger_kernel_to_qwen3  # noqa: PLC0415

    apply_liger_kernel_to_qwen3(model=model.llm, **LIGER_KERNELS, **NO_LIGER_KERNELS)
    # Or the Trainer would look for kernels for the whole model, find none, and say nothing.
    arguments.use_liger_kernel = False


def attention_in_use(
    model: Ovis2_5ForConditionalGeneration, arguments: TrainingArguments
) -> dict[str, str]:
    """Say what runs; autocast computes in 16 bits with weights of 32."""
    precision = torch.bfloat16 if arguments.bf16 else model.dtype
    return describe_attention(model.attention, arguments.device, precision)


def describe_execution(
    config: TrainConfig, model: Ovis2_5ForConditionalGeneration, arguments: TrainingArguments
) -> dict[str, str]:
    """Say what was picked for each key and why.

    Args:
        config: The train section.
        model: As it is trained.
        arguments: Of the Trainer.
    """
    attention = attention_in_use(model, arguments)
    liger = bool(config.training_arguments.get("use_liger_kernel"))
    backend = arguments.torch_compile_backend or "inductor"
    return {
        "attention": f"vit {attention['vit']}; llm {attention['llm']} "
        f"({_why_attention(model, arguments)})",
        "precision": _describe_precision(arguments),
        "tf32": f"{'on' if arguments.tf32 else 'off'} ({_why_tf32(arguments)})",
        "torch_compile": f"{backend} (torch_compile: true)" if arguments.torch_compile else "off",
        "gradient_checkpointing": ", ".join(config.checkpointed_parts) or "off",
        "liger": f"{', '.join(LIGER_KERNELS)} in the language model" if liger else "off",
        "quantize_base": config.quantize_base,
        "adapters": f"{config.lora_variant}, r {config.lora_r}, on {config.lora_modules}"
        if config.lora_r
        else "off",
        "vision": _describe_vision(config, model),
    }


def _why_attention(model: Ovis2_5ForConditionalGeneration, arguments: TrainingArguments) -> str:
    if model.attention != "auto":
        return f"attn_implementation: {model.attention}"
    if arguments.device.type != "cuda":
        return "auto: no CUDA"
    precision = torch.bfloat16 if arguments.bf16 else model.dtype  # pragma: no cover - gpu
    picked = pick_implementation("auto", arguments.device, precision)  # pragma: no cover - gpu
    why = {  # pragma: no cover - gpu
        "sdpa": "32 bits",
        "varlen": "CUDA, 16 bits, flash-attn is not installed",
    }
    return f"auto: {why.get(picked, 'CUDA, 16 bits')}"  # pragma: no cover - gpu


def _describe_precision(arguments: TrainingArguments) -> str:
    name = "bfloat16" if arguments.bf16 else "float16" if arguments.fp16 else ""
    if not name:
        return "float32 (bf16: false)"
    if arguments.deepspeed is None:
        return f"{name} by autocast, weights in float32 (no DeepSpeed)"
    return f"{name}, float32 masters (DeepSpeed)"


def _why_tf32(arguments: TrainingArguments) -> str:
    if arguments.device.type != "cuda":
        return "no CUDA"
    return "tf32: true" if arguments.tf32 else "not asked for"  # pragma: no cover - gpu


def _describe_vision(config: TrainConfig, model: Ovis2_5ForConditionalGeneration) -> str:
    graph = "learns" if model.sees_and_learns else "no graph, for nothing visual learns"
    return f"{graph}; pictures are kept in memory" if config.cache_visual_tokens else graph
