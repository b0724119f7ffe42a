"""On what the numbers were measured: without it they mean nothing."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks.measure import cpu_seconds

ROOT = Path(__file__).parents[1]
GEMM_SIDE = 1024
COPY_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Machine:
    """Date, hardware, software and what one thread reaches at best."""

    date: str
    cpu_model: str
    cores: int
    load_average: float
    python: str
    torch: str
    transformers: str
    git_sha: str
    threads: int
    gemm_float32: float
    """GFLOP per second of processor time."""
    gemm_bfloat16: float
    copy: float
    """GB per second, read and written bytes both counted."""

    @classmethod
    def measure(cls) -> "Machine":
        """Look around and measure the ceilings; takes a second or two."""
        return cls(
            date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            cpu_model=_cpu_model(),
            cores=os.cpu_count() or 1,
            load_average=os.getloadavg()[0],
            python=".".join(str(part) for part in sys.version_info[:3]),
            torch=version("torch"),
            transformers=version("transformers"),
            git_sha=_git_sha(),
            threads=torch.get_num_threads(),
            gemm_float32=_gemm_ceiling(torch.float32),
            gemm_bfloat16=_gemm_ceiling(torch.bfloat16),
            copy=_copy_ceiling(),
        )

    def __str__(self) -> str:
        return (
            f"{self.date}, {self.cpu_model}, {self.cores} cores, load {self.load_average:.1f}, "
            f"{self.threads} thread(s)\n"
            f"python {self.python}, torch {self.torch}, transformers {self.transformers}, "
            f"commit {self.git_sha}\n"
            f"one thread at best: {self.gemm_float32:.0f} GFLOP/s float32, "
            f"{self.gemm_bfloat16:.1f} GFLOP/s bfloat16, copy {self.copy:.1f} GB/s"
        )


def multiplies_bfloat16() -> bool:
    """Tell whether bfloat16 products are worth timing on this CPU."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _rate(call: Callable[[], object], work: float, at_least_seconds: float = 0.3) -> float:
    call()
    count, start = 0, cpu_seconds()
    while (spent := cpu_seconds() - start) < at_least_seconds:
        call()
        count += 1
    return work * count / spent / 1e9


def _gemm_ceiling(dtype: torch.dtype) -> float:
    left, right = (torch.randn(GEMM_SIDE, GEMM_SIDE).to(dtype) for _ in range(2))
    return _rate(lambda: left @ right.T, 2 * GEMM_SIDE**3)


def _copy_ceiling() -> float:
    source = torch.ones(COPY_BYTES, dtype=torch.uint8)
    target = torch.empty_like(source)
    return _rate(lambda: target.copy_(source), 2 * COPY_BYTES)


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else "unknown CPU"


def _git_sha() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"
