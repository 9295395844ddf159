"""The command line: thin commands over the library, which print what it returns.

Invariant: standard output holds the result and nothing else, with ``--json`` exactly one JSON object without
NaN; an error is one line on standard error, and the exit code says whose it is: 2 what was given, 1 all else.
Leaves out: all work. Commands import what they need when they run, so that ``--help`` is instant.
"""

from promptsearch.cli.program import app, main

__all__ = ["app", "main"]
