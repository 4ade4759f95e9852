"""The bundled model does what its card says, in the whole service and on screens that nobody trained on."""

import pytest

from autoglm_serve.demo import demo_model
from autoglm_serve.demo.evaluate import Address, evaluate
from tests.process.service_process import running_service

pytestmark = pytest.mark.process

SEED, COUNT = 101, 10


def test_it_taps_acts_answers_and_knows_itself() -> None:
    with running_service("--replicas", "1") as service:
        scores = evaluate(
            Address(url=service.url),
            model=demo_model().name,
            speech_model=None,
            seed=SEED,
            count=COUNT,
            tasks=("tap", "action", "question", "identity"),
        )
    right = {task: score.right for task, score in scores.items()}
    # Another processor rounds differently: a screen may be lost to that, a model that cannot see loses most.
    assert all(count >= COUNT - 1 for count in right.values()), right
