"""Handle Ctrl-C and missing packages during imports, and limit numpy's threads.

Every script imports this first. Until `cli.run_script` takes over, Ctrl-C ends with `stopped` and
130, and a failed import with one line and 2 instead of a traceback. Programs that import
`load_frames` keep their own handlers.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType, TracebackType


def _stop(number: int, frame: FrameType | None) -> None:
    os.write(2, b"stopped\n")
    os._exit(128 + number)


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, (ImportError, MemoryError)):
        sys.__excepthook__(kind, error, trace)
        return
    os.write(2, f"error: {import_problem(error)}\n".encode())
    os._exit(2)


def import_problem(error: BaseException) -> str:
    """One line about a package that could not be imported, or about missing memory."""
    if isinstance(error, MemoryError):
        return "out of memory: give this process more, or use fewer jobs (--num_jobs)"
    return f"a package is missing or broken ({error}): pip install -U -r requirements.txt"


def hand_over() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again, as usual."""
    if signal.getsignal(signal.SIGINT) is _stop:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_own_script() -> bool:
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    top = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return main is not None and os.path.dirname(os.path.abspath(main)) == top


def _open_closed_streams() -> None:
    """Give a process that was started without them (`2>&-`) its three standard streams.

    Otherwise the first file that is opened becomes number 2, and errors are written into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one
            os.set_inheritable(number, True)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")


if _is_own_script():
    _open_closed_streams()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)
    sys.excepthook = _tell
    # numpy, which joblib and pandas bring in, would start a thread a core for linear algebra, which
    # nothing here does, and each spins at first: 0.08 s of CPU on 2 cores.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
