"""`backtrack-mrt serve` where there is no vLLM: a server that answers like it, of the model that the settings name.

python -m support.stand_in_server serve --port PORT SETTINGS
"""

from __future__ import annotations

import sys
from threading import Event

import torch
from support.fake_vllm_server import FakeServer

from backtrack_mrt.cli.command import parser_of
from backtrack_mrt.cli.request import read_request
from backtrack_mrt.policy.models import load_merged

if __name__ == "__main__":
    torch.set_num_threads(1)
    args = parser_of(sys.argv[1]).parse(sys.argv[2:])
    section = read_request(args.settings, training=False).config.model
    fake = FakeServer(load_merged(section).eval(), takes_weights=section.full_finetuning)
    with fake.running(args.port):
        Event().wait()
