"""What a bundle holds: a zip file with the files of a session under their own names, and a table of contents."""

from __future__ import annotations

import re

BUNDLE_SCHEMA = 1
SUFFIX = ".loadscope.zip"
CONTENTS = "bundle.json"
STACKS = "stacks.txt"
DEFAULT_MAX_BYTES = 64 << 20
MAX_UNPACKED_BYTES = 4 << 30

_MEMBER = re.compile(
    r"(bundle\.json|session\.json|host\.log|host\.log\.times|stacks\.txt"
    r"|streams/[0-9]{1,10}-[0-9]{1,6}\.sqlite|tensors/[A-Za-z0-9][A-Za-z0-9._-]{0,200}\.safetensors)"
)


def is_member(name: str) -> bool:
    """Whether a bundle may hold a file of this name; nothing else is ever written to disk."""
    return _MEMBER.fullmatch(name) is not None
