"""Debian packages of any suite and architecture, through apt, in a cache of our own.

apt resolves, downloads and checks every file against the archive's signature; the machine's own
package lists and installed packages play no part. Nothing is installed here but QEMU, when asked.

Imports the standard library only.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

MIRROR = "http://deb.debian.org/debian"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
REFRESH_S = 24 * 3600
"""How old a package list may be before the mirror is asked for a newer one."""

URI_LINE = re.compile(r"'(?P<uri>[^']+)' (?P<file>\S+) (?P<nbytes>\d+)")


class KernelsError(Exception):
    """What keeps guests from running here; the text is one sentence for the user."""


class Deb(NamedTuple):
    """A package as the mirror has it."""

    file: str
    nbytes: int

    @property
    def name(self) -> str:
        return self.file.split("_")[0]

    @property
    def version(self) -> str:
        return self.file.split("_")[1].replace("%3a", ":")


class Suite:
    """One suite of Debian for one architecture, by the names Debian gives both."""

    def __init__(self, cache: Path, name: str, architecture: str, mirror: str = MIRROR) -> None:
        self.name = name
        self.architecture = architecture
        self.mirror = mirror
        self.debs = cache / "debs"
        self.state = cache / "apt" / f"{name}-{architecture}"
        self.refreshed = False

    def __str__(self) -> str:
        return f"{self.name} ({self.architecture})"

    # --- what there is

    def refresh(self) -> None:
        """Have a list of packages not older than a day, or, without a network, the one that is here."""
        if self.refreshed:
            return
        stamp = self.state / "refreshed"
        if not stamp.exists() or time.time() - stamp.stat().st_mtime > REFRESH_S:
            self._prepare()
            done = self._apt("apt-get", "update", "-qq", "--error-on=any")
            if done.returncode == 0:
                stamp.touch()
            elif stamp.exists():
                print(f"{self.mirror} does not answer: going by the package list of an earlier day for {self}")
            else:
                raise KernelsError(f"there is no package list of Debian {self}: {complaint(done.stderr)}.")
        self.refreshed = True

    def names(self, prefix: str) -> list[str]:
        """The names of all packages that begin with `prefix`."""
        self.refresh()
        return sorted(self._apt("apt-cache", "pkgnames", prefix).stdout.split())

    def package(self, name: str) -> Deb:
        """The newest version of one package, without what it depends on."""
        return self._listed("download", [name])[0]

    def closure(self, names: Sequence[str], without: Iterable[str]) -> list[Deb]:
        """The packages and all they depend on, less those `without` which a guest can do."""
        left_out = set(without)
        found = self._listed("install", ["--no-install-recommends", "--yes", *names])
        return [deb for deb in found if deb.name not in left_out]

    def _listed(self, verb: str, arguments: Sequence[str]) -> list[Deb]:
        self.refresh()
        done = self._apt("apt-get", "--print-uris", "-qq", verb, *arguments)
        found = [Deb(line["file"], int(line["nbytes"])) for line in URI_LINE.finditer(done.stdout)]
        if done.returncode != 0 or not found:
            raise KernelsError(f"Debian {self} has no {' '.join(arguments[-1:])}: {complaint(done.stderr)}.")
        return found

    # --- having it here

    def fetch(self, debs: Sequence[Deb]) -> list[Path]:
        """The files of the packages, downloaded if they are not here yet."""
        self.debs.mkdir(parents=True, exist_ok=True)
        paths = [self.debs / deb.file for deb in debs]
        missing = [
            deb for deb, path in zip(debs, paths) if not path.exists() or path.stat().st_size != deb.nbytes
        ]
        if missing:
            size = sum(deb.nbytes for deb in missing)
            first = missing[0].name if len(missing) == 1 else f"{len(missing)} packages"
            print(f"downloading {first} of Debian {self}, {size / 1e6:.1f} MB", flush=True)
            wanted = [f"{deb.name}={deb.version}" for deb in missing]
            # apt shows its own progress on a terminal.
            quiet = [] if sys.stdout.isatty() else ["-qq"]
            done = self._apt("apt-get", *quiet, "download", *wanted, cwd=self.debs, shown=sys.stdout.isatty())
            if done.returncode != 0 or not all(path.exists() for path in paths):
                raise KernelsError(f"the packages of Debian {self} cannot be downloaded: {complaint(done.stderr)}.")
        return paths

    # --- apt

    def _prepare(self) -> None:
        for program in ("apt-get", "apt-cache", "dpkg-deb"):
            if shutil.which(program) is None:
                raise KernelsError(f"kernels come from Debian's packages, and this machine has no {program}.")
        if not KEYRING.exists():
            raise KernelsError(f"{KEYRING} is missing: install the package debian-archive-keyring.")
        for folder in ("lists/partial", "archives/partial"):
            (self.state / folder).mkdir(parents=True, exist_ok=True)
        (self.state / "status").touch()
        (self.state / "suite.sources").write_text(
            f"Types: deb\nURIs: {self.mirror}\nSuites: {self.name}\nComponents: main\nSigned-By: {KEYRING}\n"
        )

    def _apt(
        self, program: str, *arguments: str, cwd: Path | None = None, shown: bool = False
    ) -> subprocess.CompletedProcess[str]:
        options = {
            "APT::Architecture": self.architecture,
            "APT::Architectures": self.architecture,
            "APT::Sandbox::User": "",
            "Acquire::Languages": "none",
            "Acquire::Retries": "2",
            "Debug::NoLocking": "1",
            "Dir::Cache::archives": f"{self.state}/archives",
            "Dir::Cache::pkgcache": f"{self.state}/pkgcache.bin",
            "Dir::Cache::srcpkgcache": "",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::Etc::sourcelist": f"{self.state}/suite.sources",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State::extended_states": f"{self.state}/extended_states",
            "Dir::State::lists": f"{self.state}/lists",
            "Dir::State::status": f"{self.state}/status",
        }
        command = [program, *(word for item in options.items() for word in ("-o", "=".join(item))), *arguments]
        return run_apt(command, cwd, shown)


def run_apt(command: Sequence[str], cwd: Path | None = None, shown: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a program of apt in plain English; with `shown` the user sees its output instead of us."""
    pipe = None if shown else subprocess.PIPE
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(
        command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, check=False
    )


