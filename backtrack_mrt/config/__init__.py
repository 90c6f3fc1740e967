"""Everything a run depends on: what may be said, and where it was said."""

from backtrack_mrt.config.model import ArchitectureSection, EngineSection, LoraSection, ModelSection, ProverSection
from backtrack_mrt.config.problems import DataSection, SetSection
from backtrack_mrt.config.run import Config, Existing, Ledger, RunRequest
from backtrack_mrt.config.section import Section
from backtrack_mrt.config.training import EvaluationSection, TrainingSection

__all__ = [
    "ArchitectureSection",
    "Config",
    "DataSection",
    "EngineSection",
    "EvaluationSection",
    "Existing",
    "Ledger",
    "LoraSection",
    "ModelSection",
    "ProverSection",
    "RunRequest",
    "Section",
    "SetSection",
    "TrainingSection",
]
