"""``python -m promptsearch`` is the command ``promptsearch``."""

from __future__ import annotations

import sys

from promptsearch.cli import main

if __name__ == "__main__":
    sys.exit(main())
