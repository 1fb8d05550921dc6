"""Run the tests on other kernels and architectures: python3 tools/kernels.py {run,exec,list,shell,support} ...

    run      boot Debian kernels under QEMU, run the test suite and an echo server in each
    exec     run a command in a guest, in the checkout: its output and exit status are the command's
    list     the kernels and Pythons that can be had
    shell    a prompt in a guest, with the checkout in /checkout
    support  docs/support.md from the latest whole run in each kind of guest: of those in docs/support/ and
             those that ran here, which --write adds to that folder

    python3 tools/kernels.py run --kernel 5.10 --kernel newest -- -k poll
    python3 tools/kernels.py run --arch s390x --kernel 6.1
    python3 tools/kernels.py run --kernel 6.12-16k@aarch64 --python 3.13
    python3 tools/kernels.py exec --kernel 6.1 -- python3 -m rawuring --run

Kernels and Pythons are Debian's packages, downloaded once into a cache and checked by apt; QEMU
emulates every machine in software. With `run`, arguments after -- go to pytest in the guest; tests
marked `slow` are left out unless these say otherwise (-m ''), and --ci leaves out those marked
`portable`, which run without a guest at every change and in a guest with every whole run.

Exit status: 0 all passed, 1 a test or an echo failed or a guest hung or panicked, 2 bad usage, or
QEMU or a package cannot be had here (one sentence says which).
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = str(Path(__file__).resolve().parent.parent)
if ROOT not in sys.path:  # run as a program: the path begins with this folder, not with the checkout
    sys.path.insert(0, ROOT)

from tools.kernel_parts import image, machines, outcome, support
from tools.kernel_parts.machines import MACHINES, Guest, Machine
from tools.kernel_parts.packages import MIRROR, KernelsError

CI_ROWS = ("newest@aarch64", "newest@x86_64", "6.12@x86_64", "6.1@x86_64", "5.10@x86_64")
"""What takes longest first."""
TIMEOUT_S = 1500
SUPPORT = Path(ROOT, "docs", "support.md")
"""The page, beside a folder of the outcomes that it is made from."""
LOG_LINES = 40

SHELL = """\
echo 'exit or Ctrl-D powers off; Ctrl-A X ends QEMU at once'
setsid cttyhack sh
"""


class Row(NamedTuple):
    """A guest to be: what it boots, and its name in tables."""

    machine: Machine
    kernel: str
    python: str
    kernel_file: Path
    root: Path

    @property
    def name(self) -> str:
        return f"{self.kernel} {self.machine.name} Python {self.python}"

    @property
    def file_name(self) -> str:
        return f"{self.machine.name}-{self.kernel}-{self.python}"


class Workshop:
    """The cache and the options that every command shares."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.cache = Path(options.cache).expanduser().resolve()
        self.options = options
        self.shelves: dict[str, image.Shelf] = {}

    def shelf(self, machine: Machine) -> image.Shelf:
        if machine.name not in self.shelves:
            self.shelves[machine.name] = image.Shelf(self.cache, machine, self.options.mirror)
        return self.shelves[machine.name]

    def rows(self, kernels: Sequence[str], arches: Sequence[str], pythons: Sequence[str]) -> list[Row]:
        """Everything that the guests need, downloaded and built."""
        wanted: dict[tuple[str, str, str], None] = {}
        for kernel in kernels:
            name, _, arch = kernel.partition("@")
            for machine_name in [arch] if arch else arches:
                if machine_name not in MACHINES:
                    raise KernelsError(f"no machine is called {machine_name}: there are {', '.join(MACHINES)}.")
                for python in pythons or [image.DEFAULT_PYTHON.get(machine_name, "3.11")]:
                    if python not in image.PYTHONS:
                        raise KernelsError(f"no Python is called {python}: there are {', '.join(image.PYTHONS)}.")
                    wanted[name, machine_name, python] = None
        for _, machine_name, _ in wanted:
            machines.have_qemu(MACHINES[machine_name], self.options.install)
        return [self.row(*names) for names in wanted]

    def row(self, kernel_name: str, machine_name: str, python_name: str) -> Row:
        machine = MACHINES[machine_name]
        shelf = self.shelf(machine)
        kernel = shelf.kernel(kernel_name)
        kernel_file = shelf.kernel_file(kernel)
        return Row(machine, kernel.name, python_name, kernel_file, shelf.root(image.PYTHONS[python_name]))


