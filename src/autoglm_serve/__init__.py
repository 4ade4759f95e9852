"""autoglm-serve: a vision-language model in production with one command."""

__version__ = "0.1.0"
