"""Which of several machines this one is, and where they meet.

`train.nnodes` says how many there are.  Every machine has the same params.yaml, and the same
files below data/ and models/; only NODE_RANK differs.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from ovis_model.errors import ConfigError
from ovis_model.train_config import TrainConfig

LOOPBACK = "127.0.0.1"
#: Where the machines meet if nothing else is said; torchrun's own choice.
DEFAULT_PORT = 29500


@dataclass(frozen=True)
class Node:
    """One machine of a training.

    Attributes:
        number: From 0; the first one also writes the results.
        count: Machines of this training.
        address: Name or address of the first one.
        port: TCP port there; None takes a free one, for a machine that is alone.
    """

    number: int = 0
    count: int = 1
    address: str = LOOPBACK
    port: int | None = None

    @property
    def is_alone(self) -> bool:
        """Whether no other machine takes part."""
        return self.count == 1

    def call_for_others(self) -> str:
        """Say what to run on the other machines; "" if there are none or this is one of them."""
        if self.is_alone or self.number:
            return ""
        lines = [f"  NODE_RANK={number} python -m tasks train" for number in range(1, self.count)]
        where = f"{self.address}:{self.port}"
        return "\n".join([f"Machines meet at {where}. On the others run:", *lines]) + "\n"


def this_node(config: TrainConfig, environment: Mapping[str, str] = os.environ) -> Node:
    """Find this machine's place.

    Args:
        config: `nnodes`, `master_addr` and `master_port`.
        environment: NODE_RANK; MASTER_ADDR and MASTER_PORT where the configuration is silent.

    Raises:
        ConfigError: If the machines cannot find each other, or this one is not one of them.
    """
    number, count = _number(environment, "NODE_RANK", default=0), config.nnodes
    if not 0 <= number < count:
        raise ConfigError(
            f"NODE_RANK is {number}, but train.nnodes is {count}: number the machines from 0 to "
            f"{count - 1}, or raise train.nnodes"
        )
    if count == 1:
        return Node()
    address = config.master_addr or environment.get("MASTER_ADDR")
    if not address:
        raise ConfigError(
            f"train.nnodes is {count}, but nothing says where the machines meet: set "
            "train.master_addr (or MASTER_ADDR) to the name of the first one"
        )
    port = config.master_port or _number(environment, "MASTER_PORT", default=DEFAULT_PORT)
    return Node(number, count, address, port)


def _number(environment: Mapping[str, str], name: str, *, default: int) -> int:
    text = environment.get(name, str(default))
    if not text.isdecimal():
        raise ConfigError(f"{name} must be a whole number, not {text!r}")
    return int(text)
