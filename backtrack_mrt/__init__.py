"""Meta Reinforcement fine-Tuning (MRT) for backtracking search.

    import backtrack_mrt as bt

    config = bt.load_config("tiny.yaml", algo="grpo", training={"steps": 8})
    result = bt.train(config, existing="overwrite")
    print(result.trained.accuracy)

The public face is listed in `__init__.pyi`. A name is imported when it is first used, so words, protocols and
algorithms need no torch; everything else is reached by its module and may change.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
