"""What is installed here beside autoglm-serve, as a CycloneDX 1.5 bill of materials.

    .venv/bin/python scripts/sbom.py > sbom.json

Names, versions and licences come from what pip has installed; nothing is looked up.
"""

import json
import sys
from importlib.metadata import Distribution, distributions
from typing import Any


def component(installed: Distribution) -> dict[str, Any]:
    """One package."""
    name, version = installed.metadata["Name"], installed.version
    licence = installed.metadata.get("License-Expression") or installed.metadata.get("License") or ""
    known = {"licenses": [{"license": {"name": licence.splitlines()[0][:100]}}]} if licence.strip() else {}
    return {
        "type": "library",
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{name.lower().replace('_', '-')}@{version}",
        **known,
    }


def bill() -> dict[str, Any]:
    """All of them, by name."""
    found = {each.metadata["Name"].lower(): each for each in distributions()}
    own = found.pop("autoglm-serve", None)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": component(own)} if own is not None else {},
        "components": [component(found[name]) for name in sorted(found)],
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(bill(), indent=2) + "\n")
