"""Accumulate the gradient of an effective batch over micro-batches, and take one optimiser step with it.

``plain``: contrast() sees one micro-batch at a time: few negatives, one forward pass.
``cached``: first compute the embeddings of all micro-batches without a graph and run contrast() once over all of them;
then a second forward pass per micro-batch receives the cached gradients (Gao et al. 2021, arXiv 2101.06983).
contrast() runs once, so its own parameters (the temperature) get their gradient once.
``keyed``: first compute the gradient-free keys of all micro-batches, then contrast each micro-batch with all keys.

``cached`` and ``keyed`` give the full batch's gradient up to rounding; their activation memory depends only on the
micro-batch. Where a ``Division`` says that there is memory for it, the first micro-batches of ``cached`` keep their
graph instead of a second pass, and passes that keep no graph take several micro-batches at once.

Several ranks give the gradient of one, up to rounding: each passes its own micro-batches forward and backward,
embeddings and keys are gathered, every rank computes all of contrast(), and one sum over the ranks ends the step.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import accumulate as running_sum

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.common.errors import BenchError, PlugInError, described, said, unknown
from benchmark.common.seeding import stream, torch_seed
from benchmark.config.training import Training
from benchmark.data.batch import Batch
from benchmark.method import METHODS, Accumulation, Embeddings, Keys, Method, Output
from benchmark.training.division import ONE_BY_ONE, Passes
from benchmark.training.ranks import ALONE, Ranks, SharedError

Losses = dict[str, Tensor]
"""Loss terms by name, each a scalar on the device; with several ranks the part of this one."""
Precision = Callable[[], AbstractContextManager[object]]
"""Makes the autocast context for forward passes; losses are computed outside it."""


LOGGED = (
    "stage",
    "micro_batch",
    "step",
    "samples",
    "learning_rate",
    "gradient_norm",
    "temperature_scale",
    "validation_loss",
    "seconds",
)
"""The columns of a training's log beside the losses: no loss has their names."""


class NotFiniteError(ArithmeticError):
    """A step whose loss or gradient norm is not finite.

    loss: of the effective batch; its terms. norm: of the gradient, before clipping. number: of the step among the
    unread ones.
    """

    def __init__(self, losses: Mapping[str, float], norm: float, number: int) -> None:
        self.loss, self.norm, self.number = sum(losses.values()), norm, number
        bad = [f"{name} {value}" for name, value in losses.items() if not math.isfinite(value)]
        named = f" ({', '.join(bad)})" if bad and len(losses) > 1 else ""
        super().__init__(f"the loss is {self.loss}{named} and the gradient norm {norm}")


@dataclass
class Values:
    """Numbers of a step. temperature_scale: after the step; None before it is known."""

    losses: dict[str, float]
    gradient_norm: float
    temperature_scale: float | None = None


@dataclass
class _Unread:
    losses: Losses
    norm: Tensor
    temperature_scale: Tensor | None = None


