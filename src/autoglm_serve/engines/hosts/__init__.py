"""Engine processes of our own: llama.cpp behind HTTP, for chat and for speech."""
