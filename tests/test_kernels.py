"""The parts of tools/kernels.py that need no QEMU, no network and no package."""

from __future__ import annotations

import io
import json
import shutil
import stat
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path
from typing import Any

import pytest

from tools import kernels
from tools.kernel_parts import archive, image, inside, machines, outcome, packages, support
from tools.kernel_parts.archive import Tree

pytestmark = [pytest.mark.portable, pytest.mark.one_python]

ROOT = Path(__file__).resolve().parent.parent

# --- archives


def read_cpio(data: bytes) -> dict[str, tuple[int, bytes]]:
    """Mode and content by name, as the kernel reads an archive in the "newc" form."""
    found: dict[str, tuple[int, bytes]] = {}
    at = 0
    while True:
        assert data[at : at + 6] == b"070701" and at % 4 == 0
        fields = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, nbytes, name_nbytes = fields[1], fields[6], fields[11]
        name = data[at + 110 : at + 110 + name_nbytes - 1].decode()
        at = (at + 110 + name_nbytes + 3) & ~3
        if name == "TRAILER!!!":
            assert at == len(data)
            return found
        found[name] = mode, data[at : at + nbytes]
        at = (at + nbytes + 3) & ~3


def written(tree: Tree) -> dict[str, tuple[int, bytes]]:
    output = io.BytesIO()
    tree.write(output)
    return read_cpio(output.getvalue())


def test_an_archive_has_every_folder_before_what_is_in_it() -> None:
    tree = Tree()
    tree.file("usr/lib/deep/er/file", "odd", 0o640)
    tree.link("lib", "usr/lib")
    tree.folder("tmp", 0o1777)
    tree.character_device("dev/console", 5, 1)
    found = written(tree)
    assert list(found)[:5] == ["usr", "usr/lib", "usr/lib/deep", "usr/lib/deep/er", "usr/lib/deep/er/file"]
    assert found["usr/lib/deep/er/file"] == (stat.S_IFREG | 0o640, b"odd")
    assert found["lib"] == (stat.S_IFLNK | 0o777, b"usr/lib")
    assert found["tmp"][0] == stat.S_IFDIR | 0o1777
    assert stat.S_ISCHR(found["dev/console"][0])


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("./bin/busybox", "usr/bin/busybox"),
        ("./lib/x86_64-linux-gnu/libc.so.6", "usr/lib/x86_64-linux-gnu/libc.so.6"),
        ("./lib64/", "usr/lib64"),
        ("usr/bin/python3.11", "usr/bin/python3.11"),
        ("./library/x", "library/x"),
        ("./", ""),
        (".", ""),
    ],
)
def test_paths_of_packages_lie_below_usr(path: str, place: str) -> None:
    assert archive.merged(path) == place


