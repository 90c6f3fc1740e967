"""`backtrack_mrt.policy.vllm.draws` under the path that commands of running vLLM servers name."""

from backtrack_mrt.policy.vllm.draws import Draws

__all__ = ["Draws"]
