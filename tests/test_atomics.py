"""rawuring.atomics: every back-end this machine can have, and the machine code of all architectures."""

from __future__ import annotations

import mmap
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from conftest import RunChild
from emulation import HANG_S, fewer

from rawuring import atomics
from rawuring.errors import RawuringError

MakeWord = Callable[[memoryview, int], "atomics.Word32 | atomics.Word16"]


def provide(backend: str) -> atomics._Functions:
    """The functions of a foreign back-end, or a skip where it cannot be had."""
    try:
        return atomics._FOREIGN[backend]()
    except (OSError, AttributeError) as error:
        pytest.skip(f"no {backend} here: {error}")


@pytest.fixture(params=["tso", "libatomic", "machine code", "none"])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name in atomics._FOREIGN:
        provide(name)
    return name


@pytest.fixture(params=[4, 2])
def nbytes(request: pytest.FixtureRequest) -> int:
    width: int = request.param
    return width


@pytest.fixture
def make_word(backend: str, nbytes: int) -> MakeWord:
    word32, word16 = atomics._make(backend)
    return word32 if nbytes == 4 else word16  # type: ignore[return-value]


@pytest.fixture
def page() -> Iterator[mmap.mmap]:
    with mmap.mmap(-1, mmap.PAGESIZE) as memory:
        yield memory


def test_values_pass_unchanged(page: mmap.mmap, make_word: MakeWord, nbytes: int) -> None:
    top = 1 << 8 * nbytes - 1
    word = make_word(memoryview(page), 8)
    for value in (0, 1, 0x1234, top - 1, top, 2 * top - 1):
        for store in (word.store, word.store_release):
            word.store(~value & 2 * top - 1)
            store(value)
            assert word.load() == word.load_acquire() == value
            assert page[8 : 8 + nbytes] == value.to_bytes(nbytes, sys.byteorder)
    word.release()


def test_what_others_write_is_seen(page: mmap.mmap, make_word: MakeWord, nbytes: int) -> None:
    word = make_word(memoryview(page), 0)
    for value in (b"\0", b"\xff", b"\x5a"):
        page[0:nbytes] = value * nbytes
        assert word.load() == word.load_acquire() == int.from_bytes(value * nbytes, sys.byteorder)
    word.release()


def test_neighbouring_bytes_stay(page: mmap.mmap, make_word: MakeWord, nbytes: int) -> None:
    page[:16] = b"\x5a" * 16
    word = make_word(memoryview(page), 8)
    word.store(0)
    word.store_release(0)
    assert page[:16] == b"\x5a" * 8 + b"\0" * nbytes + b"\x5a" * (8 - nbytes)
    word.release()


def test_the_last_word_of_the_memory_can_be_used(make_word: MakeWord, nbytes: int) -> None:
    memory = bytearray(32)
    word = make_word(memoryview(memory), 32 - nbytes)
    word.store(1)
    assert sum(memory) == 1
    word.release()


def test_a_place_that_is_not_aligned_or_outside_is_refused(page: mmap.mmap, make_word: MakeWord, nbytes: int) -> None:
    view = memoryview(page)
    for offset in [*range(1, nbytes), 64 + nbytes - 1, -nbytes, len(page), len(page) - nbytes + 1]:
        with pytest.raises(ValueError):
            make_word(view, offset)
    # It is the address that counts.
    make_word(view[1:], nbytes - 1).release()
    with pytest.raises(ValueError, match="not aligned"):
        make_word(view[1:], nbytes)
    with pytest.raises(TypeError, match="not writable"):
        make_word(view.toreadonly(), 0)
    view.release()


def test_release_lets_the_memory_go_and_ends_the_use(make_word: MakeWord) -> None:
    page = mmap.mmap(-1, mmap.PAGESIZE)
    word = make_word(memoryview(page), 4)
    with pytest.raises(BufferError):
        page.close()
    word.release()
    word.release()
    page.close()
    for access in (word.load, word.load_acquire, lambda: word.store(0), lambda: word.store_release(0)):
        with pytest.raises(ValueError, match="released"):
            access()


def test_a_word_is_never_seen_half_written(backend: str, run_child: RunChild) -> None:
    if backend in ("tso", "none") and atomics.backend != "tso":
        pytest.skip("plain accesses promise nothing on this machine")
    run_child(
        """
        import mmap, os, signal, sys
        from rawuring import atomics

        page = mmap.mmap(-1, mmap.PAGESIZE)
        word32, word16 = atomics._make(sys.argv[1])
        words = (word32(memoryview(page), 0), 0x01010101), (word16(memoryview(page), 64), 0x0101)
        turns = range(int(sys.argv[3]))
        writer = os.fork()
        if writer == 0:
            signal.alarm(int(sys.argv[2]))  # outlives no reader that died
            while True:
                for byte in (0xFF, 0xA5, 0x5A):
                    for word, unit in words:
                        word.store(byte * unit)
                        word.store_release(byte * unit)
        try:
            for word, unit in words:
                while not word.load():
                    pass
                seen = {word.load() for _ in turns} | {word.load_acquire() for _ in turns}
                assert seen <= {byte * unit for byte in (0xFF, 0xA5, 0x5A)}, seen
        finally:
            os.kill(writer, signal.SIGKILL)
            os.waitpid(writer, 0)
        """,
        backend,
        str(2 * HANG_S),
        str(fewer(100_000)),
    )


