import time
from types import SimpleNamespace

import pytest

from tasks.tracking import gpus
from tasks.tracking.gpus import visible
from tasks.tracking.meter import NOT_MEASURED, Meter, Rapl, cpu_seconds, metered
from tasks.tracking.session import RunLogger, Session
from tasks.tracking.spool import Spool


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of a session that sends nothing."""
    monkeypatch.chdir(tmp_path)
    with Spool.begin("test") as spool:
        yield RunLogger(Session(spool), "a" * 64)


def said(run):
    return list(run._session.spool.all())


def test_what_a_block_costs_is_logged_also_when_it_fails(run):
    start = cpu_seconds()

    def work():
        while cpu_seconds() < start + 0.2 or not said(run):
            time.sleep(0)
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"), metered(run, sample_seconds=0.05):
        work()
    load, *_, cost, _ = said(run)
    assert cost["metrics"]["cost.cpu_seconds"] > 0.1
    assert cost["metrics"]["cost.wall_seconds"] > 0
    assert cost["metrics"]["cost.gpu_seconds"] >= 0
    assert load["metrics"]["system/system_memory_usage_megabytes"] > 0
    assert "system/cpu_utilization_percentage" in load["metrics"]
    assert load["step"] == pytest.approx(time.time(), abs=3600)


def test_energy_that_cannot_be_read_is_not_logged_and_said_so(run, tmp_path, monkeypatch):
    monkeypatch.setattr("tasks.tracking.meter.POWERCAP", tmp_path / "none")
    with metered(run):
        pass
    cost, tags = said(run)
    assert "cost.cpu_joules" not in cost["metrics"]
    nothing = f"CPU energy: nothing can be read in {tmp_path / 'none'}"
    assert nothing in tags["tags"][NOT_MEASURED]


def test_energy_of_the_processor_counts_on_when_its_counter_begins_anew(tmp_path):
    package = tmp_path / "intel-rapl:0"
    package.mkdir()
    (package / "max_energy_range_uj").write_text("10000000\n")
    (package / "energy_uj").write_text("9000000\n")
    (tmp_path / "intel-rapl:0:0").mkdir()  # a part of the package, counted in it
    (counter,) = Rapl.packages(tmp_path)
    assert counter.joules() == 0
    for reading in (9_500_000, 500_000, 3_000_000, 1_000_000):
        (package / "energy_uj").write_text(f"{reading}\n")
        joules = counter.joules()
    assert joules == pytest.approx(2 * 10 + 1 - 9)


def test_energy_of_the_processor_is_part_of_the_cost(tmp_path, monkeypatch):
    package = tmp_path / "intel-rapl:0"
    package.mkdir()
    (package / "max_energy_range_uj").write_text("10000000\n")
    (package / "energy_uj").write_text("1000000\n")
    monkeypatch.setattr("tasks.tracking.meter.POWERCAP", tmp_path)
    meter = Meter()
    (package / "energy_uj").write_text("4000000\n")
    assert meter.read()["cost.cpu_joules"] == pytest.approx(3.0)


def test_gpus_are_counted_by_their_devices_unless_cuda_is_told_which(tmp_path):
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert visible(tmp_path, {}) == ["0", "1"]
    assert visible(tmp_path, {"CUDA_VISIBLE_DEVICES": "1"}) == ["1"]
    assert visible(tmp_path, {"CUDA_VISIBLE_DEVICES": "-1"}) == []


def test_a_counter_that_fails_amid_the_work_is_left_out_and_said_so(run, tmp_path, monkeypatch):
    package = tmp_path / "intel-rapl:0"
    package.mkdir()
    (package / "max_energy_range_uj").write_text("10000000\n")
    (package / "energy_uj").write_text("1000000\n")
    monkeypatch.setattr("tasks.tracking.meter.POWERCAP", tmp_path)
    with metered(run):
        (package / "energy_uj").unlink()
    cost, tags = said(run)
    assert "cost.cpu_joules" not in cost["metrics"]
    assert "cost.wall_seconds" in cost["metrics"]
    assert "CPU energy: [Errno 2] No such file" in tags["tags"][NOT_MEASURED]


class LostError(Exception):
    """What NVML raises in the test."""


def test_a_gpu_that_falls_off_its_bus_amid_the_work_is_left_out_and_said_so(run, monkeypatch):
    lost = []

    def energy(_handle):
        if lost:
            raise LostError("GPU is lost")
        return 1000

    nvml = SimpleNamespace(
        NVMLError=LostError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=int,
        nvmlDeviceGetName=lambda _handle: "H100",
        nvmlDeviceGetTotalEnergyConsumption=energy,
    )
    monkeypatch.setattr(gpus, "pynvml", nvml)
    monkeypatch.setattr(gpus, "visible", lambda: ["0"])
    meter = Meter()
    assert meter.read()["cost.gpu_joules"] == 0
    lost.append(True)
    assert "cost.gpu_joules" not in meter.read()
    assert meter.gpus.problem == "GPU energy: GPU is lost"