# --- run


class Running(NamedTuple):
    """A guest at work."""

    row: Row
    guest: Guest
    initramfs: Path
    started: float
    deadline: float


def run(workshop: Workshop, options: argparse.Namespace, pytest_arguments: Sequence[str]) -> int:
    kernels = [*CI_ROWS] if options.ci else options.kernel or ["5.10", "6.1", "6.12", image.NEWEST]
    rows = workshop.rows(kernels, options.arch or ["x86_64"], options.python or [])
    waiting, running, done = list(rows), list[Running](), list[outcome.Outcome]()
    try:
        while waiting or running:
            while waiting and len(running) < options.jobs:
                row = waiting.pop(0)
                script = script_of(order_for(options, pytest_arguments))
                running.append(start(workshop, row, script, options.timeout, options.cpus))
                print(f"{running[-1].row.name}: booting, its console is in {running[-1].guest.log}", flush=True)
            for one in list(running):
                ended = one.guest.process.poll() is not None
                if ended or time.monotonic() > one.deadline:
                    running.remove(one)
                    done.append(finish(workshop, one, ended, is_whole=not options.ci and not pytest_arguments))
            time.sleep(0.2)
    finally:
        for one in running:
            one.guest.end()
            one.initramfs.unlink(missing_ok=True)
    done.sort(key=lambda result: [row.name for row in rows].index(result.name))
    print("\n" + outcome.summary(done), flush=True)
    return 0 if all(result.is_green for result in done) else 1


def order_for(options: argparse.Namespace, pytest_arguments: Sequence[str]) -> dict[str, object]:
    """What inside.py shall do in a guest.

    A whole run is spared pytest's rewriting of asserts, half a minute of a guest: the few tests that
    fail run again, with it.
    """
    marks = "not slow and not one_python and not portable" if options.ci else "not slow"
    return {
        "pytest": ["-q", "-m", marks, *(pytest_arguments or ["--assert=plain"])],
        "echo": not options.no_echo,
        "ordinary_user": options.ordinary_user,
    }


def script_of(order: dict[str, object]) -> str:
    """What /init runs for an order to inside.py."""
    return f"python3 /guest/inside.py {shlex.quote(json.dumps(order))}\n"


def start(workshop: Workshop, row: Row, script: str, timeout_s: float, cpus: int) -> Running:
    (workshop.cache / "logs").mkdir(parents=True, exist_ok=True)
    initramfs = workshop.cache / "logs" / f"{row.file_name}.{os.getpid()}.initramfs"
    image.checkout(initramfs, row.root, image.PYTHONS[row.python], script)
    # Named after the process, for others that run the same kind of guest at this moment.
    log = workshop.cache / "logs" / f"{row.file_name}.{os.getpid()}.log"
    guest = Guest(machines.command(row.machine, row.kernel_file, initramfs, cpus=cpus), log)
    now = time.monotonic()
    return Running(row, guest, initramfs, now, now + timeout_s * row.machine.slowness)


def finish(workshop: Workshop, one: Running, ended: bool, is_whole: bool) -> outcome.Outcome:
    one.guest.end()
    one.initramfs.unlink(missing_ok=True)
    log = one.guest.log.replace(workshop.cache / "logs" / f"{one.row.file_name}.log")
    console = log.read_text(encoding="utf-8", errors="replace")
    problem, said = outcome.judge(console, ended)
    result = outcome.Outcome(
        kernel=one.row.kernel,
        machine=one.row.machine.name,
        python=one.row.python,
        problem=problem,
        date=datetime.date.today().isoformat(),
        seconds=round(time.monotonic() - one.started),
        facts=said.get("facts", {}),
        tests=said.get("tests", {}),
        echo=said.get("echo", {}),
        backend=said.get("backend", {}).get("name", ""),
    )
    if is_whole:
        outcome.keep(workshop.cache / "outcomes", result)
    if result.is_green:
        counts = f"{result.tests['passed']} passed, {result.skipped} skipped"
        print(f"{result.name}: {counts}, echo in mode {result.mode} ({result.seconds} s)", flush=True)
    else:
        tail = "\n".join(console.splitlines()[-LOG_LINES:])
        print(f"{result.name}: FAILED: {problem}; the end of {log}:\n{tail}", flush=True)
    return result


