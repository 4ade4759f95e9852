"""Does an address serve its model rightly? Whom is asked (`server`, `served_model`), with what (`golden`),
what is held against what (`text`, `screens`, `crowd`, `speech`),
in what order (`run`) and how it is told (`report`).

And do two addresses agree (`comparison`, `agreement`, `marked`) on what was recorded (`recording`)?

Knows nothing of our own service: any OpenAI-compatible address can be asked.
"""
