"""Ollama's API on a thin layer: its requests are asked as OpenAI's, and the answers told as its own."""