class Reader:
    """Keeps the losses, norms and temperatures of steps on the device until they are read, all in one transfer.

    Reading a tensor waits for all work of the device before it, which then has nothing to do until the next step.

    not_finite: float scalar on the device, 1 once the loss or the gradient norm of a step was not finite.
    """

    def __init__(self, device: torch.device, ranks: Ranks = ALONE) -> None:
        self.ranks = ranks
        self.not_finite = torch.zeros((), device=device)
        self._unread: list[_Unread] = []

    def add(self, losses: Losses, norm: Tensor) -> None:
        """Keep those of a step, before its weights change."""
        # Of one type on all ranks, some of which may have no terms.
        total = self.ranks.sum(sum(losses.values(), torch.zeros_like(self.not_finite)).float())
        finite = total.isfinite() & norm.to(total.device).isfinite()
        self.not_finite = torch.where(finite, self.not_finite, 1.0)
        self._unread.append(_Unread(losses, norm))

    def add_temperature(self, scale: Tensor) -> None:
        """Keep the temperature scale after the last step."""
        self._unread[-1].temperature_scale = scale.detach()

    def check(self) -> None:
        """Raise ``NotFiniteError`` for the first unread step that is not finite, if there is one."""
        if self.not_finite.item():
            for number, values in enumerate(self._read()):
                if not math.isfinite(sum(values.losses.values()) + values.gradient_norm):
                    raise NotFiniteError(values.losses, values.gradient_norm, number)

    def read(self) -> list[Values]:
        """Return the numbers of the steps since the last call. Raises ``NotFiniteError`` as check() does."""
        self.check()
        values = self._read()
        self._unread = []
        return values

    def _read(self) -> list[Values]:
        tensors = []
        for each in self._unread:
            scale = [] if each.temperature_scale is None else [each.temperature_scale]
            tensors += [value.to(self.not_finite.device) for value in (*each.losses.values(), each.norm, *scale)]
        numbers = iter(_read_all(tensors))
        rows = []
        for each in self._unread:
            losses = {name: next(numbers) for name in each.losses}
            norm = next(numbers)
            rows.append(Values(losses, norm, None if each.temperature_scale is None else next(numbers)))
        for row, of_ranks in zip(rows, zip(*self.ranks.all([row.losses for row in rows]))):
            row.losses = _summed(of_ranks)
        return rows


def _read_all(scalars: Sequence[Tensor]) -> list[float]:
    """Read scalars of one device in one transfer."""
    # Not every device has numbers of double precision.
    dtype = torch.float64 if any(scalar.dtype == torch.float64 for scalar in scalars) else torch.float32
    values: list[float] = torch.stack([scalar.to(dtype) for scalar in scalars]).tolist() if scalars else []
    return values


