"""Which modes of a program can run here, by what the program itself says that they need.

May import `hints` and its siblings `errors` and `requirements`; of a program its module `needs`, by the name that is
given, and no program of its own accord.
"""

from __future__ import annotations

import importlib

from ..hints import TYPE_CHECKING
from .errors import UsageError
from .requirements import resolve_all, why

if TYPE_CHECKING:
    from .document import Document
    from .page import Page
    from .requirements import Requirement

ANSWERS = {True: ("can", "green"), False: ("cannot", "red"), None: ("not found out", "yellow")}


class Program:
    """What a package `needs`: MODES, the names that each mode requires; AUTO, the modes to choose from, best first."""

    def __init__(self, name: str) -> None:
        self.name = name
        if not all(part.isidentifier() for part in name.split(".")):
            raise UsageError(f"--for {name}: not the name of a Python package")
        try:
            module = importlib.import_module(f"{name}.needs")
            self.modes = {str(mode): tuple(map(str, names)) for mode, names in module.MODES.items()}
            self.auto = tuple(mode for mode in module.AUTO if mode in self.modes)
        except ModuleNotFoundError as error:
            if error.name not in (name, f"{name}.needs", name.partition(".")[0]):
                raise UsageError(f"--for {name}: {error}") from None
            raise UsageError(
                f"--for {name}: there is no module {name}.needs that says what it needs; run this from its checkout"
            ) from None
        except (Exception, SystemExit) as error:  # whatever somebody's module does
            raise UsageError(f"--for {name}: {name}.needs: {type(error).__name__}: {error}") from None

    def resolve(self, document: Document) -> dict[str, Requirement]:
        """What each name means that a mode requires."""
        try:
            return resolve_all(document, [name for names in self.modes.values() for name in names])
        except UsageError as error:
            raise UsageError(f"--for {self.name}: {self.name}.needs: {error}") from None

    def can(self, mode: str, required: dict[str, Requirement]) -> bool | None:
        """Can a mode run here? None: not found out."""
        answers = {required[name][1]["present"] if name in required else None for name in self.modes[mode]}
        return False if False in answers else None if None in answers else True

    def can_choose(self, required: dict[str, Requirement]) -> bool | None:
        """Has the automatic choice a mode that can run here?"""
        answers = {self.can(mode, required) for mode in self.auto}
        return True if True in answers else None if None in answers else False

    def print(self, document: Document, required: dict[str, Requirement], page: Page) -> None:
        """Each mode, and what is not there of what it requires."""
        if document["verdict"]["status"] != "usable":
            page.heading(self.name, "no mode can run here as long as io_uring cannot be used")
            return
        choice = next((mode for mode in self.auto if self.can(mode, required)), None)
        page.heading(self.name, f"mode {choice} would be chosen" if choice else "no mode to choose can run here")
        column = max(map(len, self.modes), default=0) + 2
        for mode, names in self.modes.items():
            lacks = [f"{name} ({why(required[name][1])})" for name in names if not required[name][1]["present"]]
            word, style = ANSWERS[self.can(mode, required)]
            page.entry(mode, f"{word}: {', '.join(lacks)}" if lacks else word, column=column, style=style)
