"""Names of `typing` that annotations and generic classes are written with.

May import the standard library only. Any module may import it in place of `typing`, and those
that `import rawuring` loads do: to type checkers it is `typing`, and an interpreter is spared a
fifth of the import. Annotations are never evaluated (PEP 563), so most of the names need not mean
anything there. What makes a named tuple imports `typing`, and is loaded when it is needed.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers take it for True, whoever assigns it

if TYPE_CHECKING:
    from typing import Any as Any
    from typing import ClassVar as ClassVar
    from typing import Final as Final
    from typing import Generic as Generic
    from typing import NoReturn as NoReturn
    from typing import Protocol as Protocol
    from typing import TypeVar as TypeVar
else:
    from types import GenericAlias

    Any = ClassVar = Final = NoReturn = Protocol = object

    class Generic:
        """A base whose subclasses can be subscripted, as those of typing.Generic can."""

        __slots__ = ()
        __class_getitem__ = classmethod(GenericAlias)

    def TypeVar(name, **keywords):
        return name
