"""irlbook: from a gridworld to aligning a language model through inverse RL."""

from importlib import import_module as _import_module

__version__ = "0.1.0"


def __getattr__(name: str):
    """Load what is named here only when it is used, so that `import irlbook` stays light."""
    if name == "doctor":
        return _import_module("irlbook.environment").doctor
    raise AttributeError(f"module 'irlbook' has no attribute {name!r}")
