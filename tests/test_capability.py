"""The report on what this kernel and sandbox allow: its rows against the kernel, its judgement, its traces."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import RunChild
from sandbox import CALLS, RET_ERRNO, in_child, install_filter
from sandbox import ring_possible as ring_possible
from support import needs

from rawuring import RawuringError, Ring, RingSetupError, abi, atomics, capability, register
from rawuring.capability import asking, behaviour, examining, judging
from rawuring.capability.report import BACKPORT, LATER, MISSING, NOT_RUN, OK, UNKNOWN, Behaviour, Report, Row
from rawuring.diagnosis import Diagnosis, is_known

TABLES: dict[str, Any] = {
    "features": abi.Feature,
    "setup_flags": abi.Setup,
    "opcodes": abi.Op,
    "register_ops": abi.Register,
}
RELEASE = os.uname().release


@pytest.fixture(scope="module")
def report() -> Report:
    return capability.examine()


def rows(report: Report, table: str) -> tuple[Row, ...]:
    found = getattr(report, table)
    assert isinstance(found, tuple)
    return found


# -- Against this kernel.


def test_a_system_that_allows_it(report: Report) -> None:
    assert (report.verdict.status, report.verdict.exit_code, report.diagnosis) == ("usable", 0, ())
    assert RELEASE in report.verdict.summary
    assert [call.meaning for call in report.access.calls] == ["reachable"] * 3
    assert report.access.ring is None
    assert report.kernel.config_io_uring is True
    assert report.kernel.page_nbytes == os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("table", TABLES)
def test_every_constant_has_a_row_with_an_answer(report: Report, table: str) -> None:
    found = rows(report, table)
    assert [(row.value, row.name, row.since) for row in found] == sorted(
        (int(one), one.name, one.since) for one in TABLES[table]
    )
    assert [row.name for row in found if row.present is None or row.source is None] == []


def test_rows_are_what_a_ring_shows(report: Report) -> None:
    with Ring(2) as ring:
        for row in report.opcodes:
            assert row.present is ring.supports(abi.Op(row.value))
        for row in report.features:
            assert row.present is bool(ring.features & row.value)
        for row in report.setup_flags:
            if ring.setup_flags & row.value:
                assert row.present


def query() -> register.Query:
    try:
        return register.query()
    except OSError:
        needs("6.18", False)
        raise


def test_setup_flags_by_trial_are_those_that_the_kernel_tells() -> None:
    mask = query().ring_setup_flags
    assert {flag.name: is_known(flag) for flag in abi.Setup} == {flag.name: bool(mask & flag) for flag in abi.Setup}


def test_verbs_by_trial_are_those_that_the_kernel_tells(report: Report) -> None:
    count = query().nr_register_opcodes
    for row in report.register_ops:
        if row.name in judging.BUILT_BY:  # it may be left out, which the count does not tell
            assert row.value < count or row.present is False, row.name
        else:
            assert row.present is (row.value < count), row.name


def test_operations_by_probe_are_within_those_that_the_kernel_counts(report: Report) -> None:
    count = query().nr_request_opcodes
    assert [row.name for row in report.opcodes if row.present and row.value >= count] == []


def test_without_a_ring_the_kernel_still_answers(report: Report) -> None:
    query()
    answers = asking.ask(can_make_ring=False, can_register=True)
    for table, answer in answers.items():
        found = judging.rows(table, answer, RELEASE)
        assert {row.source for row in found} == {"REGISTER_QUERY"}
        for bare, asked in zip(found, rows(report, table)):
            assert bare.present is asked.present or bare.name in judging.BUILT_BY, bare.name


@pytest.mark.parametrize("table", TABLES)
def test_nobody_to_ask(table: str) -> None:
    answer = asking.ask(can_make_ring=False, can_register=False)[table]
    assert {(row.present, row.state, row.source) for row in judging.rows(table, answer, RELEASE)} == {
        (None, UNKNOWN, None)
    }


def test_releases_of_the_tables_are_those_of_this_kernel(report: Report) -> None:
    if ".el" in RELEASE:
        pytest.skip(f"{RELEASE} carries code of many later releases")
    for surprise in report.surprises:
        if surprise.state == BACKPORT:  # the 5.10 series has the io_uring of 5.15
            since = next(row.since for row in rows(report, surprise.section) if row.name == surprise.name)
            assert RELEASE.startswith("5.10.") and judging.state_of(True, since, "5.15") == OK, surprise
        elif surprise.state == MISSING:
            assert surprise.name in judging.BUILT_BY, surprise
        assert surprise.explanation.endswith(".")


def test_what_the_kernel_knows_beyond_the_tables_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    future = register.Query(
        nr_request_opcodes=len(abi.Op) + 3,
        nr_register_opcodes=len(abi.Register) + 1,
        feature_flags=sum(abi.Feature) | 1 << 40,
        ring_setup_flags=sum(abi.Setup) | 3 << 30,
        enter_flags=0,
        sqe_flags=0,
        nr_query_opcodes=1,
    )
    monkeypatch.setattr(asking, "query", lambda: future)
    answers = asking.ask(can_make_ring=False, can_register=True)
    beyond = {name: answer.beyond for name, answer in answers.items()}
    assert beyond == {"features": 1, "setup_flags": 2, "opcodes": 3, "register_ops": 1}
    found = judging.surprises({name: () for name in answers}, beyond, "9.9")
    assert [(one.section, one.name, one.state) for one in found] == [
        ("features", "1 more", UNKNOWN),
        ("setup_flags", "2 more", UNKNOWN),
        ("opcodes", "3 more", UNKNOWN),
        ("register_ops", "1 more", UNKNOWN),
    ]


# -- Judgement, without a kernel.


@pytest.mark.portable
@pytest.mark.parametrize(
    ("state", "present", "since", "release"),
    [
        (OK, True, "6.1", "6.1.0-13-amd64"),
        (OK, True, "5.19", "6.1.0"),
        (OK, True, "6.9", "6.12.1"),
        (BACKPORT, True, "6.12", "6.9.1"),
        (BACKPORT, True, "5.15", "5.10.0-32-cloud-amd64"),
        (LATER, False, "6.12", "6.9"),
        (MISSING, False, "6.9", "6.12"),
        (MISSING, False, "6.9", "6.9-rc1"),
        (UNKNOWN, None, "5.1", "6.12"),
        (OK, True, "6.9", "of a kind of its own"),
        (MISSING, False, "6.9", "of a kind of its own"),
    ],
)
def test_states(state: str, present: bool | None, since: str, release: str) -> None:
    assert judging.state_of(present, since, release) == state


def explanation(table: str, name: str, present: bool, release: str) -> str:
    value = int(TABLES[table][name])
    answer = asking.Answer({value: (present, "trial")}, None)
    found = judging.surprises({table: judging.rows(table, answer, release)}, {}, release)
    (surprise,) = found
    return surprise.explanation


@pytest.mark.portable
def test_surprises_are_explained() -> None:
    assert "CONFIG_NET_RX_BUSY_POLL" in explanation("register_ops", "NAPI", False, "6.12.1")
    assert "restriction" in explanation("opcodes", "READ", False, "6.12.1")
    assert "from 5.10.162 on" in explanation("opcodes", "MKDIRAT", True, "5.10.0-32")
    assert "5.10" not in explanation("opcodes", "PIPE", True, "6.12.1")
    assert "newer code" in explanation("opcodes", "PIPE", True, "5.10.0")


@pytest.mark.portable
def test_a_behaviour_that_is_missing_is_a_surprise_with_what_was_seen() -> None:
    tried = Behaviour("sqpoll", "SQPOLL", "5.1", False, MISSING, "a second went by")
    (surprise,) = judging.surprises({"behaviour": [tried]}, {}, "6.12")
    assert (surprise.section, surprise.name) == ("behaviour", "sqpoll") and "a second went by" in surprise.explanation


@pytest.mark.portable
def test_options_are_of_names_that_there_are() -> None:
    names = {one.name for table in TABLES.values() for one in table}
    assert judging.BUILT_BY.keys() <= names


@pytest.mark.portable
@pytest.mark.parametrize(
    ("status", "exit_code", "cause", "confidence"),
    [
        ("blocked", 3, "seccomp", "certain"),
        ("blocked", 3, "seccomp", "likely"),
        ("undecided", 5, "seccomp", "possible"),
        ("blocked", 3, "sysctl", "certain"),
        ("blocked", 3, "lsm", "likely"),
        ("blocked", 3, "policy", "possible"),
        ("blocked", 3, "interceptor", "likely"),
        ("blocked", 3, "memlock", "certain"),
        ("undecided", 5, "memlock", "possible"),
        ("blocked", 3, "memory", "likely"),
        ("blocked", 3, "fd-limit", "certain"),
        ("absent", 4, "absent", "certain"),
        ("absent", 4, "absent", "likely"),
        ("undecided", 5, "absent", "possible"),
        ("absent", 4, "not-linux", "certain"),
        ("absent", 4, "emulator", "likely"),
        ("absent", 4, "memory-order", "certain"),
        ("undecided", 5, "unknown", "possible"),
    ],
)
def test_status_of_a_diagnosis(status: str, exit_code: int, cause: str, confidence: str) -> None:
    assert examining.status_of(Diagnosis(cause, confidence, "It is so.", "Change it.")) == (status, exit_code)


# -- The document.


def leaves(value: Any) -> Iterator[Any]:
    if type(value) is dict:
        for name, each in value.items():
            assert type(name) is str
            yield from leaves(each)
    elif type(value) is list:
        for each in value:
            yield from leaves(each)
    else:
        yield value


def test_the_document_is_plain(report: Report) -> None:
    document = capability.document(report)
    assert {type(leaf) for leaf in leaves(document)} <= {str, int, bool, type(None)}
    assert json.loads(json.dumps(document)) == document
    assert document["schema"] == capability.SCHEMA


def test_behaviours_that_were_not_run_have_their_rows(report: Report) -> None:
    assert [row.name for row in report.behaviour] == list(behaviour.TRIALS)
    assert {(row.present, row.state) for row in report.behaviour} == {(None, NOT_RUN)}


def test_keys_do_not_depend_on_what_is_found(report: Report) -> None:
    def keys(value: Any) -> Any:
        if type(value) is dict:
            return {name: keys(each) for name, each in value.items()}
        return [keys(value[0])] if type(value) is list and value and type(value[0]) is dict else None

    blocked = capability.document(examine_blocked())
    here = capability.document(report)
    for name in ("diagnosis", "surprises"):
        assert blocked.pop(name) != [] or name == "surprises"
        here.pop(name)
    assert keys(blocked) == keys(here)


def examine_blocked() -> Report:
    def work() -> Report:
        install_filter(RET_ERRNO | errno.EPERM, CALLS)
        return capability.examine(run=True)

    found = in_child(work)
    assert isinstance(found, Report)
    return found


# -- Less to see.


def test_nothing_to_read(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **keywords: object) -> str:
        raise FileNotFoundError(errno.ENOENT, "no /proc")

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr(os, "readlink", refuse)
    blind = capability.examine()
    access = blind.access
    assert blind.verdict.exit_code == 0 and blind.opcodes == report.opcodes
    assert (access.io_uring_disabled, access.seccomp_mode, access.seccomp_filters, access.no_new_privs) == (None,) * 4
    assert set(access.capabilities.values()) == {None}


@pytest.mark.parametrize("error", [BlockingIOError(errno.EAGAIN, "no"), RuntimeError("fork not supported")])
def test_no_child_can_be_made(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuse() -> int:
        raise error

    monkeypatch.setattr(os, "fork", refuse)
    found = capability.examine(run=True)
    assert (found.verdict.status, found.verdict.exit_code) == ("undecided", 5)
    assert [call.meaning for call in found.access.calls] == ["unknown"] * 3
    assert {row.present for table in TABLES for row in rows(found, table)} == {None}
    assert found.surprises == ()


@pytest.mark.parametrize(
    ("cause", "backend", "error"),
    [
        ("memory-order", "none", RawuringError("this machine orders memory weakly")),
        ("unknown", "tso", OSError(errno.ENOMEM, "mmap: Cannot allocate memory")),
        ("lsm", "tso", RingSetupError(errno.EACCES, "?")),
    ],
)
def test_a_plain_ring_can_be_made_and_a_ring_of_this_library_cannot(
    monkeypatch: pytest.MonkeyPatch, cause: str, backend: str, error: Exception
) -> None:
    def refuse(entries: int) -> Ring:
        raise error

    why = Diagnosis("lsm", "likely", "It is so.", "Change it.")
    monkeypatch.setattr(examining, "Ring", refuse)
    monkeypatch.setattr(atomics, "backend", backend)
    monkeypatch.setattr(examining, "explain_setup_failure", lambda *arguments: why)
    found = capability.examine()
    assert found.verdict.exit_code in (3, 4, 5) and found.diagnosis[0].cause == cause
    assert found.access.ring == (why.text if cause == "lsm" else str(error))


def test_a_ring_of_this_library_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examining, "Ring", lambda entries: os.kill(os.getpid(), signal.SIGKILL))
    found = capability.examine()
    assert (found.verdict.status, found.diagnosis[0].cause) == ("undecided", "unknown")


def test_no_fd_is_free() -> None:
    def work() -> Report:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        return capability.examine(run=True)

    found = in_child(work)
    assert (found.verdict.exit_code, found.diagnosis[0].cause) == (3, "fd-limit")


def test_children_import_nothing(run_child: RunChild) -> None:
    """What another thread is importing at the fork stays locked in the child, which would wait for ever."""
    run_child("""
        import sys
        from rawuring import capability
        from rawuring.diagnosis import child

        prepare = child._leave_no_core

        def prepare_without_finders():
            prepare()
            sys.meta_path.clear()

        child._leave_no_core = prepare_without_finders
        report = capability.examine()
        rows = [*report.features, *report.setup_flags, *report.opcodes, *report.register_ops]
        assert None not in {row.present for row in rows}
    """)


# -- Traces.


@pytest.mark.parametrize("run", [False, True])
def test_nothing_is_left(run: bool, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def traces() -> tuple[Any, ...]:
        limits = [resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")]
        return sorted(os.listdir("/proc/self/fd")), threading.active_count(), os.listdir(tmp_path), limits

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = traces()
    capability.examine(run=run)
    assert traces() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
