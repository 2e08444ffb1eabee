"""Run studies and searches on Ray: from a YAML document to finished cells in the run store."""

from typing import TYPE_CHECKING, Any

import ablations.execution  # noqa: F401 - sets Ray's environment variables

if TYPE_CHECKING:
    from ablations.ablate import CellResult, StudyResult, run_study

__all__ = ["CellResult", "StudyResult", "run_study"]


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used, so that `import ablations` stays fast."""
    if name in __all__:
        from ablations import ablate

        return getattr(ablate, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
