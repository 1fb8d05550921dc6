"""The architectures: what Debian and QEMU call them, and a guest as a QEMU process.

Software emulation (TCG) only: it is the same everywhere, and a claim about a kernel needs no speed.

Imports the standard library and its neighbours.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .packages import KernelsError, install


class Machine(NamedTuple):
    """An architecture by the name of the kernel's `uname -m`."""

    name: str
    debian: str
    flavours: dict[str, str]  # of Debian's kernels: a variant ("", "16k") to the end of the package's name
    program: str
    options: tuple[str, ...]
    console: str
    qemu_packages: tuple[str, ...]  # the first that exists
    slowness: int  # compared with x86_64, for time limits


MACHINES = {
    machine.name: machine
    for machine in (
        Machine(
            "x86_64", "amd64", {"": "cloud-amd64"},
            "qemu-system-x86_64", (), "ttyS0", ("qemu-system-x86",), 1,
        ),
        Machine(
            "aarch64", "arm64", {"": "cloud-arm64", "16k": "arm64-16k"},
            "qemu-system-aarch64", ("-M", "virt", "-cpu", "max,pauth=off"), "ttyAMA0", ("qemu-system-arm",), 2,
        ),
        Machine(
            "s390x", "s390x", {"": "s390x"},
            "qemu-system-s390x", (), "ttysclp0", ("qemu-system-s390x", "qemu-system-misc"), 3,
        ),
        Machine(
            "ppc64le", "ppc64el", {"": "powerpc64le", "64k": "powerpc64le-64k"},
            "qemu-system-ppc64", ("-M", "pseries"), "hvc0", ("qemu-system-ppc",), 3,
        ),
        Machine(
            "riscv64", "riscv64", {"": "riscv64"},
            "qemu-system-riscv64", ("-M", "virt"), "ttyS0", ("qemu-system-riscv", "qemu-system-misc"), 3,
        ),
        Machine(
            "i686", "i386", {"": "686-pae"},
            "qemu-system-i386", (), "ttyS0", ("qemu-system-x86",), 1,
        ),
    )
}  # fmt: skip

FIRMWARE = ("opensbi", "seabios")
"""Packages that QEMU only recommends, and some machines cannot start without."""

ACCELERATOR = "tcg,thread=single"
"""One thread for all CPUs of a guest. With one each, a kernel that patches its own code while the
other CPU runs it (static keys) was seen to die of a breakpoint that QEMU had translated too early."""

MEMORY_MIB = 2048
CPUS = 2


def have_qemu(machine: Machine, may_install: bool) -> None:
    """Make sure that QEMU is there for the machine."""
    if shutil.which(machine.program) is None and may_install:
        install(machine.qemu_packages, FIRMWARE)
    if shutil.which(machine.program) is None:
        raise KernelsError(
            f"{machine.program} is not here: --install fetches it "
            f"(Debian and Ubuntu: apt-get install {machine.qemu_packages[-1]})."
        )


def command(machine: Machine, kernel: Path, initramfs: Path, *, parameters: str = "", cpus: int = CPUS) -> list[str]:
    """The command line of a guest that ends when it powers off, panics or reboots; its console is stdio."""
    append = f"console={machine.console} quiet panic=-1 {parameters}".strip()
    return [
        machine.program, *machine.options, "-accel", ACCELERATOR, "-smp", str(cpus), "-m", str(MEMORY_MIB),
        "-kernel", str(kernel), "-initrd", str(initramfs), "-append", append,
        "-nographic", "-no-reboot", "-nic", "none",
    ]  # fmt: skip


class Guest:
    """A running guest whose console goes to a file."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )

    def wait(self, timeout_s: float) -> bool:
        """Whether the guest ended by itself within the time."""
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
