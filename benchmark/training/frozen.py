"""The outputs of the frozen first layers of towers, computed once per pair and kept, in the cache for later trainings.

The outputs of the last frozen part of a tower are kept in a file, by the number of the pair. In the cache its name is a
hash of all that they depend on: the weights, the images and tokens as the tower reads them, and how it computes.

In a step this part returns them, and the parts before it return zeros of the right shape, which nobody reads: whatever
a tower does between its parts stays the library's own code. Whether that gives the tower's own outputs is checked
before it is used.
"""

import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from benchmark.common.seeding import torch_seed
from benchmark.config.augmentation import Augmentation
from benchmark.data.batch import Batch
from benchmark.method import Method
from benchmark.models.tower import ImageTower, TextTower, TowerOutput
from benchmark.store import formats
from benchmark.store.cache import build_folder
from benchmark.store.cleaning import remove
from benchmark.store.files import intact
from benchmark.store.hashing import digest
from benchmark.training.accumulation import Precision

Side = Literal["image", "text"]
KEPT, OUTPUTS = "frozen", "outputs.bin"
"""The folder of the cache, and the file in each of its folders."""
LARGEST_SHARE = 0.5
"""Of the free disk, the most that kept outputs may take. Of the disk that is free without those of other trainings."""
TOLERANCE = 1e-2
"""Relative, of the check: rounding of half precision is below it, and another computation is not."""


class Pairs(Protocol):
    """What kept outputs are made of, see ``benchmark.data.loader.PairLoader``; rows of batches number the pairs."""

    @property
    def longest(self) -> int | None:
        """The most tokens of a text, where a pair is the same image and text in every epoch; else None."""

    def __len__(self) -> int: ...

    def sequential(self, start: int, count: int) -> Batch:
        """``count`` pairs in order from ``start`` on, fewer at the end."""


class FrozenFeatures:
    """What the frozen first layers of a method's towers give for every pair of a loader.

    towers: those that have such layers, and where their outputs depend on the pair alone; all others are computed as
    usual. In training mode a method must read a tower with ``batch.view()`` or ``batch.tokens`` for them to be used.

    folder: where they are kept for this training. cache: where they are kept for later ones too, in its place; None
    for nowhere.
    """

    def __init__(
        self,
        method: Method,
        pairs: Pairs,
        micro_batch: int,
        precision: Precision,
        folder: Path,
        cache: Path | None = None,
    ) -> None:
        self.method = method
        self.towers: list[_Tower] = []
        towers = [tower for tower in (_Tower(method, "image"), _Tower(method, "text")) if tower.parts]
        if not towers or pairs.longest is None:
            return
        device = next(method.parameters()).device

        def batch(start: int) -> Batch:
            return pairs.sequential(start, micro_batch).to(device)

        def batches() -> Iterator[Batch]:
            return map(batch, range(0, len(pairs), micro_batch))

        towers = [tower for tower in towers if tower.can_be_kept(batch(0), precision)]
        if cache is None:
            towers = [tower for tower in towers if tower.make_room(pairs, folder)]
            for now in batches() if towers else ():
                for tower in towers:
                    tower.keep(now, precision)
        else:
            towers = [tower for tower in towers if tower.keep_in(cache / KEPT, pairs, batches, precision)]
        self.towers = [tower for tower in towers if tower.gives_the_same(batch(0), precision)]

    @contextmanager
    def used(self) -> Iterator[None]:
        """Read the towers' first layers from what is kept, in the block."""
        handle = self.method.register_forward_pre_hook(self._batch)
        for tower in self.towers:
            tower.replace()
        try:
            yield
        finally:
            handle.remove()
            for tower in self.towers:
                tower.restore()

    def _batch(self, _: nn.Module, arguments: tuple[Batch, ...]) -> None:
        for tower in self.towers:
            tower.batch = arguments[0]


def room_for(size: int, cache: Path) -> bool:
    """Remove the outputs that were used longest ago until there is room for ``size`` bytes; whether there is."""
    cache.mkdir(parents=True, exist_ok=True)
    folders = sorted((f for f in cache.iterdir() if f.is_dir() and f.name[0] != "."), key=lambda f: f.stat().st_mtime)
    sizes = [sum(file.stat().st_size for file in folder.iterdir()) for folder in folders]
    most = LARGEST_SHARE * (shutil.disk_usage(cache).free + sum(sizes))
    if size > most:
        return False
    kept = sum(sizes)
    for folder, own in zip(folders, sizes):
        if kept + size <= most:
            break
        # A training that reads it keeps its file.
        remove(folder)
        kept -= own
    return True


class _Reached(Exception):
    """The last frozen part was computed."""


