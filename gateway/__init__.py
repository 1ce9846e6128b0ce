"""Gaugeway: a gateway in front of LLM providers, observability first."""

__version__ = "0.1.0"
