"""Gemini's probabilities of tokens as OpenAI words them.

Source: https://ai.google.dev/api/generate-content#LogprobsResult
"""

from msgspec import Struct

from gateway.providers.canonical_reply import Logprobs, TokenLogprob, TopToken


class Token(Struct, rename="camel"):
    """One token that was, or might have been, chosen."""

    token: str = ""
    log_probability: float = 0.0


class _Rivals(Struct):
    candidates: list[Token] = []


class LogprobsResult(Struct, rename="camel"):
    """`logprobsResult` of a candidate: both lists have an item for each step."""

    chosen_candidates: list[Token] = []
    top_candidates: list[_Rivals] = []


def logprobs_of(result: LogprobsResult | None) -> Logprobs | None:
    """The chosen tokens, each with its rivals where the caller asked for them; None where there are none."""
    if result is None or not result.chosen_candidates:
        return None
    content = []
    for step, chosen in enumerate(result.chosen_candidates):
        rivals = result.top_candidates[step].candidates if step < len(result.top_candidates) else []
        content.append(
            TokenLogprob(
                token=chosen.token,
                logprob=chosen.log_probability,
                bytes=list(chosen.token.encode()),
                top_logprobs=[
                    TopToken(token=rival.token, logprob=rival.log_probability, bytes=list(rival.token.encode()))
                    for rival in rivals
                ],
            )
        )
    return Logprobs(content=content)
