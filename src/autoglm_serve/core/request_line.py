"""What is told of one request when it is over: who asked, what became of it, how long it took. No content."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLine:
    """One request. Times are seconds from its first byte."""

    id: str
    client: str
    """The key's id, or the address that asked."""
    model: str
    path: str
    outcome: str
    failed: bool
    """It had no answer, and its client did not leave."""
    reason: str = ""
    """Why it was not answered; empty where it was."""
    replica: str = ""
    """Who was asked last; empty where nobody was."""
    attempts: int = 0
    recoveries: int = 0
    """How often its stream went on with another replica."""
    seconds: float
    first_s: float | None = None
    """Until the first content was sent."""
    prompt_tokens: int = 0
    output_tokens: int = 0

    def __str__(self) -> str:
        parts = [self.id, self.client, self.path, self.model or "-", self.outcome]
        if self.reason:
            parts.append(f"({self.reason})")
        if self.replica:
            parts.append(f"on {self.replica}")
        if self.attempts > 1:
            parts.append(f"{self.attempts} attempts")
        if self.recoveries:
            parts.append(f"{self.recoveries} recoveries")
        parts.append(f"{self.seconds:.3f} s")
        if self.first_s is not None:
            parts.append(f"first {self.first_s:.3f} s")
        if self.prompt_tokens:
            parts.append(f"{self.prompt_tokens}+{self.output_tokens} tokens")
        return " ".join(parts)