def test_the_choice_fits_the_machine() -> None:
    assert atomics.backend in ("tso", "libatomic", "machine code", "none")
    assert (atomics.backend == "tso") == (atomics._MACHINE in ("x86_64", "s390x"))


def test_the_choice_steps_down(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> NoReturn:
        raise OSError("not here")

    functions = provide("machine code")
    choose = atomics._foreign.__wrapped__
    monkeypatch.setattr(atomics, "_FOREIGN", {"libatomic": missing, "machine code": lambda: functions})
    assert choose() == ("machine code", functions)
    monkeypatch.setattr(atomics, "_FOREIGN", {"libatomic": missing, "machine code": missing})
    assert choose() == ("none", None)


@pytest.mark.parametrize("name", ["libatomic", "machine code", "none"])
def test_rings_on_each_back_end_of_a_weakly_ordered_machine(name: str, run_child: RunChild) -> None:
    """Everything works, or what would be unsafe is refused. A machine of total store order plays one without code."""
    if name != "none":
        provide(name)
    plays = atomics.backend == "tso"
    if plays and name == "machine code":
        pytest.skip("the words of this machine need no machine code")
    run_child(
        """
        import ctypes, os, socket, sys

        def missing(*_):
            raise OSError("not here")

        name, timeout_ns = sys.argv[1], int(sys.argv[3])
        if name != "libatomic":
            ctypes.PyDLL = missing
        if name == "none":
            os.memfd_create = missing
        if sys.argv[2] == "plays":
            weak = os.uname_result((*os.uname()[:4], "weak"))
            os.uname = lambda: weak

        from rawuring import RawuringError, Ring, RingSetupError, UnsupportedError, abi, atomics

        assert atomics.backend == name, atomics.backend

        def refused(make):
            try:
                make().close()
            except RawuringError as error:
                return "libatomic" in str(error)
            return False

        def use(ring):
            nops = [ring.nop() for _ in range(20)]
            assert [nop.wait(timeout_ns) for nop in nops] == [0] * 20

        if name == "none":
            assert refused(lambda: Ring(8, wanted_flags=0)) and refused(lambda: Ring(8, abi.Setup.SQPOLL))
            try:
                ring = Ring(8)
            except RawuringError as error:
                assert "DEFER_TASKRUN" in str(error)  # this kernel has none
                raise SystemExit
            with ring:
                use(ring)
                assert refused(lambda: ring.buffer_ring(4, 64))
            raise SystemExit

        for setup_flags, wanted_flags in (0, abi.Setup.DEFER_TASKRUN | abi.Setup.SINGLE_ISSUER), (0, 0), (abi.Setup.SQPOLL, 0):
            try:
                ring = Ring(8, setup_flags, wanted_flags=wanted_flags)
            except RingSetupError:
                assert setup_flags  # an SQ thread needs a privilege, before Linux 5.13
                continue
            ours, theirs = socket.socketpair()
            with ring, ours, theirs:
                use(ring)
                try:
                    pool = ring.buffer_ring(4, 64)
                except UnsupportedError:
                    continue
                for message in [b"%d" % n for n in range(10)]:
                    theirs.send(message)
                    assert ring.recv_select(ours, pool).wait(timeout_ns) == message
        """,
        name,
        "plays" if plays else "",
        str(HANG_S * 10**9),
    )


def test_an_unknown_machine_has_no_machine_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomics, "_MACHINE", "pdp11")
    with pytest.raises(OSError, match="machine code for pdp11"):
        atomics._make("machine code")


@pytest.mark.parametrize("name", ["libatomic", "machine code"])
def test_each_fence_can_be_called(name: str) -> None:
    assert provide(name).fence(5) is None


def test_full_fence_or_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    assert atomics.has_full_fence == (atomics.fence_backend in ("libatomic", "machine code"))
    if atomics.has_full_fence:
        atomics.full_fence()
        atomics.full_fence()
    monkeypatch.setattr(atomics, "_foreign", lambda: ("none", None))
    monkeypatch.setattr(atomics, "_fence", atomics._first_fence)
    assert atomics.has_full_fence is False
    with pytest.raises(RawuringError, match="install libatomic"):
        atomics.full_fence()
    with pytest.raises(AttributeError, match="no attribute 'half_fence'"):
        getattr(atomics, "half_fence")


