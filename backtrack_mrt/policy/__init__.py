"""Answers: the model's weights, and the engines that sample from them and score with them."""
