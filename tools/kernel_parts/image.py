"""What a guest boots: a kernel of Debian's, a root with a Python of Debian's, and the checkout.

Kernels and roots are made once and kept in the cache; the checkout is packed anew for each run.

Imports the standard library, tools/check.py and its neighbours.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from tools import check

from .archive import Tree, find, walk
from .machines import Machine
from .packages import KernelsError, Suite

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).resolve().parent

# --- kernels

SUITES = {"5.10": "bullseye", "6.1": "bookworm", "6.12": "trixie"}
"""Where a series is kept up; all others are in LATEST while they are young."""
LATEST = ("trixie-backports", "sid")
NEWEST = "newest"


class Kernel(NamedTuple):
    """A kernel that can be had: 6.12 or, with pages of another size, 6.12-16k."""

    suite: Suite
    series: str
    variant: str
    package: str

    @property
    def name(self) -> str:
        return f"{self.series}-{self.variant}" if self.variant else self.series


def numbers(text: str) -> tuple[int, ...]:
    """The numbers in a version, for comparing."""
    return tuple(int(digits) for digits in re.findall(r"\d+", text))


class Shelf:
    """The kernels and roots of one machine, in the cache."""

    def __init__(self, cache: Path, machine: Machine, mirror: str) -> None:
        self.cache = cache
        self.machine = machine
        self.mirror = mirror
        self.suites: dict[str, Suite] = {}
        self.roots: dict[str, Path] = {}

    def suite(self, name: str) -> Suite:
        if name not in self.suites:
            self.suites[name] = Suite(self.cache, name, self.machine.debian, self.mirror)
        return self.suites[name]

    def kernels(self, suite_name: str) -> list[Kernel]:
        """The newest package of each series and variant in a suite, oldest series first."""
        suite = self.suite(suite_name)
        best: dict[tuple[str, str], str] = {}
        for variant, flavour in self.machine.flavours.items():
            # From 6.19 on the kernel's file is in linux-binary-*, and linux-image-* depends on it.
            pattern = re.compile(rf"linux-(?:image|binary)-(\d+\.\d+)[\d.]*(?:-\d+|\+deb\d+)-{flavour}")
            for package in suite.names("linux-"):
                if match := pattern.fullmatch(package):
                    key = match[1], variant
                    best[key] = max(best.get(key, package), package, key=lambda p: (numbers(p), "binary" in p))
        return [
            Kernel(suite, series, variant, package)
            for (series, variant), package in sorted(best.items(), key=lambda item: (numbers(item[0][0]), item[0][1]))
        ]

    def kernel(self, name: str) -> Kernel:
        """The kernel called 6.12, 6.12-16k or newest."""
        series, _, variant = name.partition("-")
        for suite_name in [SUITES[series]] if series in SUITES else LATEST:
            try:
                there = [kernel for kernel in self.kernels(suite_name) if kernel.variant == variant]
            except KernelsError:
                if suite_name == LATEST[-1] or series in SUITES:
                    raise
                continue  # this suite has nothing for the machine
            if series != NEWEST:
                there = [kernel for kernel in there if kernel.series == series]
            if there:
                return there[-1]
        raise KernelsError(f"Debian has no kernel {name} for {self.machine.name}: `kernels.py list` says what it has.")

    def kernel_file(self, kernel: Kernel) -> Path:
        """The bootable file, unpacked in the cache."""
        deb = kernel.suite.package(kernel.package)
        kept = self.cache / "kernels" / f"{deb.file}.kernel"
        if not kept.exists():
            (path,) = kernel.suite.fetch([deb])
            _, content = find(path, "vmlinu[xz]*")
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_whole(kept, lambda output: output.write(content))
            path.unlink()  # a kernel with all its modules is large
        return kept

    # --- roots

    def root(self, python: GuestPython) -> Path:
        """The initramfs with the Python, the test tools and busybox; the checkout is not in it."""
        if python.name not in self.roots:
            self.roots[python.name] = self._made_root(python)
        return self.roots[python.name]

    def _made_root(self, python: GuestPython) -> Path:
        suite = self.suite(python.suite)
        debs = suite.closure([*python.packages, *BASE_PACKAGES], UNUSED_PACKAGES)
        site = test_tools()
        key = hashlib.sha256()
        for text in (*sorted(deb.file for deb in debs), *sorted(site)):
            key.update(text.encode() + b"\0")
        for part in ("archive.py", "image.py"):
            key.update((HERE / part).read_bytes())
        kept = self.cache / "roots" / f"{python.name}-{self.machine.name}-{key.hexdigest()[:12]}.cpio"
        if not kept.exists():
            paths = suite.fetch(debs)
            print(f"building the root of Python {python.name} on {self.machine.name}", flush=True)
            tree = Tree()
            for path in paths:
                tree.unpack(path, is_wanted)
            for target, source in site.items():
                tree.copy(source, f"{SITE}/{target}")
            furnish(tree, python)
            compile_in(tree, python, "unchecked-hash")
            kept.parent.mkdir(parents=True, exist_ok=True)
            for old in kept.parent.glob(f"{python.name}-{self.machine.name}-*.cpio"):
                old.unlink()
            write_whole(kept, tree.write)
        return kept


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file that others see whole or not at all."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as output:
        write(output)
    Path(output.name).rename(path)


class GuestPython(NamedTuple):
    """A Python of Debian's."""

    name: str
    suite: str
    packages: tuple[str, ...]
    program: str


