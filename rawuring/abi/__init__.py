"""The kernel ABI of io_uring: every constant and every struct, as data.

May import the standard library and `hints`. Never touches memory or the kernel.

`from rawuring import abi`, then `abi.Op.RECV`, `abi.Setup.SQPOLL`, `abi.IO_URING_SQE`.
"""

from __future__ import annotations

from rawuring.abi import constants, structs
from rawuring.abi.constants import *
from rawuring.abi.structs import *
from rawuring.hints import TYPE_CHECKING

_ARGUMENTS = (
    "ZCRX_AREA_SHIFT", "BpfCommand", "BpfFilter", "CloneBuffers", "IoWq", "MemRegion",
    "MemRegionType", "NapiOp", "NapiTracking", "Probe", "Query", "Restriction", "Rsrc", "ZcrxArea",
    "ZcrxCtrl", "ZcrxEvent", "ZcrxEventDesc", "ZcrxFeature", "ZcrxReg",
)

__all__ = [*constants.__all__, *structs.__all__, *_ARGUMENTS]

if TYPE_CHECKING:
    from rawuring.abi.arguments import *
else:

    def __getattr__(name: str) -> object:
        # Enum classes are slow to make: these wait until somebody asks for one.
        if name not in _ARGUMENTS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from rawuring.abi import arguments

        value = globals()[name] = getattr(arguments, name)
        return value
