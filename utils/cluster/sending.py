"""The outpost's code on its way to the workers: by value, for they have no module to find it in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cloudpickle

from utils.cluster import outpost

cloudpickle.register_pickle_by_value(outpost)


class ByValue:
    """A function that is itself again where it is unpickled; dask would send its name alone."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._packed = cloudpickle.dumps(function)
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __reduce__(self) -> tuple[Callable[[bytes], Any], tuple[bytes]]:
        return cloudpickle.loads, (self._packed,)


call_outpost = ByValue(outpost.call_outpost)