# --- the other commands


def execute(workshop: Workshop, options: argparse.Namespace, command: Sequence[str]) -> int:
    """Run a command in a guest: what it printed is ours to print, and its exit status is ours."""
    if not command:
        raise KernelsError("exec needs a command: kernels.py exec --kernel 6.1 -- python3 -m rawuring")
    with contextlib.redirect_stdout(sys.stderr):  # what is downloaded is not the command's output
        (row,) = workshop.rows([options.kernel], [options.arch], [options.python] if options.python else [])
    order = {"command": [*command], "ordinary_user": options.ordinary_user}
    one = start(workshop, row, script_of(order), options.timeout, options.cpus)
    try:
        ended = one.guest.wait(one.deadline - time.monotonic())
    finally:
        one.guest.end()
        one.initramfs.unlink(missing_ok=True)
    problem, said = outcome.judge_command(one.guest.log.read_text(encoding="utf-8", errors="replace"), ended)
    if problem:
        print(f"kernels.py: {row.name}: {problem}; its console is in {one.guest.log}", file=sys.stderr)
        return 1
    one.guest.log.unlink()
    sys.stdout.write(said["stdout"])
    sys.stderr.write(said["stderr"])
    status = int(said["status"])
    return status if status >= 0 else 128 - status  # a signal, as shells tell it


def list_all(workshop: Workshop, options: argparse.Namespace) -> int:
    rows = [("kernel", "machine", "package", "suite")]
    for name in options.arch or MACHINES:
        shelf = workshop.shelf(MACHINES[name])
        for suite in (*image.SUITES.values(), *image.LATEST):
            try:
                there = shelf.kernels(suite)
            except KernelsError as problem:
                print(problem, file=sys.stderr)
                continue
            rows += [(kernel.name, name, kernel.package, suite) for kernel in there]
    print(outcome.table(rows))
    print("\nPythons: " + ", ".join(f"{python.name} ({python.suite})" for python in image.PYTHONS.values()))
    return 0


def shell(workshop: Workshop, options: argparse.Namespace) -> int:
    (row,) = workshop.rows([options.kernel], [options.arch], [options.python] if options.python else [])
    (workshop.cache / "logs").mkdir(parents=True, exist_ok=True)
    initramfs = workshop.cache / "logs" / f"shell-{os.getpid()}.initramfs"
    image.checkout(initramfs, row.root, image.PYTHONS[row.python], SHELL)
    try:
        return subprocess.run(machines.command(row.machine, row.kernel_file, initramfs)).returncode
    finally:
        initramfs.unlink()


def write_support(workshop: Workshop, options: argparse.Namespace) -> int:
    file = Path(options.write or SUPPORT)
    if not file.suffix:
        raise KernelsError("--write takes a file with a suffix, like support.md: the outcomes go beside it.")
    results = outcome.latest(outcome.kept(file.with_suffix("")), outcome.kept(workshop.cache / "outcomes"))
    if not results:
        raise KernelsError("no guest has run yet: the page is made from outcomes of the command run.")
    page = support.page(results)
    if options.write:
        file.write_text(page, encoding="utf-8")
        for result in results:
            outcome.keep(file.with_suffix(""), result)
    else:
        print(page, end="")
    return 0


def parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    shared.add_argument("--cache", default=f"{base}/rawuring/kernels", metavar="DIR", help="default %(default)s")
    shared.add_argument("--mirror", default=MIRROR, metavar="URL", help="default %(default)s")
    shared.add_argument("--install", action="store_true", help="install QEMU with apt-get where it is missing (root)")
    top = argparse.ArgumentParser(prog="kernels.py", description="Run the tests on other kernels and architectures.")
    commands = top.add_subparsers(dest="command", required=True, metavar="{run,exec,list,shell,support}")

    sub = commands.add_parser(
        "run", parents=[shared], help="boot kernels and run the tests in them",
        usage="%(prog)s [OPTION ...] [-- PYTEST_ARGUMENT ...]",
        description="--kernel, --arch and --python may be repeated: every combination is a guest.",
    )  # fmt: skip
    sub.add_argument("--kernel", action="append", metavar="6.12[-16k][@ARCH]", help="default 5.10, 6.1, 6.12, newest")
    sub.add_argument("--arch", action="append", choices=list(MACHINES), help="default x86_64")
    sub.add_argument("--python", action="append", choices=list(image.PYTHONS), help="default 3.11")
    sub.add_argument("--ci", action="store_true", help="the guests of .ci/run: " + " ".join(CI_ROWS))
    sub.add_argument(
        "--jobs", type=int, default=(os.cpu_count() or 1) + 1, metavar="N",
        help="guests at once, default %(default)s: one more than there are CPUs, since tests also wait",
    )
    sub.add_argument(
        "--timeout", type=float, default=TIMEOUT_S, metavar="S",
        help="for a guest, default %(default)s; slower machines get more",
    )  # fmt: skip
    sub.add_argument(
        "--cpus", type=int, default=machines.CPUS, metavar="N", help="of a guest, default %(default)s"
    )
    sub.add_argument("--no-echo", action="store_true", help="leave out the echo server's load")
    sub.add_argument("--ordinary-user", action="store_true", help="run the tests as nobody instead of root")

    sub = commands.add_parser(
        "exec", parents=[shared], help="run a command in a guest",
        usage="%(prog)s [OPTION ...] -- COMMAND [ARGUMENT ...]",
    )  # fmt: skip
    sub.add_argument("--kernel", default=image.NEWEST, metavar="6.12[-16k][@ARCH]", help="default %(default)s")
    sub.add_argument("--arch", default="x86_64", choices=list(MACHINES), help="default %(default)s")
    sub.add_argument("--python", choices=list(image.PYTHONS), help="default 3.11")
    sub.add_argument(
        "--timeout", type=float, default=TIMEOUT_S, metavar="S", help="default %(default)s; slower machines get more"
    )
    sub.add_argument("--cpus", type=int, default=machines.CPUS, metavar="N", help="of the guest, default %(default)s")
    sub.add_argument("--ordinary-user", action="store_true", help="as nobody instead of root")

    sub = commands.add_parser("list", parents=[shared], help="what can be had")
    sub.add_argument("--arch", action="append", choices=list(MACHINES), help="default all")

    sub = commands.add_parser("shell", parents=[shared], help="a prompt in a guest")
    sub.add_argument("--kernel", default=image.NEWEST, metavar="6.12[-16k]", help="default %(default)s")
    sub.add_argument("--arch", default="x86_64", choices=list(MACHINES), help="default %(default)s")
    sub.add_argument("--python", choices=list(image.PYTHONS), help="default 3.11")

    sub = commands.add_parser("support", parents=[shared], help="the page of what is supported")
    sub.add_argument("--write", metavar="FILE", help="instead of printing it")
    return top


def main(arguments: Sequence[str]) -> int:
    split = list(arguments).index("--") if "--" in arguments else len(arguments)
    options = parser().parse_args(arguments[:split])
    workshop = Workshop(options)
    try:
        if "cpus" in options and options.cpus < 1:
            raise KernelsError("--cpus is at least 1.")
        if options.command == "run":
            if options.jobs < 1 or options.timeout <= 0:
                raise KernelsError("--jobs is at least 1, and --timeout more than 0.")
            return run(workshop, options, arguments[split + 1 :])
        if options.command == "exec":
            return execute(workshop, options, arguments[split + 1 :])
        return {"list": list_all, "shell": shell, "support": write_support}[options.command](workshop, options)
    except KernelsError as problem:
        print(f"kernels.py: {problem}", file=sys.stderr)
        return 2
    except OSError as problem:
        print(f"kernels.py: {problem.filename or ''}: {problem.strerror or problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("kernels.py: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    # Guests end with us, whoever ends us.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    sys.exit(main(sys.argv[1:]))