def _summed(of_ranks: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Add the parts of the ranks."""
    terms: dict[str, float] = {}
    for of_rank in of_ranks:
        for name, value in of_rank.items():
            terms[name] = terms.get(name, 0.0) + value
    return terms


def training_step(
    method: Method,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    mode: Accumulation,
    seed: int,
    precision: Precision = nullcontext,
    gradient_clip: float = 0.0,
    ranks: Ranks = ALONE,
    reader: Reader | None = None,
    check: bool = True,
    passes: Passes = ONE_BY_ONE,
) -> None:
    """Take one optimiser step on an effective batch.

    Arguments as in ``accumulate``. gradient_clip: the largest gradient norm, 0 for no limit.
    reader: keeps the loss terms and the gradient norm before clipping. check: whether to read now if all are finite.
        Otherwise nothing waits for the device, and an optimiser that is ``guarded`` changes no weight from a step on
        that is not finite, until a check says so.
    Raises ``NotFiniteError`` and ``NoRoomError`` before any weight changes, with running statistics as they were before
    the step, and ``SharedError`` for losses without a gradient.
    """
    reader = reader or Reader(_device(method), ranks)
    # The forward pass of a bad batch corrupts the running statistics.
    before = [(buffer, buffer.clone()) for buffer in running_statistics(method)]
    try:
        losses, keys = accumulate(method, batches, mode, seed, precision, ranks, passes)
    except NoRoomError:
        for buffer, old in before:
            buffer.copy_(old)
        raise
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    reader.add(losses, norm)
    if check:
        try:
            reader.check()
        except NotFiniteError:
            for buffer, old in before:
                buffer.copy_(old)
            raise
    else:
        for buffer, old in before:
            buffer.copy_(torch.where(reader.not_finite > 0, old, buffer))
    if trained and not gradients:
        raise SharedError(
            f"{METHODS.title(type(method))}: its losses ({', '.join(losses) or 'none'}) depend on no weight that it "
            "trains, so that nothing is learned; make them from the embeddings, without detach()"
        )
    if gradient_clip:
        torch.nn.utils.clip_grads_with_norm_(trained, gradient_clip, norm)
    # The name under which torch's fused optimisers look for it.
    optimizer.found_inf = None if check else reader.not_finite  # type: ignore[attr-defined]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    method.after_step(keys)


def accumulate(
    method: Method,
    batches: Sequence[Batch],
    mode: Accumulation,
    seed: int,
    precision: Precision = nullcontext,
    ranks: Ranks = ALONE,
    passes: Passes = ONE_BY_ONE,
) -> tuple[Losses, Keys]:
    """Add the gradient of the effective batch to every parameter's ``.grad``.

    batches: the micro-batches of the effective batch, on any device; sizes may differ. Each is moved to the method's
        device only while it is needed. With several ranks, those of this one, at least one.
    seed: of all randomness in the forward passes; all passes of micro-batch i start from the same random state.
    ranks: which train together; there must be no gradient before.
    passes: which graphs are kept, and how many micro-batches pass at once where none is, without drawing numbers.
    Returns the loss terms of the effective batch (means over its samples; of several ranks, each its part of them), and
    its keys, for after_step().
    Raises ``BenchError`` for an unknown mode, and ``NoRoomError`` without memory for it; then there is no gradient.
    """
    if mode not in MODES:
        raise unknown("accumulation", mode, MODES)
    # A single micro-batch is the full batch: a second forward pass would only cost time.
    alone = mode == "cached" and ranks.count == len(batches) == 1
    try:
        if alone or mode == "plain":
            losses, keys = _plain(method, batches, seed, precision, ranks)
        elif mode == "cached":
            losses, keys = _cached(method, batches, seed, precision, ranks, passes)
        else:
            losses, keys = _keyed(method, batches, seed, precision, ranks, passes)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        method.zero_grad(set_to_none=True)
        message = str(error)
    else:
        ranks.sum_gradients(parameter for parameter in method.parameters() if parameter.requires_grad)
        return losses, keys
    # Outside the handler, whose traceback holds the tensors of the passes.
    raise NoRoomError(message)


OUT_OF_MEMORY = "out of memory. Lower training.micro_batch, or set auto; the result stays the same."


class NoRoomError(torch.OutOfMemoryError):
    """The passes of a step do not fit into memory. There is no gradient, and no weight has changed."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of torch says that memory is missing, on any device."""
    of_cpu = isinstance(error, RuntimeError) and "DefaultCPUAllocator: " in str(error)
    return of_cpu or isinstance(error, torch.OutOfMemoryError)


def keys_of(
    method: Method,
    batches: Sequence[Batch],
    seed: int,
    precision: Precision = nullcontext,
    ranks: Ranks = ALONE,
    together: int = 1,
) -> Keys:
    """Return the keys of an effective batch. Arguments as in ``accumulate``; together: as of passes."""
    own = []
    with ranks.joint_statistics(method) as apart:
        for number, batch in _numbered(_pieces(batches, together), ranks):
            with apart():
                own.append(_keys(method, batch, number, seed, precision))
    return _joined(ranks.gather(own))


def _pieces(batches: Sequence[Batch], together: int) -> list[Batch]:
    """Join micro-batches, as many as pass at once."""
    return [Batch.joined(batches[start : start + together]) for start in range(0, len(batches), together)]


@torch.no_grad()
def effective_loss(
    method: Method, batches: Sequence[Batch], seed: int, precision: Precision = nullcontext, ranks: Ranks = ALONE
) -> dict[str, float]:
    """Compute the loss terms of the effective batch without a gradient, for validation."""
    outputs = [_forward(method, batch, number, seed, precision) for number, batch in _numbered(batches, ranks)]
    keys = keys_of(method, batches, seed, precision, ranks)
    embeddings = _joined(ranks.gather([output.embeddings for output in outputs]))
    losses, of_all = _Sum(), _contrast(method, embeddings, keys, 0)
    if ranks.is_first:
        losses.add(of_all, 1.0)
    for each, output in zip(_placed(batches, ranks), outputs):
        losses.add(output.losses, each.share)
    return loss_values(losses.terms, ranks)


def loss_values(losses: Losses, ranks: Ranks = ALONE) -> dict[str, float]:
    """Read what accumulate() returned, summed over the ranks."""
    return _summed(ranks.all({name: term.item() for name, term in losses.items()}))


def _plain(
    method: Method, batches: Sequence[Batch], seed: int, precision: Precision, ranks: Ranks = ALONE
) -> tuple[Losses, Keys]:
    losses, own_keys = _Sum(), []
    with ranks.joint_statistics(method) as apart:
        for each in _placed(batches, ranks):
            with apart():
                keys = _keys(method, each.batch, each.number, seed, precision)
                output = _forward(method, each.batch, each.number, seed, precision)
                terms = _contrast(method, output.embeddings, keys, 0) | output.losses
                losses.backward(terms, each.share)
            own_keys.append(keys)
    return losses.terms, _joined(ranks.gather(own_keys))


def _keyed(
    method: Method,
    batches: Sequence[Batch],
    seed: int,
    precision: Precision,
    ranks: Ranks = ALONE,
    passes: Passes = ONE_BY_ONE,
) -> tuple[Losses, Keys]:
    losses = _Sum()
    keys = keys_of(method, batches, seed, precision, ranks, passes.together)
    with ranks.joint_statistics(method) as apart:
        for each in _placed(batches, ranks):
            with apart():
                output = _forward(method, each.batch, each.number, seed, precision)
                terms = _contrast(method, output.embeddings, keys, each.start) | output.losses
                losses.backward(terms, each.share)
    return losses.terms, keys


def _cached(
    method: Method,
    batches: Sequence[Batch],
    seed: int,
    precision: Precision,
    ranks: Ranks = ALONE,
    passes: Passes = ONE_BY_ONE,
) -> tuple[Losses, Keys]:
    losses = _Sum()
    keys = keys_of(method, batches, seed, precision, ranks, passes.together)
    placed = _placed(batches, ranks)
    # The first ones, as running statistics are updated in the order of the micro-batches.
    kept = deque(_forward(method, each.batch, each.number, seed, precision) for each in placed[: passes.graphs])
    own = [{name: value.detach() for name, value in output.embeddings.items()} for output in kept]
    with torch.no_grad(), _same_statistics(method):
        own += [
            _forward(method, batch, passes.graphs + number, seed, precision, embeddings_only=True).embeddings
            for number, batch in _numbered(_pieces(batches[passes.graphs :], passes.together), ranks)
        ]
        embeddings = _joined(ranks.gather(own))
        del own
    for value in embeddings.values():
        value.requires_grad_(value.is_floating_point())
    terms = _contrast(method, embeddings, keys, 0)
    if ranks.is_first:
        losses.backward(terms, 1.0)
    else:
        # Its own parameters get their gradient once, on rank 0.
        _backward(sum(terms.values()), [value for value in embeddings.values() if value.requires_grad])
    with ranks.joint_statistics(method) as apart:
        for each in placed:
            with apart():
                output = kept.popleft() if kept else _forward(method, each.batch, each.number, seed, precision)
                loss = losses.add(output.losses, each.share)
                for name, value in output.embeddings.items():
                    gradient = embeddings[name].grad
                    if value.requires_grad and gradient is not None:
                        rows = slice(each.start, each.start + len(each.batch))
                        loss = loss + (value * gradient[rows, *map(slice, value.shape[1:])]).sum()
                _backward(loss)
    return losses.terms, keys


MODES = {"plain": _plain, "cached": _cached, "keyed": _keyed}


@dataclass(frozen=True)
class _Placed:
    """A micro-batch of this rank. number: in the effective batch; start: of its samples; share: of them, 0..1."""

    batch: Batch
    number: int
    start: int
    share: float


def _placed(batches: Sequence[Batch], ranks: Ranks) -> list[_Placed]:
    sizes = ranks.interleaved(ranks.all([len(batch) for batch in batches]))
    starts, total = [*running_sum(sizes, initial=0)], sum(sizes)
    return [_Placed(batch, number, starts[number], len(batch) / total) for number, batch in _numbered(batches, ranks)]


def _numbered(batches: Sequence[Batch], ranks: Ranks) -> list[tuple[int, Batch]]:
    return [(ranks.rank + i * ranks.count, batch) for i, batch in enumerate(batches)]


class _Sum:
    """The loss terms of the effective batch, summed on the device. terms: this rank's part of them."""

    def __init__(self) -> None:
        self.terms: Losses = {}

    def add(self, terms: dict[str, Tensor], share: float) -> Tensor | float:
        for name, term in terms.items():
            self.terms[name] = self.terms.get(name, 0.0) + share * term.detach()
        return share * sum(terms.values())

    def backward(self, terms: dict[str, Tensor], share: float) -> None:
        _backward(self.add(terms, share))


def _contrast(method: Method, embeddings: Embeddings, keys: Keys, start: int) -> dict[str, Tensor]:
    """Return the loss terms of contrast(). Raises ``BenchError`` if they are not scalar tensors by name."""
    try:
        terms: object = method.contrast(embeddings, _indexed(keys, embeddings, start))
    except (RuntimeError, ValueError, IndexError) as error:
        if is_out_of_memory(error):
            raise
        title, given = METHODS.title(type(method)), ", ".join(f"'{n}' {list(e.shape)}" for n, e in embeddings.items())
        raise PlugInError(f"{title}: contrast() failed on embeddings {given}: {said(error)}") from error
    return _losses(method, "contrast()", terms)


def _losses(method: Method, source: str, terms: object) -> dict[str, Tensor]:
    """Check loss terms that a method returned. source: what returned them, in words."""
    title = METHODS.title(type(method))
    if not isinstance(terms, dict):
        raise BenchError(f"{title}: {source} must return a dict of losses, found {described(terms)}")
    for name, term in terms.items():
        if not isinstance(name, str) or name in LOGGED:
            raise BenchError(
                f"{title}: {source} calls a loss {described(name)}; expected a text other than {', '.join(LOGGED)}"
            )
        if not (isinstance(term, Tensor) and term.ndim == 0 and term.is_floating_point()):
            raise BenchError(
                f"{title}: loss '{name}' must be a scalar tensor of floating-point numbers, found {described(term)}"
            )
    return terms


def _by_pair(method: Method, source: str, values: object, count: int) -> dict[str, Tensor]:
    """Check embeddings or keys of a micro-batch of ``count`` pairs. source: what returned them, in words."""
    title = METHODS.title(type(method))
    if not isinstance(values, dict):
        raise BenchError(f"{title}: {source} must return a dict of tensors, found {described(values)}")
    for name, value in values.items():
        if not (isinstance(value, Tensor) and value.ndim and len(value) == count):
            raise BenchError(
                f"{title}: {source} must return a tensor with a row for each of {count} pairs as '{name}', found "
                f"{described(value)}"
            )
    return values


def _backward(loss: Tensor | float, into: Sequence[Tensor] | None = None) -> None:
    """Compute the gradients of a loss. into: the only tensors that get theirs; None: all."""
    # Without trained parameters (both towers locked) there is no graph.
    if isinstance(loss, Tensor) and loss.requires_grad and into != []:
        loss.backward(inputs=into)  # type: ignore[no-untyped-call]


def _forward(
    method: Method, batch: Batch, i: int, seed: int, precision: Precision, embeddings_only: bool = False
) -> Output:
    with torch_seed(stream(seed, "forward", i)):
        with precision():
            output: object = method(batch.to(_device(method)), embeddings_only=embeddings_only)
        if not isinstance(output, Output):
            title = METHODS.title(type(method))
            raise BenchError(f"{title}: forward() must return an Output, found {described(output)}")
        embeddings = _by_pair(method, "the Output of forward()", output.embeddings, len(batch))
        output.embeddings = {name: _full(value) for name, value in embeddings.items()}
        output.losses = _losses(method, "the Output of forward()", output.losses)
        return output


def _keys(method: Method, batch: Batch, i: int, seed: int, precision: Precision) -> Keys:
    with torch.no_grad(), torch_seed(stream(seed, "keys", i)):
        moved = batch.to(_device(method))
        with precision():
            keys = _by_pair(method, "keys()", method.keys(moved), len(batch))
        return {name: _full(value) for name, value in keys.items()} | {"text_hash": moved.text_hash}


def _device(method: Method) -> torch.device:
    return next(method.parameters()).device


def _full(value: Tensor) -> Tensor:
    """Convert half precision to float32, in which similarities and losses are computed."""
    return value.float() if value.dtype in (torch.bfloat16, torch.float16) else value


def _indexed(keys: Keys, embeddings: Embeddings, start: int) -> Keys:
    if not embeddings:
        return keys
    first = next(iter(embeddings.values()))
    return keys | {"index": torch.arange(start, start + len(first), device=first.device)}


def _joined(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Concatenate over micro-batches; zero-pad the token dimension, as text lengths differ between them."""
    return {name: _cat([part[name] for part in parts]) for name in parts[0]}


def _cat(parts: Sequence[Tensor]) -> Tensor:
    if parts[0].ndim > 1:
        longest = max(part.shape[1] for part in parts)
        parts = [F.pad(part, (0, 0) * (part.ndim - 2) + (0, longest - part.shape[1])) for part in parts]
    return torch.cat(list(parts))


@contextmanager
def _same_statistics(module: nn.Module) -> Iterator[None]:
    """Restore the running statistics of batch normalisation on exit: only the second forward pass may update them."""
    norms = (layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._NormBase))
    layers = [layer for layer in norms if layer.training]
    saved = [[buffer.clone() for buffer in layer.buffers()] for layer in layers]
    yield
    for layer, buffers in zip(layers, saved):
        for buffer, old in zip(layer.buffers(), buffers):
            buffer.copy_(old)


def running_statistics(method: Method) -> list[Tensor]:
    """Return the buffers that a forward pass updates in normalisation layers: mean, variance and count."""
    layers = [module for module in method.modules() if hasattr(module, "running_mean")]
    return [buffer for layer in layers for buffer in layer.buffers(recurse=False)]


def micro_batches(
    fetch: Callable[[int, int], Batch], start: int, size: int, micro_batch: int, ranks: Ranks = ALONE
) -> list[Batch]:
    """Fetch ``size`` pairs from position ``start`` on, ``micro_batch`` at a time; the last micro-batch may be smaller.

    fetch: returns the batch for a position and a count. With several ranks, only this one's micro-batches are fetched.
    """
    offsets = ranks.own(range(0, size, micro_batch))
    return [fetch(start + offset, min(micro_batch, size - offset)) for offset in offsets]


def accumulation_mode(method: type[Method] | Method, training: Training) -> Accumulation:
    """Return the accumulation mode to train a method in. Raises ``BenchError`` if the method does not support it."""
    mode = method.accumulation[0] if training.accumulation == "auto" else training.accumulation
    if mode not in method.accumulation:
        raise BenchError(
            f"training.accumulation is '{mode}', but method '{method.name}' supports {', '.join(method.accumulation)}"
        )
    if mode == "plain" and training.micro_batch == "auto":
        raise BenchError(
            f"training.micro_batch is auto, but the loss of method '{method.name}', whose accumulation is plain, "
            "depends on it: set a number"
        )
    return mode
