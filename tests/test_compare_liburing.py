"""tools/compare_liburing.py: what it says of a liburing that is small, wrong, too new or not there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tools import compare_liburing
from tools.compare_liburing import CannotCompareError, assignment, call, prototypes

pytestmark = [pytest.mark.portable, pytest.mark.one_python]

HEADER = """
struct io_uring_sqe {
    unsigned char opcode, flags;
    unsigned short ioprio;
    int fd;
    unsigned long long off, addr;
    unsigned len, rw_flags;
    unsigned long long user_data, rest[3];
};
#define IOURINGINLINE static inline
#define LIBURING_NOEXCEPT

IOURINGINLINE void io_uring_prep_nop(struct io_uring_sqe *sqe)
    LIBURING_NOEXCEPT
{
    sqe->fd = -1;
}
IOURINGINLINE void io_uring_prep_shutdown(struct io_uring_sqe *sqe, int fd,
                                          int how)
    LIBURING_NOEXCEPT
{
    sqe->opcode = 34;
    sqe->fd = fd;
    sqe->len = how;
}
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Something like a configured liburing with two functions."""
    if not any(shutil.which(name) for name in ("cc", "gcc", "clang")):
        pytest.skip("no C compiler")
    folder = tmp_path / "src" / "include"
    (folder / "liburing").mkdir(parents=True)
    (folder / "liburing.h").write_text(HEADER)
    for path in compare_liburing.CONFIGURED:
        (tmp_path / path).touch()
    return tmp_path


def change(checkout: Path, before: str, after: str) -> None:
    path = checkout / compare_liburing.HEADER
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))


def test_equal(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare_liburing.main([str(checkout)]) == 0
    out = capsys.readouterr().out
    assert "2 of liburing's 2 functions write what rawuring writes, in 4 SQEs." in out
    assert "Not in this liburing: __io_uring_prep_uring_cmd, io_uring_prep_accept," in out


def test_one_that_differs_is_shown(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(checkout, "sqe->len = how;", "sqe->len = how + 1;")
    assert compare_liburing.main([str(checkout)]) == 1
    out = capsys.readouterr().out
    assert "1 of liburing's 2 functions" in out
    assert "io_uring_prep_shutdown, as it is:" in out and "io_uring_prep_shutdown, every field:" in out


def test_a_function_that_the_table_lacks(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(checkout, "#define LIBURING_NOEXCEPT", """#define LIBURING_NOEXCEPT
IOURINGINLINE void io_uring_prep_later(struct io_uring_sqe *sqe) { }
""")  # fmt: skip
    assert compare_liburing.main([str(checkout)]) == 1
    assert "NOT COMPARED" in capsys.readouterr().out


def test_what_cannot_be_compared_is_one_sentence(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    change(checkout, "int how)", "int how, int more)")
    assert compare_liburing.main([str(checkout)]) == 2
    change(checkout, "int how, int more)", "int how, nonsense)")
    assert compare_liburing.main([str(checkout)]) == 2
    change(checkout, "nonsense)", "int more)")
    (checkout / compare_liburing.CONFIGURED[0]).unlink()
    assert compare_liburing.main([str(checkout)]) == 2
    assert compare_liburing.main([str(tmp_path / "nothing")]) == 2
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert compare_liburing.main([str(checkout)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert len(told.err.splitlines()) == 5


def test_prototypes_become_calls() -> None:
    types = prototypes("IOURINGINLINE void io_uring_prep_rw(int op, struct io_uring_sqe *sqe,\n\tconst void *addr)\n")
    assert types == {"io_uring_prep_rw": ["int", "struct io_uring_sqe *", "const void *"]}
    assert call("f", types["io_uring_prep_rw"], (1, -2)) == (
        "f((int)0x1ULL, sqe, (const void *)(uintptr_t)0xfffffffffffffffeULL);"
    )
    with pytest.raises(CannotCompareError, match="fewer"):
        call("f", ["int"], (1, 2))


def test_fields_are_set_as_a_caller_does() -> None:
    assert assignment("fd", 3) == "sqe->fd = 0x3ULL;"
    assert assignment("ioprio", 3) == "sqe->ioprio |= 0x3ULL;"
    assert assignment("cmd", b"\1\2") == "memcpy((void *)sqe->cmd, (const unsigned char[]){1, 2}, 2);"
