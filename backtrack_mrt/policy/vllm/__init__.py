"""The engines on vLLM: in this process, or a server."""