def fake_deb(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package whose content a stand-in for dpkg-deb prints."""
    content = folder / "content.tar"
    with tarfile.open(content, "w") as tar:
        for name in ("./boot/vmlinuz-6.1", "./usr/share/doc/x", "./lib/a.so.1"):
            member = tarfile.TarInfo(name)
            member.size = len(name)
            tar.addfile(member, io.BytesIO(name.encode()))
        link = tarfile.TarInfo("./lib/a.so")
        link.type, link.linkname = tarfile.SYMTYPE, "a.so.1"
        tar.addfile(link)
        hard = tarfile.TarInfo("./lib/b.so.1")
        hard.type, hard.linkname = tarfile.LNKTYPE, "./lib/a.so.1"
        tar.addfile(hard)
    program = folder / "bin" / "dpkg-deb"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ncat {content}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    return folder / "thing_1_amd64.deb"


def test_a_package_is_unpacked_without_what_is_not_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deb = fake_deb(tmp_path, monkeypatch)
    tree = Tree()
    tree.unpack(deb, image.is_wanted)
    found = written(tree)
    assert found["usr/lib/a.so.1"][1] == b"./lib/a.so.1" == found["usr/lib/b.so.1"][1]
    assert found["usr/lib/a.so"][1] == b"a.so.1"
    assert not any("doc" in name or "boot" in name for name in found)
    assert archive.find(deb, "vmlinu[xz]*") == ("boot/vmlinuz-6.1", b"./boot/vmlinuz-6.1")
    with pytest.raises(OSError, match=r"holds no vmlinux\?"):
        archive.find(deb, "vmlinux?")


# --- which kernel


class ListedSuite(packages.Suite):
    """A suite whose list is given."""

    listed: dict[str, list[str]]

    def names(self, prefix: str) -> list[str]:
        if self.name not in self.listed:
            raise packages.KernelsError(f"there is no package list of Debian {self}.")
        return [name for name in self.listed[self.name] if name.startswith(prefix)]


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> image.Shelf:
    ListedSuite.listed = {
        "bookworm": ["linux-image-6.1.0-9-cloud-amd64", "linux-image-6.1.0-50-cloud-amd64", "linux-image-amd64"],
        "trixie-backports": [
            "linux-image-6.18.9+deb13-cloud-amd64",
            "linux-image-6.18.15+deb13-cloud-amd64",
            "linux-image-6.18.15+deb13-cloud-amd64-unsigned",
            "linux-image-6.18.15+deb13-rt-amd64",
            "linux-binary-7.3.4+deb13-cloud-amd64",
            "linux-image-7.3.4+deb13-cloud-amd64",
            "linux-binary-7.3.4+deb13-arm64-16k",
            "linux-headers-7.3.4+deb13-cloud-amd64",
        ],
        "sid": ["linux-image-7.4.1+deb14-cloud-amd64"],
    }
    monkeypatch.setattr(image, "Suite", ListedSuite)
    return image.Shelf(tmp_path, machines.MACHINES["x86_64"], "http://mirror.invalid")


def test_the_newest_package_of_a_series_is_taken(shelf: image.Shelf) -> None:
    assert shelf.kernel("6.1").package == "linux-image-6.1.0-50-cloud-amd64"
    assert shelf.kernel("6.18").package == "linux-image-6.18.15+deb13-cloud-amd64"
    # From 6.19 on the kernel itself is in linux-binary-*.
    assert shelf.kernel("newest").package == "linux-binary-7.3.4+deb13-cloud-amd64"
    assert shelf.kernel("newest").name == "7.3"
    assert shelf.kernel("7.4").suite.name == "sid"
    assert [kernel.name for kernel in shelf.kernels("trixie-backports")] == ["6.18", "7.3"]


def test_a_variant_is_a_kernel_of_its_own(shelf: image.Shelf) -> None:
    arm = image.Shelf(shelf.cache, machines.MACHINES["aarch64"], shelf.mirror)
    assert arm.kernel("7.3-16k").package == "linux-binary-7.3.4+deb13-arm64-16k"
    assert arm.kernel("newest-16k").name == "7.3-16k"


def test_a_kernel_that_is_not_to_be_had_is_named(shelf: image.Shelf) -> None:
    with pytest.raises(packages.KernelsError, match="no kernel 6.13 for x86_64"):
        shelf.kernel("6.13")
    with pytest.raises(packages.KernelsError, match="no package list of Debian bullseye"):
        shelf.kernel("5.10")


def test_a_package_says_its_version() -> None:
    deb = packages.Deb("libzstd1_1.5.4+dfsg2-5_amd64.deb", 1)
    assert (deb.name, deb.version) == ("libzstd1", "1.5.4+dfsg2-5")
    assert packages.Deb("zlib1g_1%3a1.2.13_amd64.deb", 1).version == "1:1.2.13"


def test_the_line_of_apt_that_helps_is_found() -> None:
    assert packages.complaint("W: odd\nE: Unable to locate package x.\n") == "Unable to locate package x"
    assert packages.complaint("something\n") == "something"
    assert packages.complaint(None) == "apt said nothing"


# --- how a guest ended


def console(*messages: dict[str, Any]) -> str:
    lines = ["SeaBIOS", "[    1.2] kernel: hello"]
    for message in messages:
        text = json.dumps(message)
        lines.append(f"{inside.MARK} {zlib.crc32(text.encode()):08x} {text}\r")
    return "\n".join(lines)


FACTS = {
    "kind": "facts", "release": "6.12.117", "machine": "ppc64le", "byteorder": "little", "page_nbytes": 65536,
    "python": "CPython 3.11.2", "libc": "glibc 2.36",
}  # fmt: skip
TESTS: dict[str, Any] = {
    "kind": "tests", "status": 0, "seconds": 9, "passed": 5, "deselected": 2, "failed": [],
    "skipped": {"needs Linux 6.19, this is 6.12.117": 3, "no compiler": 1}, "slowest": [],
}  # fmt: skip
ECHO = {"kind": "echo", "ok": True, "said": "Listening on 127.0.0.1:1, mode multishot (the best). Ctrl-C stops."}
END = {"kind": "end"}


@pytest.mark.parametrize(
    ("text", "ended", "problem"),
    [
        (console(FACTS, TESTS, ECHO, END), True, ""),
        (console(FACTS, TESTS, END), True, ""),
        (console(FACTS, {**TESTS, "status": 1, "failed": ["a", "b"]}, ECHO, END), True, "2 failed"),
        (console(FACTS, {**TESTS, "status": 4}, END), True, "pytest refused its arguments"),
        (console(FACTS, {**TESTS, "status": -11}, END), True, "pytest ended with -11"),
        (console(FACTS, TESTS, {**ECHO, "ok": False}, END), True, "the echo server failed"),
        (console(FACTS), False, "it hung"),
        (console(FACTS), True, "it ended before its tests did"),
        (console(FACTS) + "\nKernel panic - not syncing\n", True, "the kernel panicked"),
        ("", True, "it ended before its tests did"),
        # A kernel message in the middle of a line: what it said is not guessed.
        (console(FACTS, TESTS, END).replace('"passed"', '"pas[  9.1] BUG: sed"'), True, "its report is damaged"),
    ],
)
def test_the_end_of_a_guest_is_judged(text: str, ended: bool, problem: str) -> None:
    assert outcome.judge(text, ended)[0] == problem


RAN = {"kind": "command", "status": 3, "stdout": "é\n" * 1000, "stderr": ""}


@pytest.mark.parametrize(
    ("text", "ended", "problem"),
    [
        (console(RAN, END), True, ""),
        (console(RAN), False, "it hung"),
        ("", True, "it ended before the command did"),
        ("Kernel panic - not syncing\n", True, "the kernel panicked"),
        (console(RAN, END).replace('"status"', '"sta[  9.1] BUG: tus"'), True, "what the command printed is damaged"),
    ],
)
def test_the_end_of_a_command_is_judged(text: str, ended: bool, problem: str) -> None:
    found, said = outcome.judge_command(text, ended)
    assert found == problem
    assert problem or (said["status"], said["stdout"]) == (3, RAN["stdout"])


def made(**changes: Any) -> outcome.Outcome:
    facts, tests, echo = ({k: v for k, v in message.items() if k != "kind"} for message in (FACTS, TESTS, ECHO))
    values: dict[str, Any] = {
        "kernel": "6.12", "machine": "ppc64le", "python": "3.11", "problem": "", "date": "2026-01-02",
        "seconds": 99, "facts": facts, "tests": tests, "echo": echo, "backend": "machine code",
    }  # fmt: skip
    return outcome.Outcome(**{**values, **changes})


def test_the_summary_has_a_row_a_guest_and_groups_what_was_skipped() -> None:
    panicked = made(kernel="7.3", problem="the kernel panicked", facts={}, tests={}, echo={})
    text = outcome.summary([made(), made(kernel="5.10"), panicked])
    rows = [line.split() for line in text.splitlines()]
    assert rows[1] == ["6.12", "ppc64le", "64", "KiB", "3.11", "5", "0", "4", "2", "multishot", "99", "s"]
    assert "the kernel panicked" in text.splitlines()[3]
    assert "  Linux 6.19: 3 on each" in text.splitlines()  # that reported
    assert text.index("Linux 6.19") < text.index("no compiler")


def test_outcomes_are_kept_one_for_each_kind_of_guest(tmp_path: Path) -> None:
    for each in (made(), made(kernel="5.10"), made(seconds=3), made(machine="x86_64")):
        outcome.keep(tmp_path, each)
    found = outcome.kept(tmp_path)
    assert [(each.machine, each.kernel, each.seconds) for each in found] == [
        ("x86_64", "6.12", 99),
        ("ppc64le", "5.10", 99),
        ("ppc64le", "6.12", 3),
    ]


def test_the_later_outcome_counts() -> None:
    old, new = made(seconds=1), made(seconds=2)
    other, past = made(kernel="5.10"), made(seconds=3, date="2025-01-01")
    assert outcome.latest([old, other], [new]) == [other, new]
    assert outcome.latest([old], [past]) == [old]


def test_the_page_is_that_of_the_outcomes_beside_it() -> None:
    text = kernels.SUPPORT.read_text(encoding="utf-8")
    assert text == support.page(outcome.kept(kernels.SUPPORT.with_suffix("")))


def test_what_is_skipped_everywhere_is_told_once() -> None:
    skipped = {"no compiler": 2, "needs Linux 6.19, this is 6.12": 3}
    one, other = (made(kernel=kernel, tests={**made().tests, "skipped": skipped}) for kernel in ("6.1", "6.12"))
    assert outcome.skip_reasons([one, other]) == [("Linux 6.19", "3 on each"), ("no compiler", "2 on each")]
    third = made(kernel="7.3", tests={**made().tests, "skipped": {"no compiler": 1}})
    assert outcome.skip_reasons([one, third])[1] == ("no compiler", "2 on 6.1 ppc64le 3.11, 1 on 7.3 ppc64le 3.11")


def test_the_page_tells_what_failed() -> None:
    failed = made(kernel="6.1", problem="1 failed", tests={**made().tests, "failed": ["tests/test_x.py::test_y"]})
    page = support.page([made(), failed])
    assert "| 6.12" in page and "64 KiB" in page and "2026-01-02" in page and "machine code" in page
    assert "tests/test_x.py::test_y" in page


# --- the command line


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    try:
        status = kernels.main(arguments)
    except SystemExit as ended:
        assert isinstance(ended.code, int)
        status = ended.code
    return status, capsys.readouterr().err


def test_bad_usage_ends_with_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    cache = ("--cache", str(tmp_path))
    assert run(capsys)[0] == 2
    assert run(capsys, "run", "--arch", "vax")[0] == 2
    assert run(capsys, "run", "--jobs", "0")[0] == 2
    assert run(capsys, "exec", "--cpus", "0", "--", "true")[0] == 2
    assert run(capsys, "run", "--timeout", "-5")[0] == 2
    status, said = run(capsys, "run", *cache, "--kernel", "6.1@vax")
    assert status == 2 and said.startswith("kernels.py: no machine is called vax")
    assert said.count("\n") == 1
    status, said = run(capsys, "exec", *cache, "--kernel", "6.1")
    assert status == 2 and said.startswith("kernels.py: exec needs a command")
    status, said = run(capsys, "support", *cache, "--write", str(tmp_path / "none" / "page.md"))
    assert status == 2 and "no guest has run yet" in said
    outcome.keep(tmp_path / "outcomes", made())
    status, said = run(capsys, "support", *cache, "--write", str(tmp_path / "absent" / "page.md"))
    assert status == 2 and said == f"kernels.py: {tmp_path / 'absent' / 'page.md'}: No such file or directory\n"
    status, said = run(capsys, "support", *cache, "--write", str(tmp_path / "page"))
    assert status == 2 and "a file with a suffix" in said and not (tmp_path / "page").exists()


def test_without_qemu_or_apt_one_sentence_says_so(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    status, said = run(capsys, "run", "--cache", str(tmp_path), "--arch", "s390x")
    assert status == 2 and said.startswith("kernels.py: qemu-system-s390x is not here: --install fetches it")
    status, said = run(capsys, "run", "--cache", str(tmp_path), "--arch", "s390x", "--install")
    assert status == 2 and "there is no apt-get here" in said
    qemu = tmp_path / "qemu-system-s390x"
    qemu.write_text("#!/bin/sh\n")
    qemu.chmod(0o755)
    status, said = run(capsys, "run", "--cache", str(tmp_path), "--arch", "s390x", "--kernel", "6.1")
    assert status == 2 and "this machine has no apt-get" in said
    assert said.count("\n") == 1


def test_the_checkout_that_a_guest_gets_is_whole() -> None:
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("no git, or no repository")
    found = set(image.files_of_checkout())
    assert {"pyproject.toml", "README.md", "rawuring/__init__.py", "tests/test_kernels.py", ".ci/run"} <= found
    assert not any(name.startswith((".venv", ".git/")) or "__pycache__" in name for name in found)


def test_what_pytest_counts_reaches_the_console(tmp_path: Path) -> None:
    (tmp_path / "test_sample.py").write_text(
        "import pytest\n"
        "def test_good(): pass\n"
        "def test_bad(): assert False\n"
        "def test_waits(): pytest.skip('needs Linux 9.9, this is 1.0')\n"
        "@pytest.mark.slow\ndef test_slow(): pass\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    slow: slow\n")
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'tools' / 'kernel_parts')!r}); import inside; "
        f"inside.REPORT = {str(tmp_path / 'report.json')!r}; import pytest; "
        "sys.exit(pytest.main(['-q', '-p', 'inside', '-p', 'no:cacheprovider', '-m', 'not slow']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["passed"], report["deselected"]) == (1, 1)
    assert report["failed"] == ["test_sample.py::test_bad (call)"]
    assert report["skipped"] == {"needs Linux 9.9, this is 1.0": 1}


def test_what_fails_once_is_run_again_and_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "test_sample.py").write_text(
        "from pathlib import Path\n"
        "def test_good(): pass\n"
        "def test_once():\n"
        "    mark = Path('failed-before')\n"
        "    if not mark.exists():\n"
        "        mark.touch()\n"
        "        assert False\n"
        "def test_bad(): assert False\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(inside, "REPORT", str(tmp_path / "report.json"))
    monkeypatch.setenv("RAWURING_REPORT", inside.REPORT)
    status, report = inside.run_tests(["-q"])
    assert (status, report["passed"]) == (1, 2)
    assert report["unsteady"] == ["test_sample.py::test_once"]
    assert report["failed"] == ["test_sample.py::test_bad (call)"]
    monkeypatch.setattr(inside, "MOST_REPEATED", 0)
    (tmp_path / "failed-before").unlink()
    status, report = inside.run_tests(["-q"])
    assert status == 1 and len(report["failed"]) == 2 and report["unsteady"] == []


def test_a_command_says_how_it_ended(capsys: pytest.CaptureFixture[str]) -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    inside.main([json.dumps({"command": [sys.executable, "-c", code], "ordinary_user": False})])
    problem, said = outcome.judge_command(capsys.readouterr().out, ended=True)
    assert (problem, said) == ("", {"status": 3, "stdout": "out\n", "stderr": "err\n"})
    inside.main([json.dumps({"command": ["/no/such/program"], "ordinary_user": False})])
    problem, said = outcome.judge_command(capsys.readouterr().out, ended=True)
    assert (problem, said["status"]) == ("", 127) and "No such file" in said["stderr"]


def test_a_command_in_a_guest_ends_as_the_guest_says(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guest is a program that prints what a console would."""
    (tmp_path / "console").write_text(console({**RAN, "stdout": "out\n", "stderr": "err\n"}, END), encoding="utf-8")
    row = kernels.Row(machines.MACHINES["x86_64"], "6.1", "3.11", tmp_path / "vmlinuz", tmp_path / "root")
    monkeypatch.setattr(kernels.Workshop, "rows", lambda *arguments: [row])
    monkeypatch.setattr(image, "checkout", lambda path, root, python, script: path.write_text(script))
    monkeypatch.setattr(machines, "command", lambda *arguments, cpus: ["cat", str(tmp_path / "console")])
    arguments = ["exec", "--cache", str(tmp_path), "--kernel", "6.1", "--", "x", "-v"]
    assert kernels.main(arguments) == 3
    assert capsys.readouterr() == ("out\n", "err\n")
    assert list((tmp_path / "logs").iterdir()) == []
    (tmp_path / "console").write_text("Kernel panic\n")
    assert kernels.main(arguments) == 1
    assert "the kernel panicked; its console is in" in capsys.readouterr().err
