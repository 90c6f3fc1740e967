"""Nothing but the path by which the commands of running vLLM servers name `Draws`."""