class _Tower:
    """The frozen first parts of a tower."""

    def __init__(self, method: Method, side: Side) -> None:
        self.side = side
        self.tower: ImageTower | TextTower = method.model.image if side == "image" else method.model.text
        self.batch: Batch | None = None
        self.parts = _frozen_parts(method, self.tower)
        self.shapes: dict[nn.Module, torch.Size] = {}
        """The shapes of the outputs of one sample, in the order of the computation."""
        self.now: tuple[Tensor, int] | None = None
        """The numbers of the pairs that the tower reads now, and the length of their texts."""

    # What is kept

    def can_be_kept(self, batch: Batch, precision: Precision) -> bool:
        """Whether the outputs of the last part depend on the pair alone, and have a known shape."""
        if self.side == "image":
            if batch.augmentation != Augmentation.none() or batch.size is not None or _dropping(self.tower):
                return False
        elif isinstance(self.tower, TextTower) and self.tower.pad_id is not None:
            return False  # padding changes what such a tower gives
        twice = []
        for seed in (0, 1):
            with torch_seed(seed):
                twice.append(self._trace(batch, precision))
        if len(twice[0]) != len(twice[1]) or not twice[0] or not torch.equal(twice[0][-1][1], twice[1][-1][1]):
            return False  # something before it is random
        length = batch.tokens.shape[1]
        called = [part for part, _ in twice[0]]
        for part, output in twice[0]:
            if self.side == "text" and (output.ndim < 3 or output.shape[1] != length):
                return False
            self.shapes[part] = output.shape[2 if self.side == "text" else 1 :]
        self.last, self.dtype = called[-1], twice[0][-1][1].dtype
        return len(set(called)) == len(called)

    def _trace(self, batch: Batch, precision: Precision) -> list[tuple[nn.Module, Tensor]]:
        """The parts that are computed, in order, with their outputs; none if there are others than tensors."""
        outputs: list[tuple[nn.Module, Any]] = []
        handles = [
            part.register_forward_hook(lambda part, _, output: outputs.append((part, output))) for part in self.parts
        ]
        handles += [other.register_forward_pre_hook(_stop) for other in _trained(self.tower)]
        try:
            self._read(batch, precision)
        except _Reached:
            pass
        finally:
            for handle in handles:
                handle.remove()
        return outputs if all(isinstance(o, Tensor) and len(o) == len(batch) for _, o in outputs) else []

    def _shape(self, pairs: Pairs) -> tuple[int, ...]:
        """The shape of the outputs for all pairs; those of texts are padded to the longest: rows have one size."""
        assert pairs.longest is not None
        lengths = (pairs.longest,) if self.side == "text" else ()
        return len(pairs), *lengths, *self.shapes[self.last]

    def make_room(self, pairs: Pairs, folder: Path) -> bool:
        """Make the file, whose place on disk is free again when it is closed. Returns whether there is room for it."""
        shape = self._shape(pairs)
        if math.prod(shape) * self.dtype.itemsize > LARGEST_SHARE * shutil.disk_usage(folder).free:
            return False
        path = folder / f"frozen-{self.side}.bin"
        self.kept = self._mapped(path, shape)
        path.unlink()
        return True

    def keep_in(self, cache: Path, pairs: Pairs, batches: Callable[[], Iterator[Batch]], precision: Precision) -> bool:
        """Read the outputs of all pairs from a folder of the cache, or compute them into it.

        Returns whether there is room for them. What other trainings used longest ago makes room.
        """
        shape = self._shape(pairs)
        folder = cache / self._key(shape, batches, precision)
        if not intact(folder) and not room_for(math.prod(shape) * self.dtype.itemsize, cache):
            return False

        def write(into: Path) -> None:
            self.kept = self._mapped(into / OUTPUTS, shape)
            for batch in batches():
                self.keep(batch, precision)

        build_folder(folder, write)
        # The last use, by which room is made.
        os.utime(folder)
        self.kept = self._mapped(folder / OUTPUTS, shape, shared=False)
        return True

    def _key(self, shape: tuple[int, ...], batches: Callable[[], Iterator[Batch]], precision: Precision) -> str:
        """Hash all that the outputs depend on, to the last bit."""
        read = sha256()
        for batch in batches():
            for each in (batch.view(),) if self.side == "image" else (batch.tokens, batch.mask):
                read.update(repr((each.shape, each.dtype)).encode())
                read.update(each.cpu().numpy().tobytes())
        weights = sha256()
        fixed = [(name, p) for name, p in self.tower.named_parameters() if not p.requires_grad]
        for name, tensor in [*fixed, *self.tower.named_buffers()]:
            weights.update(repr((name, tensor.shape, tensor.dtype)).encode())
            weights.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        device = next(self.tower.parameters()).device
        with precision():
            half = torch.is_autocast_enabled(device.type) and str(torch.get_autocast_dtype(device.type))
        on_gpu = device.type == "cuda"
        machine = torch.cuda.get_device_name(device) if on_gpu else torch.backends.cpu.get_cpu_capability()
        computed = [formats.TRAINING, formats.CACHE, torch.__version__, device.type, machine, half, str(self.dtype)]
        return digest([self.side, repr(self.tower), [*shape], *computed, weights.hexdigest(), read.hexdigest()])

    def _mapped(self, path: Path, shape: tuple[int, ...], shared: bool = True) -> Tensor:
        """Map a file as a tensor; it is made or grows where it is ``shared``."""
        return torch.from_file(str(path), shared=shared, size=math.prod(shape), dtype=self.dtype).view(shape)

    def keep(self, batch: Batch, precision: Precision) -> None:
        """Compute and keep the outputs of a batch."""
        _, output = self._trace(batch, precision)[-1]
        rows, output = batch.row.cpu(), output.cpu()
        if self.side == "image":
            self.kept[rows] = output
        else:
            output = output.masked_fill(~batch.mask.cpu().view(*batch.mask.shape, *[1] * (output.ndim - 2)), 0)
            self.kept[rows, : output.shape[1]] = output

    def gives_the_same(self, batch: Batch, precision: Precision) -> bool:
        """Whether the tower's outputs with what is kept are its own."""
        modes = {module: module.training for module in self.tower.modules()}
        self.tower.eval()
        expected = self._read(batch, precision)
        self.batch = batch
        self.replace()
        try:
            actual = self._read(batch, precision)
        except RuntimeError:
            return False  # a shape does not fit
        finally:
            self.restore()
            for module, mode in modes.items():
                module.training = mode
        return bool((actual - expected).norm() <= TOLERANCE * expected.norm())

    @torch.no_grad()
    def _read(self, batch: Batch, precision: Precision) -> Tensor:
        """Compute the features of a batch."""
        with precision():
            output: TowerOutput = self.tower(*((batch.view(),) if self.side == "image" else (batch.tokens, batch.mask)))
        return output.features

    # Using it

    def replace(self) -> None:
        """Let the parts return what is kept, where the tower reads the batch."""
        self.handles = [
            self.tower.register_forward_pre_hook(self._begin),
            self.tower.register_forward_hook(self._end, always_call=True),
        ]
        for part in self.shapes:
            part.forward = partial(self._output, part, part.forward)

    def restore(self) -> None:
        """Let the parts compute again."""
        for handle in self.handles:
            handle.remove()
        for part in self.shapes:
            del part.forward

    def _begin(self, _: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        self.now, batch = None, self.batch
        if batch is None:
            return
        if self.side == "text":
            reads_it = arguments[0] is batch.tokens
        else:
            view = batch.view()
            reads_it = not _dropping(self.tower) and arguments[0].shape == view.shape and arguments[0].equal(view)
        if reads_it:
            self.now = batch.row, batch.tokens.shape[1]

    def _end(self, *_: object) -> None:
        self.now = None

    def _output(self, part: nn.Module, compute: Any, *arguments: Any, **options: Any) -> Any:
        if self.now is None:
            return compute(*arguments, **options)
        rows, length = self.now
        if part is self.last:
            kept = self.kept[rows.cpu()]
            kept = kept if self.side == "image" else kept[:, :length]
            return kept.to(rows.device, non_blocking=True)
        lengths = () if self.side == "image" else (length,)
        return torch.zeros(len(rows), *lengths, *self.shapes[part], dtype=self.dtype, device=rows.device)


def _stop(*_: object) -> None:
    raise _Reached


def _dropping(tower: nn.Module) -> bool:
    return isinstance(tower, ImageTower) and tower.patch_dropout > 0


def _trained(tower: nn.Module) -> Iterator[nn.Module]:
    """The modules that have trained parameters of their own."""
    for module in tower.modules():
        if any(parameter.requires_grad for parameter in module.parameters(recurse=False)) and module is not tower:
            yield module


def _frozen_parts(method: Method, tower: ImageTower | TextTower) -> list[nn.Module]:
    """The modules of the leading groups of a tower that a method froze for good."""
    frozen = {id(p) for group in method.frozen for part in group for p in _parameters(part)}
    parts: list[nn.Module] = []
    if not frozen:
        return parts
    for group in tower.layer_groups():
        if any(p.requires_grad or id(p) not in frozen for part in group for p in _parameters(part)):
            break
        modules = [part for part in group if isinstance(part, nn.Module)]
        if any(module.training for module in modules):
            break
        parts += modules
    return parts


def _parameters(part: nn.Module | nn.Parameter) -> Sequence[nn.Parameter]:
    return [part] if isinstance(part, nn.Parameter) else list(part.parameters())