def complaint(stderr: str | None) -> str:
    """The line of apt's output that says what is wrong."""
    lines = [line for line in (stderr or "").splitlines() if line.strip()]
    errors = [line[3:].strip() for line in lines if line.startswith("E: ")]
    return (errors or lines or ["apt said nothing"])[0].rstrip(".")


def install(candidates: Sequence[str], also: Sequence[str]) -> None:
    """Install the first of the packages that this system has, as root, with `also` where they exist."""
    if shutil.which("apt-get") is None:
        raise KernelsError(f"there is no apt-get here: install {candidates[0]} by other means.")
    if os.geteuid() != 0:
        raise KernelsError(f"installing needs root: sudo apt-get install {candidates[0]}.")
    known = available([*candidates, *also])
    if not known:
        run_apt(["apt-get", "update", "-qq"])
        known = available([*candidates, *also])
    chosen = next((name for name in candidates if name in known), None)
    if chosen is None:
        raise KernelsError(f"no package {' or '.join(candidates)} can be had here.")
    wanted = [chosen, *(name for name in also if name in known)]
    print(f"installing {', '.join(wanted)}", flush=True)
    done = run_apt(["apt-get", "install", "-qq", "--yes", "--no-install-recommends", *wanted])
    if done.returncode != 0:
        # Lists that are older than the archive name files that are gone.
        run_apt(["apt-get", "update", "-qq"])
        done = run_apt(["apt-get", "install", "-qq", "--yes", "--no-install-recommends", *wanted])
    if done.returncode != 0:
        raise KernelsError(f"{chosen} cannot be installed: {complaint(done.stderr)}.")


def available(names: Sequence[str]) -> set[str]:
    """Which of the packages this system's own sources have."""
    text = run_apt(["apt-cache", "policy", *names]).stdout
    return set(re.findall(r"^(\S+):\n  Installed: .*\n  Candidate: (?!\(none\))", text, re.MULTILINE))
