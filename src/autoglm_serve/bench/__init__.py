"""Load against any OpenAI-compatible address: what is asked (`workloads`), how it is sent (`client`, `load`),
what follows from it (`figures`, `paired`) and how it is shown (`page`).
"""