def cpython(name: str, suite: str) -> GuestPython:
    packages = f"python{name}-minimal", f"libpython{name}-stdlib"
    return GuestPython(name, suite, packages, f"python{name}")


PYTHONS = {
    python.name: python
    for python in (
        cpython("3.11", "bookworm"),
        cpython("3.13", "trixie"),
        cpython("3.14", "sid"),
        cpython("3.15", "sid"),
        GuestPython("pypy3", "trixie", ("pypy3",), "pypy3"),
    )
}
DEFAULT_PYTHON = {"riscv64": "3.13"}
"""Where it is not 3.11, for want of it."""

SITE = "usr/lib/python3/dist-packages"
"""Where every Python of Debian's finds packages."""

BASE_PACKAGES = ("busybox-static", "libatomic1")
UNUSED_PACKAGES = ("debconf", "dpkg", "media-types", "perl-base", "readline-common", "tar", "tzdata")
"""Packages that others depend on and no test does."""

UNUSED_PATHS = re.compile(
    r"usr/(share|include|sbin)/|usr/lib/[^/]*/gconv/"
    r"|usr/lib/(python|pypy)[\d.]*/(test|idlelib|ensurepip|lib2to3|turtledemo|pydoc_data)/"
)


def is_wanted(path: str) -> bool:
    return path.startswith(("usr/", "etc/python", "etc/pypy")) and not UNUSED_PATHS.match(f"{path}/")


INIT = """\
#!/usr/bin/busybox sh
export PATH=/usr/bin:/usr/sbin HOME=/root PYTHONUTF8=1 TERM=dumb RAWURING_EMULATED=1
/usr/bin/busybox --install -s
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 tmp /tmp
ln -sf /proc/self/fd /dev/fd
ip link set lo up
cd /checkout
. /guest/run
poweroff -f
"""


def furnish(tree: Tree, python: GuestPython) -> None:
    """What no package brings: links, devices, users, /init."""
    for name in ("bin", "sbin", "lib", "lib64"):
        tree.link(name, f"usr/{name}")
    for folder in ("proc", "sys", "dev", "root", "usr/sbin", "guest", "checkout"):
        tree.folder(folder)
    tree.folder("tmp", 0o1777)
    tree.character_device("dev/console", 5, 1)
    tree.link("usr/bin/sh", "busybox")
    if "usr/bin/python3" not in tree.entries:
        tree.link("usr/bin/python3", python.program)
    tree.file("etc/passwd", "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/tmp:/bin/sh\n")
    tree.file("etc/group", "root:x:0:\nnogroup:x:65534:\n")
    tree.file("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n")
    tree.file("init", INIT, 0o755)


