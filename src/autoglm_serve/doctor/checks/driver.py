"""Does the driver show GPUs that engines run on?"""

from collections.abc import Iterator

from autoglm_serve.doctor.facts import Facts
from autoglm_serve.doctor.symptom import Symptom, error, note, warning
from autoglm_serve.probe.gpus import Driver


def check(facts: Facts) -> Iterator[Symptom]:
    if (host := facts.host) is None:
        return
    found = host.gpus
    if found.driver is Driver.BROKEN:
        yield error(
            "The NVIDIA driver is there and does not answer.",
            evidence=found.detail,
            why="No engine sees a GPU until it does.",
            remedy="nvidia-smi says more; after an update of the driver, reboot or reload its modules",
        )
    elif found.driver is Driver.NO_DEVICE:
        yield error(
            "The NVIDIA driver runs and shows no GPU.",
            evidence=found.detail or f"driver {found.driver_version}",
            why="Engines would run on the processor.",
            remedy="docker run --gpus all …; unset CUDA_VISIBLE_DEVICES",
        )
    elif found.driver is Driver.NO_GPU and host.accelerator:
        yield note(
            f"{host.accelerator} is not planned for.",
            evidence="no NVIDIA driver is installed",
            why="vLLM is started on NVIDIA GPUs alone; the embedded engine runs on the processor.",
            remedy="start an engine that knows it, and put this in front: --engine external --upstream URL",
        )
    elif not host.hardware.gpus and found.gpus:
        yield warning(
            "Every GPU is hidden from us.",
            evidence=f"CUDA_VISIBLE_DEVICES={host.environ.get('CUDA_VISIBLE_DEVICES', '')!r}",
            why="Engines would run on the processor.",
            remedy="unset CUDA_VISIBLE_DEVICES",
        )
