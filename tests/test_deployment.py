"""What a deployment says of options that it has no use for."""

from autoglm_serve.deployment import without_effect
from autoglm_serve.options import Options


def test_what_only_gpus_know_is_named() -> None:
    assert without_effect(Options()) == []
    said = without_effect(Options(tp=2, gpus=("0",)))
    assert [line.split()[0] for line in said] == ["--tp", "--gpus"]
