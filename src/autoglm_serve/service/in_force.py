"""The settings in force and the deployment that they came to: held here, replaced whole, read by all."""

from dataclasses import dataclass

from autoglm_serve.config.options import Options
from autoglm_serve.core.plan import Deployment


@dataclass(slots=True)
class InForce:
    """What holds now. Only a change of the running service replaces it."""

    options: Options
    deployment: Deployment
