"""Does an address serve its model rightly? Whom is asked (`address`, `subject`), what with (`golden`), what
is held against what (`text`, `screens`, `crowd`, `speech`), in what order (`run`), how it is told (`report`).

Knows nothing of our own service: any OpenAI-compatible address can be asked.
"""
