"""Is an engine installed whose answers are known to be wrong or whose flags are not known here?"""

import re
from collections.abc import Iterator

from autoglm_serve.doctor.facts import Facts
from autoglm_serve.doctor.symptom import Symptom, error, warning
from autoglm_serve.engines.catalog import BY_OPTION

_GLM4V_TRANSFORMERS = (5, 0)
"""Its model card: transformers 5.0 or newer, over the pin of vLLM."""


def check(facts: Facts) -> Iterator[Symptom]:
    if (host := facts.host) is None:
        return
    for engine in BY_OPTION.values():
        version = host.packages.get(engine.package or "")
        if version and (wanted := engine.too_old(version)):
            yield error(
                f"{engine.title} {version} is not served.",
                evidence=f"{engine.package} {version}",
                why="Its flags, or its answers, are not those that were checked.",
                remedy=f"pip install '{wanted}'",
            )
        elif version and (holes := engine.holes(version)):
            yield warning(
                f"{engine.title} {version} has holes that a request can reach.",
                evidence=f"{engine.package} {version}",
                why="; ".join(holes) + ".",
                remedy=f"pip install --upgrade {engine.package}, or let nobody ask who is not trusted.",
            )
    transformers = host.packages.get("transformers", "")
    if "vllm" in host.packages and transformers and _numbers(transformers) < _GLM4V_TRANSFORMERS:
        yield warning(
            f"transformers {transformers} makes wrong taps of AutoGLM-Phone-9B likely.",
            evidence=f"transformers {transformers}; the model's card asks for 5.0",
            why="Its picture processor and template are of another version than the model was made with.",
            remedy="pip install 'transformers>=5.0'",
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
