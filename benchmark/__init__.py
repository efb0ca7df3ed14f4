"""Compare ways of contrastive image-text pretraining on downstream tasks.

A plug-in imports names from ``benchmark`` itself and from ``benchmark.losses``, ``benchmark.metrics`` and
``benchmark.probe``: these stay valid, whatever moves behind them.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from benchmark.api import Results as Results
    from benchmark.api import configure as configure
    from benchmark.api import evaluate as evaluate
    from benchmark.api import run as run
    from benchmark.common.errors import BenchError as BenchError
    from benchmark.common.ranges import CropScale as CropScale
    from benchmark.common.ranges import Interval as Interval
    from benchmark.common.ranges import Share as Share
    from benchmark.common.ranges import ShareBelowOne as ShareBelowOne
    from benchmark.common.seeding import generator as generator
    from benchmark.common.seeding import stream as stream
    from benchmark.common.seeding import torch_seed as torch_seed
    from benchmark.config.augmentation import Augmentation as Augmentation
    from benchmark.config.training import Training as Training
    from benchmark.data.batch import Batch as Batch
    from benchmark.data.card import Card as Card
    from benchmark.evaluation.encoder import Encoded as Encoded
    from benchmark.evaluation.encoder import TokenEncoder as TokenEncoder
    from benchmark.evaluation.encoder import Trainable as Trainable
    from benchmark.evaluation.encoder import cosines as cosines
    from benchmark.evaluation.encoder import exact as exact
    from benchmark.evaluation.evaluation import Evaluation as Evaluation
    from benchmark.evaluation.evaluation import not_finite as not_finite
    from benchmark.evaluation.measurement import Examples as Examples
    from benchmark.evaluation.measurement import Gallery as Gallery
    from benchmark.evaluation.measurement import Mean as Mean
    from benchmark.evaluation.measurement import MeanOverDraws as MeanOverDraws
    from benchmark.evaluation.measurement import Measurement as Measurement
    from benchmark.evaluation.measurement import Metric as Metric
    from benchmark.method import Embeddings as Embeddings
    from benchmark.method import Keys as Keys
    from benchmark.method import Method as Method
    from benchmark.method import Output as Output
    from benchmark.method import register_method as register_method
    from benchmark.models.decoding import beam_search as beam_search
    from benchmark.models.dual_encoder import DualEncoder as DualEncoder
    from benchmark.models.tokenizer import Tokenizer as Tokenizer
    from benchmark.models.tower import Group as Group
    from benchmark.models.tower import ImageTower as ImageTower
    from benchmark.models.tower import LanguageModelTower as LanguageModelTower
    from benchmark.models.tower import TowerOutput as TowerOutput
    from benchmark.models.tower import last_token as last_token
    from benchmark.task import Task as Task
    from benchmark.task import register_task as register_task

_SURFACE = {
    "benchmark.api": ["Results", "configure", "evaluate", "run"],
    "benchmark.common.errors": ["BenchError"],
    "benchmark.common.ranges": ["CropScale", "Interval", "Share", "ShareBelowOne"],
    "benchmark.common.seeding": ["generator", "stream", "torch_seed"],
    "benchmark.config.augmentation": ["Augmentation"],
    "benchmark.config.training": ["Training"],
    "benchmark.data.batch": ["Batch"],
    "benchmark.data.card": ["Card"],
    "benchmark.evaluation.encoder": ["Encoded", "TokenEncoder", "Trainable", "cosines", "exact"],
    "benchmark.evaluation.evaluation": ["Evaluation", "not_finite"],
    "benchmark.evaluation.measurement": ["Examples", "Gallery", "Mean", "MeanOverDraws", "Measurement", "Metric"],
    "benchmark.method": ["Embeddings", "Keys", "Method", "Output", "register_method"],
    "benchmark.models.decoding": ["beam_search"],
    "benchmark.models.dual_encoder": ["DualEncoder"],
    "benchmark.models.tokenizer": ["Tokenizer"],
    "benchmark.models.tower": ["Group", "ImageTower", "LanguageModelTower", "TowerOutput", "last_token"],
    "benchmark.task": ["Task", "register_task"],
}
_MODULE_OF = {name: module for module, names in _SURFACE.items() for name in names}
__all__ = sorted(_MODULE_OF)

# A wheel has methods/ and tasks/ inside this package; in a checkout benchmark.methods lies beside it.
_BESIDE = Path(__file__).parents[1]
if not (Path(__file__).parent / "methods").is_dir() and (_BESIDE / "methods").is_dir():
    __path__.append(str(_BESIDE))


def __getattr__(name: str) -> Any:
    """Import a name of the surface when it is first used: torch takes seconds, and `bench --help` must not wait."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'benchmark' has no attribute '{name}'")
    return getattr(import_module(_MODULE_OF[name]), name)
