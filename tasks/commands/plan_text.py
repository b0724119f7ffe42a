"""A plan as tables for people."""

from collections.abc import Iterator, Sequence

from ovis_model.errors import list_examples
from ovis_model.planning.report import DataPlan, PackingPlan, Plan, WorkPlan

GB = 1e9


def as_text(plan: Plan) -> str:
    """Lay out a plan; every line ends with a newline."""
    blocks = [
        [f"base model  {plan.base_model}", f"training    {_training(plan)}"],
        list(_modules(plan)),
        list(_memory(plan)),
        list(_data(plan.data)) if plan.data else ["data        none found; see `ovis data stats`"],
        list(_work(plan.work, plan)) if plan.work else [],
        list(_verdict(plan)),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def _training(plan: Plan) -> str:
    number = f"{plan.processes} processes" if plan.processes > 1 else "one process"
    return f"{plan.engine}, {number}, {plan.precision}"


def _modules(plan: Plan) -> Iterator[str]:
    rows = [
        (
            module.module,
            f"{module.parameters:,}",
            f"{module.trainable:,}",
            ", ".join(f"{rate:g}" for rate in module.learning_rates) or "frozen",
        )
        for module in plan.modules
    ]
    total = ("all", f"{plan.parameters:,}", f"{plan.trainable_parameters:,}", "")
    yield from _table(("module", "parameters", "learning", "rate"), [*rows, total])


def _memory(plan: Plan) -> Iterator[str]:
    memory = plan.memory
    has_host = plan.device.kind != "cpu"
    rows = []
    for item in memory.items:
        sizes = [_gb(item.device_bytes)] + ([_gb(item.host_bytes)] if has_host else [])
        rows.append((item.name, *sizes, item.note))
    sizes = [_gb(memory.peak_device_bytes)] + ([_gb(memory.host_bytes)] if has_host else [])
    rows.append(("peak", *sizes, "the most at a time"))
    columns = ("device GB", "host GB") if has_host else ("GB",)
    yield from _table(("memory of one process", *columns, ""), rows)
    yield f"batch: {plan.batch}"


def _data(data: DataPlan) -> Iterator[str]:
    yield (
        f"data        {data.folder}: {data.samples:,} samples, {data.tokens:,} tokens "
        f"({data.visual_tokens:,} visual, {data.supervised_tokens:,} learned), the longest "
        f"{data.longest_sample_tokens:,}"
    )
    if data.too_long:
        yield (
            f"too long    {len(data.too_long):,} sample(s), which training refuses: "
            f"{list_examples(data.too_long)}"
        )
    if data.cut or data.reduced:
        yield (
            f"fitted      {data.cut:,} sample(s) end early and {data.reduced:,} have fewer pixels "
            "or frames, by their own limits (`fit`)"
        )
    if data.without_answer:
        yield (
            f"no answer   {len(data.without_answer):,} sample(s), which training refuses: "
            f"{list_examples(data.without_answer)}"
        )


def _work(work: WorkPlan, plan: Plan) -> Iterator[str]:
    items = "samples" if plan.packing is None else "rows"
    if plan.packing is not None:
        yield _packing(plan.packing)
    yield (
        f"work        {work.steps:,} steps of {work.effective_batch_size} {items}, "
        f"{work.epochs:g} epochs, {work.tokens:,} tokens ({work.supervised_tokens:,} learned)"
    )
    if work.dropped:
        yield f"dropped     {work.dropped:,} {items} of every epoch, by dataloader_drop_last"
    again = work.executed_flops / work.useful_flops - 1
    recomputed = f", {again:.0%} more with what is computed again" if again else ""
    yield f"arithmetic  {work.useful_flops / 1e12:,.4g} TFLOP{recomputed}"
    if work.hours is not None and plan.device.peak_flops is not None:
        yield (
            f"hours       {work.hours:,.3g} if every GPU ({plan.device.name}) reaches 40 % of its "
            f"{plan.device.peak_flops / 1e12:.0f} TFLOP/s, which is an assumption"
        )


def _packing(packing: PackingPlan) -> str:
    return (
        f"packing     {packing.rows:,} rows of {packing.row_tokens:,} tokens, "
        f"{packing.rows_per_process:,} per process, {packing.fill:.1%} full, "
        f"imbalance {packing.imbalance:.3f}"
    )


def _verdict(plan: Plan) -> Iterator[str]:
    together = " by all processes together" if plan.device.kind == "cpu" else " per GPU"
    head = "it fits    " if plan.fits else "IT DOES NOT FIT"
    margin = abs(plan.margin_bytes) / GB
    side = "free" if plan.fits else "missing"
    yield (
        f"{head} {plan.needed_bytes / GB:,.2f} GB needed{together}, "
        f"{plan.device.memory_bytes / GB:,.2f} GB there ({plan.device.name}): "
        f"{margin:,.2f} GB {side}"
    )
    if not plan.fits:
        yield "change, in this order, one on top of the other:"
    for number, change in enumerate(plan.changes, start=1):
        verdict = ", and it fits" if change.fits else ""
        yield (
            f"  {number}. {change.setting}  ({change.cost}): "
            f"{change.peak_device_bytes / GB:,.2f} GB per process{verdict}"
        )
    if plan.needed_besides:
        yield f"  besides: {'; '.join(plan.needed_besides)}"
    for warning in plan.warnings:
        yield f"note: {warning}"


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / GB:,.3f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Align columns: the first and the last to the left, numbers to the right."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    last = len(header) - 1
    for line in lines:
        cells = [
            cell.ljust(width) if column in (0, last) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
