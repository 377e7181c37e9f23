"""A Holdfast in this process, for tests of programs that use it."""

from ._fake import FakeHoldfast
from ._state import Card

__all__ = ["Card", "FakeHoldfast"]
