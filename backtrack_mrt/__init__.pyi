# The public face: what `import backtrack_mrt as bt` offers, to type checkers and (through `__init__.py`) at run time.

from . import credit
from .algos.base import Algorithm, SelfTraining, outcome_advantages, progress_to_go, turn_progress
from .cli.api import compare, evaluate, load_config, train
from .config import Config
from .env import make
from .errors import RunError, UserError
from .evaluation.conformance import Stack
from .graders.base import Grader
from .grading import Grade, Verdict, extract_boxed
from .policy.scripted import ScriptedEngine
from .protocol import EpisodeProtocol, ProtocolViolation, standing_steps
from .rollouts.assembly import assemble
from .rollouts.prover import MetaProver
from .runs.finished import read_run
from .runs.records import read_trajectories
from .training.mrt_trainer import MRTTrainer
from .types import Completion, Group, Parsed, Phase, Problem, Sampling, Scored, StopReason, Trajectory, Turn, TurnSpec

__version__: str
__all__ = [  # noqa: RUF022 (in the order of docs/api.md)
    # the words
    "Problem",
    "Turn",
    "TurnSpec",
    "Parsed",
    "Completion",
    "Trajectory",
    "Scored",
    "Group",
    "Sampling",
    "StopReason",
    "Phase",
    # a protocol
    "EpisodeProtocol",
    "ProtocolViolation",
    "standing_steps",
    "extract_boxed",
    # an algorithm
    "Algorithm",
    "SelfTraining",
    "outcome_advantages",
    "turn_progress",
    "progress_to_go",
    # other people's trainers
    "credit",
    "MRTTrainer",
    "Stack",
    # a grader
    "Grader",
    "Grade",
    "MetaProver",
    # running
    "Config",
    "load_config",
    "train",
    "evaluate",
    "compare",
    "read_run",
    "read_trajectories",
    # parts
    "assemble",
    "make",
    "Verdict",
    "ScriptedEngine",
    # what can go wrong
    "UserError",
    "RunError",
]
