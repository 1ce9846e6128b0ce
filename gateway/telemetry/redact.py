"""Secrets taken out of text before it can be queued: what credentials look like, and patterns of the configuration."""

import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

REDACTED = "[redacted]"
_LONGEST_AGENT = 256
_PUBLIC_PARAMETERS = frozenset({"alt", "api-version", "beta", "stream"})

# What credentials of common issuers look like. A pattern has to be narrow enough to leave prose and code alone.
_CREDENTIALS = (
    r"\b(?:sk|rk|pk|gsk|xai|r8|hf|glpat|shpat|dop_v1|gw|pplx|nvapi|co|csk|fw|tgp_v1)[-_][A-Za-z0-9_-]{16,}",
    r"\bgh[pousr]_[A-Za-z0-9]{20,}",
    r"\bgithub_pat_[A-Za-z0-9_]{20,}",
    r"\bxox[abprs]-[A-Za-z0-9-]{10,}",
    r"\bAIza[A-Za-z0-9_-]{30,}",
    r"\bya29\.[A-Za-z0-9_-]{20,}",
    r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    r"(?i)\b(?:bearer|basic)\s+[A-Za-z0-9._~+/=-]{16,}",
    (
        r"""(?i)\b(?:api[-_ ]?key|access[-_ ]?token|auth[-_ ]?token|client[-_ ]?secret|secret[-_ ]?key|password|passwd)"""
        r"""["']?\s*[:=]\s*["']?[^\s"',;&]{6,}"""
    ),
    r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)",
)


class Redactor:
    """Replaces what must not be kept.

    Args:
        patterns: regular expressions of the configuration, beside the built-in ones for credentials.
    """

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self._pattern = re.compile("|".join(f"(?:{p})" for p in _inline(*_CREDENTIALS, *patterns)), re.DOTALL)
        self.user_agent = lru_cache(maxsize=1024)(self._user_agent)

    def text(self, text: str) -> str:
        """The text without what the patterns find."""
        return self._pattern.sub(REDACTED, text)

    def _user_agent(self, value: str) -> str:
        return self.text(value[:_LONGEST_AGENT])


def _inline(*patterns: str) -> Iterable[str]:
    """Global flags inside a pattern, scoped to it: joined patterns may not carry them."""
    for pattern in patterns:
        flags = re.match(r"\(\?([aiLmsux]+)\)", pattern)
        yield f"(?{flags[1]}:{pattern[flags.end() :]})" if flags else pattern


@lru_cache(maxsize=4096)
def public_url(url: str) -> str:
    """A URL that may be told: without a user, a password and a fragment, and with the values of its query hidden."""
    parts = urlsplit(url)
    query = "&".join(
        f"{quote(name)}={quote(value) if name.lower() in _PUBLIC_PARAMETERS else 'REDACTED'}"
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
    )
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, query, ""))
