"""What is typed: commands, flags, the terminal session."""
