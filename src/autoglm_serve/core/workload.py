"""The load a plan is made for. The default is a phone agent's: one fresh screenshot a step, a short answer.

Source of the default figures: Open-AutoGLM's loop (one 1080x2400 screenshot in every request, older images
removed, system prompt and text history in front of it) and its measured answers of 50 to 300 tokens.
"""

from dataclasses import dataclass

from autoglm_serve.core.model import VisionGeometry


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A closed loop of sessions, each doing one step after the other."""

    sessions: int = 32
    image_width_px: int = 1080
    image_height_px: int = 2400
    images: int = 1
    """Fresh images in each request."""
    shared_tokens: int = 1_900
    """Text of the prompt that an earlier step left in the prefix cache."""
    fresh_tokens: int = 300
    """Text of the prompt that is new in each step: the last request and its answer, and the new request."""
    think_s: float = 0.0
    """Between an answer and the session's next request."""
    output_tokens: int = 128
    """On average: answers vary evenly between half and one and a half times as many."""

    def image_tokens(self, vision: VisionGeometry | None) -> int:
        """Of one of its images; none where the model does not see."""
        return vision.tokens(self.image_width_px, self.image_height_px) if vision else 0

    def prompt_tokens(self, image_tokens: int) -> int:
        return self.shared_tokens + self.fresh_tokens + self.images * image_tokens

    def step_tokens(self, image_tokens: int) -> int:
        return self.prompt_tokens(image_tokens) + self.output_tokens
