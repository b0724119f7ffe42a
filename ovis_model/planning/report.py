"""What a plan says: numbers a program can read and a table is made of.

Bytes are per process unless a name says otherwise; GB are 10^9 bytes.
"""

from ovis_model.reports import Report


class ModulePlan(Report):
    """One module of the model."""

    module: str
    parameters: int
    trainable: int
    learning_rates: list[float]


class MemoryItem(Report):
    """One thing that takes memory, on the device and on the host, in bytes per process."""

    name: str
    device_bytes: int
    host_bytes: int = 0
    note: str = ""


class MemoryPlan(Report):
    """What one process holds at its peak.

    The parts do not add up to the peak: not all of them are there at a time.  On a CPU the
    device is the host.
    """

    items: list[MemoryItem]
    peak_device_bytes: int
    host_bytes: int


class DataPlan(Report):
    """What there is to learn from."""

    folder: str
    samples: int
    tokens: int
    visual_tokens: int
    supervised_tokens: int
    longest_sample_tokens: int
    too_long: list[str]
    """Samples above multimodal_max_length or text_max_length: training refuses to start."""
    without_answer: list[str]
    """Samples of which nothing is learned: likewise."""
    cut: int
    """Samples whose own limit (`fit`) ends their text early."""
    reduced: int
    """Samples whose own limit takes pixels or frames."""


class PackingPlan(Report):
    """How samples share rows."""

    rows: int
    rows_per_process: int
    row_tokens: int
    """Room of a row."""
    fill: float
    """Share of the room that is taken."""
    imbalance: float
    """How much longer an epoch takes because processes wait for the slowest."""


class WorkPlan(Report):
    """How much training is."""

    steps: int
    epochs: float
    effective_batch_size: int
    """Samples of one step; rows of it where they are packed."""
    dropped: int
    """Samples of an epoch, or rows, that `dataloader_drop_last` leaves out."""
    tokens: int
    supervised_tokens: int
    useful_flops: float
    executed_flops: float
    """With what gradient checkpointing computes again."""
    hours: float | None
    """At 40 % of the peak of every GPU, which is an assumption; None where the peak is unknown."""


class DevicePlan(Report):
    """What it is to run on."""

    kind: str
    name: str
    memory_bytes: int
    peak_flops: float | None


class Change(Report):
    """A setting to change, what it costs, and the peak with it and all changes before it."""

    setting: str
    cost: str
    peak_device_bytes: int
    fits: bool


class Plan(Report):
    """Everything `ovis plan` says."""

    base_model: str
    modules: list[ModulePlan]
    parameters: int
    trainable_parameters: int
    processes: int
    engine: str
    precision: str
    memory: MemoryPlan
    batch: str
    data: DataPlan | None
    packing: PackingPlan | None
    """None without packing, and without data."""
    work: WorkPlan | None
    device: DevicePlan
    needed_bytes: int
    """Of the device's memory: on a CPU by all processes together."""
    margin_bytes: int
    fits: bool
    changes: list[Change]
    """The three cheapest, one on top of the other, where it does not fit."""
    needed_besides: list[str]
    """What is needed on top of them, if they do not suffice."""
    warnings: list[str]
