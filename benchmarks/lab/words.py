"""What the laboratory says, in two languages."""

from __future__ import annotations

from dataclasses import asdict, dataclass

__all__ = ["LANGUAGES", "Words"]

LANGUAGES = ("en", "zh")


@dataclass(frozen=True)
class Words:
    """One text in English and in Chinese."""

    en: str
    zh: str

    def to_dict(self) -> dict[str, str]:
        """By language."""
        return asdict(self)
