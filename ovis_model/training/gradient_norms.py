"""How large the gradient of each module is, with and without DeepSpeed.

Between backward and the optimizer's step a gradient is

    plain, DDP, ZeRO-0 in float32   whole, in every process
    ZeRO-0 in 16 bits, ZeRO-1, -2   in pieces, each in the process whose optimizer has it
    ZeRO-3                          likewise, behind a function of DeepSpeed's

and DeepSpeed steps before it returns from backward, so there it is read just before.  Only the
sums of squares travel between processes.  Read off DeepSpeed 0.19.8.
"""

import weakref
from typing import Any

import torch
from torch import Tensor, distributed, nn

from ovis_model.training.train_modules import REPORTED


class GradientNorms:
    """Measures when asked to, for it reads every gradient once.

    Args:
        network: The model, not wrapped.

    Attributes:
        is_wanted: Whether the norms of the step that is about to be made are of interest.
    """

    def __init__(self, network: nn.Module) -> None:
        self.is_wanted = False
        self._parameters = {
            module: [
                parameter
                for name, parameter in network.named_parameters()
                if parameter.requires_grad and name.startswith(module)
            ]
            for module in REPORTED
        }
        self._squares: Tensor | None = None

    def watch(self, engine: Any) -> None:
        """Measure before each step of a DeepSpeed engine."""
        step = type(engine).step
        # In a circle with the engine, both would outlive the training: at ZeRO-3, the next model
        # in this process would be cut into pieces.
        norms, stepping = weakref.ref(self), weakref.ref(engine)

        def measured_step(*args: Any, **kwargs: Any) -> Any:
            if (alive := norms()) is not None:
                alive.measure()
            return step(stepping(), *args, **kwargs)

        engine.step = measured_step

    @torch.no_grad()
    def measure(self) -> None:
        """Read the gradients as they are now; every process must call it."""
        if not self.is_wanted:
            return
        pieces, in_parts = [], False
        for parameters in self._parameters.values():
            squares = torch.zeros((), dtype=torch.float32)
            for parameter in parameters:
                piece, is_part = _gradient(parameter)
                in_parts |= is_part
                if piece is not None:
                    squares = squares.to(piece.device) + piece.float().square().sum()
            pieces.append(squares)
        device = max((piece.device for piece in pieces), key=lambda device: device.type == "cuda")
        self._squares = torch.stack([piece.to(device) for piece in pieces])
        if in_parts and distributed.is_initialized():
            distributed.all_reduce(self._squares)

    def take(self, total: float | None) -> dict[str, float]:
        """Return what was measured, if anything was, and forget it.

        Args:
            total: Norm of the whole gradient as the trainer tells it: DeepSpeed scales gradients,
                and clipping has shortened them.  At ZeRO-0 it tells none, and they are as read.

        Returns:
            `grad_norm/<module>` of each module that learns.
        """
        if self._squares is None:
            return {}
        found = self._squares.sqrt()
        self._squares = None
        if total is not None:
            found *= total / found.norm().clamp(min=1e-30)
        norms = found.tolist()
        return {
            f"grad_norm/{module}": norm
            for (module, parameters), norm in zip(self._parameters.items(), norms, strict=True)
            if parameters
        }


def _gradient(parameter: nn.Parameter) -> tuple[Tensor | None, bool]:
    """Return this process's part of a gradient, and whether others have other parts."""
    if hasattr(parameter, "ds_id"):
        from deepspeed.utils import safe_get_local_grad  # noqa: PLC0415 - probes for devices

        return safe_get_local_grad(parameter), True
    if not hasattr(parameter, "_hp_mapping"):
        return parameter.grad, False
    mapping: Any = parameter._hp_mapping
    if mapping is None:  # all of it is another's
        return None, True
    index: Any = parameter._index_in_param_group  # type: ignore[attr-defined]
    piece: Tensor = mapping.get_lp_grad_fragment(index).flatten()
    if piece.numel() == parameter.numel():  # ZeRO-0 keeps all of it in every process
        own = mapping.lp_fragment_address
        piece = piece.narrow(0, own.start, own.numel)
    return piece, True
