"""The embedded model: a tiny Llama and its tokenizer, built by ``scripts/tiny/build.py``."""
