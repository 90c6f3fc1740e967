"""The embedded policy of COUNTDOWN: a tiny Llama and its tokenizer, built by ``scripts/tiny/countdown.py``."""
