"""vLLM in this process, beside the trainer. Importing this module does not import vLLM.

vLLM holds a copy of the base weights, taken from the very module that is trained, so any model works that vLLM has the
architecture of: embedded, merged, from the hub. After an update it gets the LoRA adapter under a name of its own (an
old name would be answered from the old prefix cache), or all weights: where there is no adapter, or it is merged in.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn

from backtrack_mrt.policy import dimensions
from backtrack_mrt.policy.engine import Answered, check_requests
from backtrack_mrt.policy.hf.lora import WeightsFolder, decoder_of, merged_weight
from backtrack_mrt.policy.vllm.jobs import Drawn, Job, JobEngine
from backtrack_mrt.types import Request, Sampling

_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine's core in this process: weights come as tensors
    "VLLM_USE_V2_MODEL_RUNNER": "0",  # that one takes logits processors of another kind
    "VLLM_LOGGING_LEVEL": "ERROR",
}
_CPU_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # or the trainer's threads are pinned to vLLM's cores
}
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM has room for


class VLLMEngine(JobEngine):
    """`model` is a causal language model or a PeftModel around one, shared with the trainer and never modified.

    context_length: longest prompt and completion (None: the model's). gpu_memory: share of the GPU's memory that vLLM
    may take, weights included. sleep: whether `release` gives that back, until it is asked again. merged: whether vLLM
    gets the adapter merged into the weights, the reference's then whenever that is to answer. kv_blocks: of its cache
    (None: as many as there is memory for).
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        max_rows: int,
        context_length: int | None = None,
        gpu_memory: float = 0.4,
        sleep: bool = False,
        merged: bool = False,
        prefix_caching: bool = True,
        kv_blocks: int | None = None,
    ) -> None:
        self._adapters = WeightsFolder(model) if isinstance(model, PeftModel) and not merged else None
        self._model = decoder_of(model)
        config: Any = self._model.config
        super().__init__(context_length or dimensions.context_length(config), max_rows)
        self._lora: Any = None
        self._versions = 0  # of the adapter
        self._merged, self._has_reference = merged, False
        self._numbers = count()  # of what vLLM is asked
        self._sleeps, self._awake = sleep, True
        settings: dict[str, Any] = {"gpu_memory_utilization": gpu_memory}
        if not torch.cuda.is_available():
            settings = {"enforce_eager": True, "block_size": 32}
        if self._adapters:
            settings |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": room_for(self._adapters.rank)}
        vllm = _vllm()
        with TemporaryDirectory() as folder:
            config.save_pretrained(folder)
            self._llm = vllm.LLM(
                model=folder,
                dtype=str(self._model.dtype).removeprefix("torch."),
                load_format="dummy",
                skip_tokenizer_init=True,
                max_model_len=self.context_length,
                max_num_seqs=max_rows,
                enable_prefix_caching=prefix_caching,
                num_gpu_blocks_override=kv_blocks,
                enable_sleep_mode=sleep,
                logits_processors=["backtrack_mrt.policy.vllm.draws:Draws"],
                logprobs_mode="processed_logits",
                disable_log_stats=True,
                **settings,
            )
        self._load_weights()
        if self._adapters:
            self._hand_over()

    @property
    def cache_tokens(self) -> int | None:
        """See `Engine.cache_tokens`."""
        return int(self._llm.llm_engine.vllm_config.cache_config.kv_cache_size_tokens)

    def release(self) -> None:
        """See `Engine.release`."""
        super().release()
        if self._sleeps and self._awake:
            self._llm.sleep(level=1)  # the cache is dropped, the weights wait in the machine's memory
            self._awake = False

    def close(self) -> None:
        """See `Engine.close`."""
        from vllm.distributed import cleanup_dist_env_and_memory

        self._llm.llm_engine.engine_core.shutdown()
        del self._llm
        cleanup_dist_env_and_memory()

    def converse(self, requests: Mapping[int, Request], sampling: Sampling, answered: Answered) -> None:
        """See `Continuous.converse`."""
        check_requests(list(requests.values()), self.context_length)
        jobs = {row: self._job(request, sampling) for row, request in requests.items()}

        def following(row: int, drawn: Drawn) -> Job | None:
            request = answered(row, self._completion(jobs[row], drawn))
            if request is None:
                return None
            check_requests([request], self.context_length)
            jobs[row] = self._job(request, sampling)
            return jobs[row]

        self._work(dict(jobs), following)

    def _run(self, jobs: Sequence[Job]) -> list[Drawn]:
        answers = dict[int, Drawn]()
        self._work(dict(enumerate(jobs)), answers.__setitem__)
        return [answers[row] for row in range(len(jobs))]

    def _work(self, jobs: Mapping[int, Job], following: Callable[[int, Drawn], Job | None]) -> None:
        """Do the rows' jobs, and those that follow from their answers, each as soon as it is known."""
        if not jobs:
            return  # what sleeps, sleeps on
        from backtrack_mrt.policy.vllm.draws import answer_of, params_of

        self._wake()
        if self._merged and self._has_reference is not self._in_reference:
            self._forget()
            self._load_weights()
        vllm, lora, under_way = self._llm.llm_engine, None if self._in_reference else self._lora, dict[str, int]()

        def ask(row: int, job: Job) -> None:
            name = str(next(self._numbers))
            vllm.add_request(name, {"prompt_token_ids": list(job.prompt_ids)}, params_of(job), lora_request=lora)
            under_way[name] = row

        try:
            for row, job in jobs.items():
                ask(row, job)
            while under_way:
                for output in vllm.step():
                    row = under_way.pop(output.request_id)
                    if (after := following(row, answer_of(output))) is not None:
                        ask(row, after)
        finally:
            vllm.abort_request(list(under_way))  # none, unless it was interrupted

    def _hand_over(self) -> None:
        if self._adapters is None:
            self._load_weights()
            return
        from vllm.lora.request import LoRARequest

        if self._lora is not None:
            self._adapters.delete(self._lora.lora_name)
        self._versions += 1
        name = f"backtrack-mrt-{self._versions}"
        self._lora = LoRARequest(name, self._versions, str(self._adapters.write(name)))

    def _forget(self) -> None:
        self._llm.reset_prefix_cache()

    def _wake(self) -> None:
        if not self._awake:
            torch.cuda.empty_cache()  # what the update took, and would keep for the next one
            self._llm.wake_up()
            self._awake = True

    def _load_weights(self) -> None:
        self._wake()
        weights = _checkpoint(self._model, self._merged and not self._in_reference)
        self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
        self._has_reference = self._in_reference


def _checkpoint(model: nn.Module, merged: bool) -> Iterator[tuple[str, Tensor]]:
    """The model's weights under their names in a checkpoint, with the adapter merged in or without it."""
    layers = {f"{name}.base_layer.weight": each for name, each in model.named_modules() if isinstance(each, LoraLinear)}
    for name, tensor in model.state_dict().items():
        if ".lora_" not in name:
            plain = name.replace(".base_layer.", ".")
            yield plain, merged_weight(layers[name]) if merged and name in layers else tensor


def room_for(rank: int) -> int:
    """The least rank that vLLM has room for, and that is enough for adapters of `rank`."""
    return next(room for room in _RANKS if room >= rank)


def on_this_device() -> dict[str, str]:
    """What vLLM reads from the environment where there is no GPU."""
    return {} if torch.cuda.is_available() else _CPU_ENVIRONMENT


def _vllm() -> Any:
    """vLLM. It reads the environment when it is imported; what the user has set there counts."""
    for name, value in (_ENVIRONMENT | on_this_device()).items():
        os.environ.setdefault(name, value)
    import vllm

    return vllm