@pytest.mark.skipif(atomics.backend != "tso", reason="the words of this machine need a library or machine code")
def test_nothing_is_loaded_before_the_first_fence(run_child: RunChild) -> None:
    run_child(
        """
        from pathlib import Path
        from rawuring import atomics

        def loaded():
            maps = Path("/proc/self/maps").read_text(encoding="utf-8")
            return "libatomic" in maps or "rawuring-atomics" in maps

        assert not loaded()
        if not atomics.has_full_fence:
            raise SystemExit
        assert loaded()
        """
    )


def test_machine_code_is_never_writable_and_executable(run_child: RunChild) -> None:
    provide("machine code")
    child = run_child(
        """
        import ctypes
        from pathlib import Path
        from rawuring import atomics

        # PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN (Linux 6.3): what was ever writable cannot become executable.
        ctypes.CDLL(None).prctl(65, 1, 0, 0, 0)
        atomics._FOREIGN["machine code"]().fence(5)
        maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
        print(*[line.split()[1] for line in maps if "rawuring-atomics" in line])
        """
    )
    assert child.stdout.split() == ["r-xp"]


# For each function of the machine code, in order, what a disassembler must make of it.
EXPECTED: dict[str, list[list[str]]] = {
    "x86_64": [
        ["mov (%rdi),%eax", "ret"],
        ["mov %esi,(%rdi)", "ret"],
        ["movzwl (%rdi),%eax", "ret"],
        ["mov %si,(%rdi)", "ret"],
        ["lock orl $0x0,(%rsp)", "ret"],
    ],
    "s390x": [
        ["llgf %r2,0(%r2)", "br %r14"],
        ["st %r3,0(%r2)", "br %r14"],
        ["llgh %r2,0(%r2)", "br %r14"],
        ["sth %r3,0(%r2)", "br %r14"],
        ["br %r0", "br %r14"],  # the other spelling of bcr 15, 0
    ],
    "aarch64": [
        ["ldar w0, [x0]", "ret"],
        ["stlr w1, [x0]", "ret"],
        ["ldarh w0, [x0]", "ret"],
        ["stlrh w1, [x0]", "ret"],
        ["dmb ish", "ret"],
    ],
    "ppc64le": [
        ["lwz r3,0(r3)", "lwsync", "blr"],
        ["lwsync", "stw r4,0(r3)", "blr"],
        ["lhz r3,0(r3)", "lwsync", "blr"],
        ["lwsync", "sth r4,0(r3)", "blr"],
        ["hwsync", "blr"],
    ],
    "riscv64": [
        ["lw a0,0(a0)", "fence r,rw", "ret"],
        ["fence rw,w", "sw a1,0(a0)", "ret"],
        ["lhu a0,0(a0)", "fence r,rw", "ret"],
        ["fence rw,w", "sh a1,0(a0)", "ret"],
        ["fence rw,rw", "ret"],
    ],
    "loongarch64": [
        ["ld.w $a0, $a0, 0", "dbar 0x0", "ret"],
        ["dbar 0x0", "st.w $a1, $a0, 0", "ret"],
        ["ld.hu $a0, $a0, 0", "dbar 0x0", "ret"],
        ["dbar 0x0", "st.h $a1, $a0, 0", "ret"],
        ["dbar 0x0", "ret"],
    ],
}
# What objdump takes to disassemble bare bytes of each.
OBJDUMP_OPTIONS = {
    "x86_64": ["-m", "i386:x86-64"],
    "s390x": ["-m", "s390:64-bit", "-EB"],
    "aarch64": ["-m", "aarch64", "-EL"],
    "ppc64le": ["-m", "powerpc:common64", "-EL"],
    "riscv64": ["-m", "riscv:rv64"],
    "loongarch64": ["-m", "loongarch64"],
}
# Spellings that differ between releases of binutils.
SPELLINGS = {"retq": "ret", "sync": "hwsync", "dbar 0": "dbar 0x0"}


def disassemble(machine: str, code: bytes, path: Path) -> list[str]:
    path.write_bytes(code)
    triplet = {"ppc64le": "powerpc64le"}.get(machine, machine)
    for tool in filter(shutil.which, (f"{triplet}-linux-gnu-objdump", "objdump")):
        command = [tool, "-D", "-z", "-b", "binary", *OBJDUMP_OPTIONS[machine], "--no-show-raw-insn", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            lines = [" ".join(line.split()) for line in re.findall(r"^ +[0-9a-f]+:\s+(.*)$", done.stdout, re.MULTILINE)]
            return [SPELLINGS.get(line, line) for line in lines]
    pytest.skip(f"no objdump for {machine} here")


@pytest.mark.parametrize("machine", atomics._MACHINE_CODE)
def test_machine_code_is_what_it_says(machine: str, tmp_path: Path) -> None:
    pieces = [bytes.fromhex(piece) for piece in atomics._MACHINE_CODE[machine].values()]
    assert max(map(len, pieces)) <= atomics._SLOT_NBYTES
    found = [disassemble(machine, piece, tmp_path / "code") for piece in pieces]
    assert found == EXPECTED[machine]
