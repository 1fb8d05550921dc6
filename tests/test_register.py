"""`register` as a whole: a function for every verb, documented as the tables say, tested, loaded when needed.

What the verbs do is in test_register_tables, _buffer_rings, _rings, _waiting, _permissions, _zero_copy.
"""

from __future__ import annotations

import re
from importlib import import_module
from inspect import getdoc, isfunction
from pathlib import Path

import pytest
from conftest import RunChild
from registering import verbs

from rawuring import abi, register

TESTS = Path(__file__).resolve().parent
MODULES = sorted(path.stem for path in Path(register.__file__).parent.glob("[a-z]*.py"))
PUBLIC = [
    name
    for module in MODULES
    for name in getattr(import_module(f"rawuring.register.{module}"), "__all__", ())
    if isfunction(getattr(register, name))
]

# Verbs that need hardware to do what they are for, and how they are tested without it.
HARDWARE = {
    abi.Register.ZCRX_IFQ: "a network card with header split: its bytes, its refusals; from Linux 7.1 on, NODEV",
    abi.Register.ZCRX_CTRL: "a queue of ZCRX_IFQ: its bytes, its refusals; from Linux 7.1 on, of NODEV's",
}


def called_in_tests() -> set[str]:
    """The functions of `register` that the tests call."""
    sources = [path.read_text("utf-8") for path in TESTS.glob("test_register_*.py")]
    return {name for source in sources for name in re.findall(r"\bregister\.([a-z_0-9]+)\b", source)}


def label(text: str, name: str) -> str:
    """What follows a label of a docstring's table, up to the next."""
    found = re.search(rf"\b{name} {{2,}}(.*?)(?= {{2,}}[A-Z][a-z]+ {{2,}}|\n\s*[A-Z][a-z]+ {{2,}}|\Z)", text, re.DOTALL)
    return found[1] if found else ""


def test_every_verb_has_a_function_and_a_test() -> None:
    calling, tested = verbs(), called_in_tests()
    rows = [(verb, sorted(calling.get(verb, ())), sorted(calling.get(verb, set()) & tested)) for verb in abi.Register]
    for verb, functions, live in rows:
        names = ", ".join(f"register.{name}" for name in functions)
        needs = f"; needs {HARDWARE[verb]}" if verb in HARDWARE else ""
        print(f"{verb.kernel_name:38} {verb.since:>4}  {names}{needs}")
        assert functions, f"nothing in register calls {verb.kernel_name}"
        assert live, f"no test calls {functions}"
    assert set(PUBLIC) - tested == set()


@pytest.mark.parametrize("verb", abi.Register, ids=[verb.name for verb in abi.Register])
def test_documentation_agrees_with_the_table(verb: abi.Register) -> None:
    documented = [getdoc(getattr(register, name)) or "" for name in verbs()[verb]]
    assert any(re.search(rf"\b{re.escape(verb.since)}\b", label(text, "Since")) for text in documented)
    assert any(verb.man in label(text, "Man") for text in documented)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_function_is_documented(name: str) -> None:
    text = getdoc(getattr(register, name)) or ""
    assert re.match(r"Linux \d+\.\d+", label(text, "Since"))
    assert re.match(r"io_uring_\w+\([23]\)", label(text, "Man"))


def test_what_is_rarely_used_is_loaded_when_it_is_asked_for(run_child: RunChild) -> None:
    run_child("""
        import sys
        import rawuring
        from rawuring import register

        def loaded():
            return {name for name in sys.modules if name.startswith("rawuring.register.")}

        first = loaded()
        assert "rawuring.register.rings" in first
        assert not hasattr(register, "_no_such_thing") and loaded() == first
        assert "rawuring.register.waiting" not in first
        assert register.clock.__module__ == "rawuring.register.waiting"
        assert "clock" in vars(register)
        assert not hasattr(register, "no_such_thing")
    """)
