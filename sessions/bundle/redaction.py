"""Takes secrets out of texts: values of secret variables, and what looks like a token, a password or a key."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

MARK = "*"
_MIN_SECRET = 6
_SECRET_NAME = re.compile(
    r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|AUTH", re.IGNORECASE
)
_PLAIN_VALUES = {"true", "false", "none", "null", "auto", "disabled", "enabled"}

_OPTION = r"(?:api[-_]?key|auth[-_]?token|access[-_]?token|hf[-_]?token|token|secret|password|passwd|credential)"
_PATTERNS = tuple(
    re.compile(pattern, re.IGNORECASE if is_loose else 0)
    for pattern, is_loose in (
        (r"\b(?:hf|api_org)_[A-Za-z0-9]{16,}", False),
        (r"\bgh[pousr]_[A-Za-z0-9]{16,}|\bgithub_pat_[A-Za-z0-9_]{16,}|\bglpat-[A-Za-z0-9_-]{16,}", False),
        (r"\bsk-[A-Za-z0-9_-]{16,}", False),
        (r"\bxox[abpr]-[A-Za-z0-9-]{10,}", False),
        (r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b", False),
        (r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}", False),
        (r"(?<=bearer )[A-Za-z0-9._~+/-]{8,}=*", True),
        (r"(?<=://)[^/\s:@\"']+:[^/\s@\"']+(?=@)", False),
        (rf"(?:(?<=[\s\"'-])|^)-{{0,2}}{_OPTION}[\"']?\s*[=:]\s*[\"']?((?!\d+\b)[^\s\"',;&]{{6,}})", True),
    )
)
_LONE_OPTION = re.compile(rf"-{{1,2}}{_OPTION}", re.IGNORECASE)


class Redactor:
    """Replaces secrets by stars of the same length, so that places in a text stay where they are; `count` of them."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        values = {
            value
            for name, value in environment.items()
            if _SECRET_NAME.search(name) and len(value) >= _MIN_SECRET and value.lower() not in _PLAIN_VALUES
        }
        self._values = sorted(values, key=len, reverse=True)
        self.count = 0

    def text(self, text: str) -> str:
        """The text without secrets."""
        for value in self._values:
            if value in text:
                self.count += text.count(value)
                text = text.replace(value, MARK * len(value))
        for pattern in _PATTERNS:
            text = pattern.sub(self._hide, text)
        return text

    def words(self, words: Sequence[str]) -> tuple[str, ...]:
        """A command line without secrets; `--token VALUE` is two words."""
        out: list[str] = []
        for word in words:
            if out and _LONE_OPTION.fullmatch(out[-1]) and not word.startswith("-"):
                self.count += 1
                out.append(MARK * len(word))
            else:
                out.append(self.text(word))
        return tuple(out)

    def data(self, data: bytes) -> bytes:
        """Bytes of a log, of the same number: what is no UTF-8 stays as it is."""
        return self.text(data.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")

    def _hide(self, found: re.Match[str]) -> str:
        group = 1 if found.re.groups else 0
        secret = found[group]
        if not secret.strip(MARK):
            return found[0]
        self.count += 1
        begin = found.start(group) - found.start()
        return found[0][:begin] + MARK * len(secret) + found[0][begin + len(secret) :]
