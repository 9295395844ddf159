"""Errors that a caller can act on.

    PromptsearchError
    ├── UserError            what was given is wrong: says what, which rule, the way out
    │   ├── DataError        rows, columns, labels, splits
    │   ├── BudgetError      a budget that cannot be read or is too small
    │   ├── ModelError       a model that cannot be found, read or used
    │   ├── ContextError     text that does not fit the model's context
    │   ├── ArtifactError    a saved prompt, pool or run that cannot be read or belongs elsewhere
    │   └── MissingExtraError  an optional package is not installed (also an ImportError)
    └── BackendError         a model or encoder failed while running

A failed *item* (unparsable answer, too long) is a score with a reason, never an exception.
"""

from __future__ import annotations

__all__ = [
    "ArtifactError",
    "BackendError",
    "BudgetError",
    "ContextError",
    "DataError",
    "MissingExtraError",
    "ModelError",
    "PromptsearchError",
    "UserError",
]


class PromptsearchError(Exception):
    """Base of all errors that this package raises on purpose."""


class UserError(PromptsearchError):
    """What the user gave breaks a rule; the message is one line: what, which rule, the way out."""


class DataError(UserError):
    """Rows, columns, labels or splits cannot be used."""


class BudgetError(UserError):
    """A budget cannot be read, or is too small to do anything."""


class ModelError(UserError):
    """A model cannot be found, read or used."""


class ContextError(UserError):
    """A text does not fit the model's context."""


class ArtifactError(UserError):
    """A saved prompt, pool or run cannot be read, or belongs to something else."""


class MissingExtraError(UserError, ImportError):
    """A package that an optional feature needs is not installed."""


class BackendError(PromptsearchError):
    """A model or an encoder failed while running."""