# --- the test tools, and byte code

FIND_TEST_TOOLS = """
import importlib.metadata, json, re
found, todo = {}, ["pytest"]
seen = set()
while todo:
    name = todo.pop()
    if name in seen:
        continue
    seen.add(name)
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        continue
    for file in distribution.files or ():
        if ".." not in file.parts and (file.suffix == ".py" or file.parent.name.endswith(".dist-info")):
            found[str(file)] = str(distribution.locate_file(file))
    requires = [text for text in distribution.requires or () if "extra ==" not in text]
    todo += [re.match(r"[\\w.-]+", text)[0] for text in requires]
print(json.dumps(found))
"""


@functools.cache
def test_tools() -> dict[str, Path]:
    """The files of pytest and what it needs, all pure Python, from the environment that check.py makes."""
    here = check.describe(sys.executable)
    if here is None or not here.is_usable:
        raise KernelsError("kernels.py runs on CPython 3.10 or later.")
    requirements = check.test_requirements((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    try:
        interpreter = check.prepare(here, requirements)
    except check.MissingError as missing:
        raise KernelsError(str(missing)) from None
    done = subprocess.run([interpreter, "-c", FIND_TEST_TOOLS], stdout=subprocess.PIPE, text=True, check=True)
    return {name: Path(path) for name, path in json.loads(done.stdout).items()}


def compile_in(tree: Tree, python: GuestPython, invalidation: str) -> None:
    """Add byte code where this machine has the same Python: a guest takes a minute to compile it all.

    Byte code is the same on every architecture. Without it, or with that of a pre-release, the
    guest's Python compiles for itself. `invalidation` is a --invalidation-mode of compileall.
    """
    here = check.describe(sys.executable)
    assert here is not None
    same = [p for group in check.find_pythons(here).values() for p in group if p.label == python.name]
    if not same:
        return
    with tempfile.TemporaryDirectory() as folder:
        for path, entry in tree.entries.items():
            if path.endswith(".py"):
                target = Path(folder, path)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(entry.content)
        command = [same[0].path, "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", invalidation]
        # A file that does not compile (a template, a test of the grammar) is not compiled.
        subprocess.run([*command, "-s", folder, "-p", "/", folder], stdout=subprocess.DEVNULL, check=False)
        for compiled in sorted(Path(folder).rglob("*.pyc")):
            tree.file(str(compiled.relative_to(folder)), compiled.read_bytes())


# --- the checkout


def checkout(output_path: Path, root: Path, python: GuestPython, run: str) -> None:
    """Write the initramfs of one run: the root, the checkout as it is now, and what /init shall run."""
    tree = Tree()
    tree.entries.update(tree_of_checkout(python).entries)
    tree.file("guest/run", run)
    with output_path.open("wb") as output:
        with root.open("rb") as source:
            shutil.copyfileobj(source, output)
        tree.write(output)


@functools.cache
def tree_of_checkout(python: GuestPython) -> Tree:
    """The checkout as it is at the first guest of a run: the others get the same."""
    tree = Tree()
    for path in files_of_checkout():
        tree.copy(ROOT / path, f"checkout/{path}")
    tree.copy(HERE / "inside.py", "guest/inside.py")
    compile_in(tree, python, "checked-hash")  # there are tests that change a copy of a module
    return tree


def files_of_checkout() -> Sequence[str]:
    """Tracked and new files, or, where there is no git, all but hidden folders."""
    if (ROOT / ".git").exists() and shutil.which("git"):
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        return sorted({name for name in done.stdout.split("\0") if name and (ROOT / name).exists()})
    found = [path.relative_to(ROOT) for path in walk(ROOT)]
    return [str(path) for path in found if not path.parts[0].startswith(".") or path.parts[0] == ".ci"]
