"""What a room of the library offers at its door, loaded when it is first used (PEP 562)."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def front(
    package: str, offers: Mapping[str, Sequence[str]]
) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """The `__all__`, `__getattr__` and `__dir__` of a package, which imports none of its modules.

    Args:
        package: `__name__` of the package.
        offers: its modules, each with the names that are to be had from the package itself. A
            name that two modules define, or that is also a module's, is had from its module only.
    """
    home = {name: module for module, names in offers.items() for name in names}
    names = sorted({*offers, *home})

    def load(name: str) -> Any:
        if name in home:
            return getattr(import_module(f"{package}.{home[name]}"), name)
        if name in offers:
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return names, load, lambda: names
