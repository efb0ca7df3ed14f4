"""Logistic regression on frozen features: several parts of the examples, over a path of regularisation, in one batch.

Where a solver stops is judged in float64. Most products are float32, because what they are for is the next step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from benchmark.evaluation.ridge import principal_axes

TOLERANCE = 1e-6
"""Nats per example: a fit stops when the gradient bounds the distance to the minimum by this."""
INTERCEPT_CURVATURE = 1e-4
"""The least curvature along an intercept that this bound assumes; along a weight it is the penalty's."""
MEMORY = 40
"""Pairs of steps and gradient changes that L-BFGS keeps."""
MAX_STEPS = 1000
"""The most steps for one strength."""
MARGIN = 10
"""How much nearer to the minimum than the tolerance float32 aims: where it gets there, few steps more are needed."""
PATIENCE = 25
"""Steps in float32 that may go by until the bound has halved; then float64 takes over."""
SHORT = 1e-2
"""The length of a step below which L-BFGS forgets its pairs; 1 is what they say."""
MAX_TRIALS = 30
"""The most lengths of a step that the line search tries."""
LEAST_CURVATURE = 1e-3
"""The least curvature of a combination of classes, as a share of the highest."""
ELEMENTS = 2**28
"""The most logits in memory at a time, unless one part has more; other parts are fitted in batches of their own."""

Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class Path:
    """Linear classifiers at P strengths of regularisation: weight float64 [P, K, d], intercept [P, K].

    objective: [P] (softmax) or [P, K] (one sigmoid per finding; 0 where none is fitted), the minimum that was reached;
    gap: likewise, how far above the true minimum it can be (see TOLERANCE).
    """

    weight: Tensor
    intercept: Tensor
    objective: Tensor
    gap: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Compute the logits float64 [P, n, K] of features [n, d]."""
        return torch.einsum("nd,pkd->pnk", features.double(), self.weight) + self.intercept[:, None]


def logistic_path(
    features: Tensor,
    label: Tensor,
    classes: int,
    strengths: Sequence[float],
    tolerance: float = TOLERANCE,
    progress: Progress = lambda done, total: None,
) -> Path:
    """Fit logistic regression to all examples as they are, at all ``strengths``; see logistic_paths()."""
    every = torch.ones(1, len(features), dtype=torch.bool, device=features.device)
    scale = torch.ones(1, features.shape[1], dtype=torch.float64, device=features.device)
    return logistic_paths(features, label, classes, strengths, every, scale, tolerance, progress)[0]


def logistic_paths(
    features: Tensor,
    label: Tensor,
    classes: int,
    strengths: Sequence[float],
    parts: Tensor,
    scales: Tensor,
    tolerance: float = TOLERANCE,
    progress: Progress = lambda done, total: None,
) -> list[Path]:
    """Fit logistic regression to several parts of the examples, as cross-validation needs them: one path a part.

    features: [n, d]. label: int64 [n] in 0..classes-1, or, multi-label, [n, classes] of 0, 1 and -1 (unknown).
    parts: bool [F, n], the examples of each. scales: [F, d]; part f is fitted to features / scales[f], and its path
    takes features that are not divided.
    strengths: P values of C as scikit-learn's ``LogisticRegression(C=...)`` defines it: what is minimised is
    C x (sum over examples of the log loss) + |weight|^2 / 2, the intercept left out of the penalty; ``objective`` is
    that divided by C x n. Three classes or more: softmax. Two classes: one sigmoid for the second against the first.
    Multi-label: one sigmoid per finding, over the examples whose label is known.
    progress: called with the number of strengths that are solved, and of all.

    A class without examples gets the logit minus infinity; a finding whose known labels are all the same gets 0.

    The solver is L-BFGS in its compact form (Byrd, Nocedal and Schnabel 1994, https://doi.org/10.1007/BF01582063), with
    all parts and findings in one batch, so that a step is two matrix products. It goes from the strongest
    regularisation to the weakest, and starts each fit where the last two point. The initial Hessian is ``_Curvature``.
    Products are float32 until the gradient is small enough; the gradient in float64 then says whether it is, and where
    it is not float64 goes on. Logits are linear in the step, so that the line search needs no product.
    """
    features, scales = features.double(), scales.double()
    fitted = [_fitted(label[part], classes) for part in parts]
    together: dict[object, list[int]] = {}
    for f, columns in enumerate(fitted):
        form: object = "findings" if label.ndim == 2 else "softmax" if len(columns) > 2 else tuple(columns.tolist())
        # On fewer examples than features there are fewer axes: a part's own.
        together.setdefault(f if int(parts[f].sum()) < features.shape[1] else form, []).append(f)
    most = max(1, ELEMENTS // (len(features) * classes))
    batches = [batch[i : i + most] for batch in together.values() for i in range(0, len(batch), most)]
    paths: dict[int, Path] = {}
    for number, batch in enumerate(batches):
        of_batch = partial(_shifted, progress, number * len(strengths), len(batches) * len(strengths))
        paths |= zip(batch, _fit(features, label, classes, strengths, parts[batch], scales[batch], tolerance, of_batch))
    return [paths[f] for f in range(len(parts))]


def _shifted(progress: Progress, before: int, total: int, done: int) -> None:
    """Call progress with what is done of a batch, ``before`` of the total having been done before it."""
    progress(before + done, total)


def _fitted(label: Tensor, classes: int) -> Tensor:
    """List the columns to fit: classes with examples, or findings that are both known present and known absent."""
    if label.ndim == 2:
        return ((label == 0).any(0) & (label == 1).any(0)).nonzero()[:, 0]
    return label.bincount(minlength=classes).nonzero()[:, 0]


def _fit(
    features: Tensor,
    label: Tensor,
    classes: int,
    strengths: Sequence[float],
    parts: Tensor,
    scales: Tensor,
    tolerance: float,
    progress: Callable[[int], object],
) -> list[Path]:
    """Fit parts that are solved in one batch; arguments as of logistic_paths()."""
    if len(parts) == 1:
        features, label, parts = features[parts[0]], label[parts[0]], parts[:, parts[0]]
    fitted = [_fitted(label[part], classes) for part in parts]
    columns = torch.unique(torch.cat(fitted))
    softmax = label.ndim == 1 and len(columns) > 2
    columns = columns if softmax or label.ndim == 2 else columns[1:]
    weight = features.new_zeros(len(strengths), len(parts), classes, features.shape[1])
    intercept, objective, gap = weight.new_zeros(3, *weight.shape[:-1])
    if label.ndim == 1:
        intercept[:] = -torch.inf
        for f, present in enumerate(fitted):
            intercept[:, f, present] = 0
    if len(columns):
        axes = None
        if features.shape[1] > len(features):
            shift, scores, axes, _ = principal_axes(features / scales[0])
            exact = Inputs(scores, torch.zeros_like(scores[0]), torch.ones_like(scores[0]))
            ratios = scores.new_ones(1, scores.shape[1])
        else:
            exact = Inputs(features, features.mean(0), scales[0])
            ratios = scales / scales[0]
        losses = (_Softmax if softmax else _Sigmoid).of(label, columns, parts)
        problem = _Problem.of(exact, losses, ratios)
        solution, lowest, above = _path(problem, features.new_tensor(strengths), tolerance, progress)
        solution = solution.reshape(len(strengths), len(parts), len(columns), -1)
        slope = solution[..., :-1]
        if axes is None:
            weight[:, :, columns] = slope / exact.scale
            intercept[:, :, columns] += solution[..., -1] - weight[:, :, columns] @ exact.shift
        else:
            weight[:, :, columns] = slope @ axes.T
            intercept[:, :, columns] += solution[..., -1] - weight[:, :, columns] @ shift
            weight /= scales[0]
        objective[:, :, columns] = lowest.reshape(len(strengths), len(parts), -1)
        gap[:, :, columns] = above.reshape(len(strengths), len(parts), -1)
    if label.ndim == 1:
        objective, gap = objective.amax(2), gap.amax(2)
    return [Path(weight[:, f], intercept[:, f], objective[:, f], gap[:, f]) for f in range(len(parts))]


@dataclass(frozen=True)
class Inputs:
    """Features as the solver sees them, (x - shift) / scale, and a column of ones last.

    x: [n, d], in the precision of the products. shift, scale: float64 [d]. They are applied to what is multiplied.
    """

    x: Tensor
    shift: Tensor
    scale: Tensor

    def rounded(self) -> Self:
        """Return the same in float32, already shifted and scaled."""
        x = ((self.x - self.shift) / self.scale).float()
        return type(self)(x, torch.zeros_like(self.shift), torch.ones_like(self.scale))

    def logits(self, weight: Tensor) -> Tensor:
        """Multiply weights float64 [B, K, d + 1] with the examples: [B, K, n]."""
        slope = weight[..., :-1] / self.scale
        offset = weight[..., -1:] - (slope @ self.shift)[..., None]
        flat = slope.flatten(0, 1).to(self.x.dtype) @ self.x.T
        return flat.view(*weight.shape[:2], -1).add_(offset.to(self.x.dtype))

    def sums(self, residual: Tensor) -> Tensor:
        """Sum the examples, each times its residual [B, K, n]: float64 [B, K, d + 1]."""
        total = residual.sum(2, keepdim=True, dtype=torch.float64)
        weighted = (residual.flatten(0, 1) @ self.x).view(*residual.shape[:2], -1).double()
        return torch.cat([(weighted - total * self.shift) / self.scale, total], 2)


@dataclass(frozen=True)
class _Softmax:
    """The log loss of B softmax regressions over K classes, each over its part of n examples.

    label: int64 [n], the column of each example's class. share: [B, n], what an example counts, 0 outside of the part.
    absent: bool [B, K, 1], classes without examples in the part.
    """

    label: Tensor
    share: Tensor
    absent: Tensor

    @classmethod
    def of(cls, label: Tensor, columns: Tensor, parts: Tensor) -> Self:
        """Set up the losses of logistic_paths(). columns: the classes that are fitted."""
        at = torch.searchsorted(columns, label.clamp_min(0)).clamp_max(len(columns) - 1)
        absent = torch.stack([at[part].bincount(minlength=len(columns)) == 0 for part in parts])
        return cls(at, parts.double() / parts.sum(1, keepdim=True), absent[..., None])

    @property
    def counts(self) -> Tensor:
        """How many examples each of the B regressions has: [B]."""
        return (self.share > 0).sum(1)

    def take(self, rows: Tensor) -> Self:
        """Select some of the B regressions."""
        return replace(self, share=self.share[rows], absent=self.absent[rows])

    def to(self, dtype: torch.dtype) -> Self:
        """Change the precision."""
        return replace(self, share=self.share.to(dtype))

    def __call__(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the mean losses float64 [B], and their gradient in the logits [B, K, n]."""
        at = self.label.expand(len(logits), 1, -1)
        share, of_class = self.share[:, None], logits.gather(1, at)
        if self.absent.any():
            logits = logits.masked_fill(self.absent, -torch.inf)
        highest = logits.amax(1, keepdim=True)
        exponential = (logits - highest).exp_()
        total = exponential.sum(1, keepdim=True)
        loss = ((total.log() + highest - of_class) * share).sum((1, 2), dtype=torch.float64)
        return loss, exponential.mul_(share / total).scatter_add_(1, at, -share)

    def spread(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what curves the losses at the logits of the first regression, for _Curvature.

        Of each example the sum over classes, [n]; the eigenvectors over classes, [K, K]; their eigenvalues, [B, K].
        """
        share, logits = self.share[0], logits[0]
        if self.absent[0].any():
            logits = logits.masked_fill(self.absent[0], -torch.inf)
        probability = logits.softmax(0)
        weighted = probability * share
        values, vectors = torch.linalg.eigh((weighted.sum(1).diag() - weighted @ probability.T).double())
        of_example = (weighted * (1 - probability)).sum(0)
        return of_example, vectors, values.expand(len(self.share), -1)


@dataclass(frozen=True)
class _Sigmoid:
    """The log loss of B regressions of one sigmoid each: of each part every column, the columns of a part together.

    target: [B, 1, n] of 0 and 1. share: [B, 1, n], what an example counts, 0 outside of the part and where unknown.
    of_part: how many columns a part has.
    """

    target: Tensor
    share: Tensor
    of_part: int

    @classmethod
    def of(cls, label: Tensor, columns: Tensor, parts: Tensor) -> Self:
        """Set up the losses of logistic_paths(). columns: the findings to fit, or the second of two classes."""
        target = label[:, columns].T if label.ndim == 2 else (label == columns[:, None]).long()
        counted = (target >= 0) & parts[:, None]
        # A finding whose known labels in a part are all the same counts nowhere: its weights stay 0.
        both = ((target == 1) & counted).any(2, keepdim=True) & ((target == 0) & counted).any(2, keepdim=True)
        counted = (counted & both).flatten(0, 1)[:, None]
        share = counted.double() / counted.sum(2, keepdim=True).clamp_min(1)
        return cls(target.clamp_min(0).double().repeat(len(parts), 1)[:, None], share, len(columns))

    @property
    def counts(self) -> Tensor:
        """How many examples each of the B regressions has, at least 1: [B]."""
        return (self.share[:, 0] > 0).sum(1).clamp_min(1)

    def take(self, rows: Tensor) -> Self:
        """Select some of the B regressions."""
        return replace(self, target=self.target[rows], share=self.share[rows])

    def to(self, dtype: torch.dtype) -> Self:
        """Change the precision."""
        return replace(self, target=self.target.to(dtype), share=self.share.to(dtype))

    def __call__(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the mean losses float64 [B], and their gradient in the logits [B, 1, n]."""
        loss = ((-logsigmoid(-logits) - logits * self.target) * self.share).sum((1, 2), dtype=torch.float64)
        return loss, (logits.sigmoid() - self.target).mul_(self.share)

    def spread(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what curves the losses at some logits, for _Curvature: as of _Softmax, with K = 1."""
        probability = logits.sigmoid()
        of_example = probability * (1 - probability) * self.share
        one = torch.ones(1, 1, dtype=torch.float64, device=logits.device)
        return of_example[: self.of_part, 0].sum(0), one, of_example.sum(2).double()


@dataclass(frozen=True)
class _Problem:
    """B objectives over weights float64 [B, K, d + 1], which _path() minimises.

    penalty: float64 [B, 1, d + 1], of squared weights, 0 for the intercept; modulus: the same with the curvature that
    is assumed for an intercept.
    """

    inputs: Inputs
    losses: _Softmax | _Sigmoid
    penalty: Tensor
    modulus: Tensor

    @classmethod
    def of(cls, inputs: Inputs, losses: _Softmax | _Sigmoid, ratios: Tensor) -> Self:
        """Set up the problems at C = 1. ratios: [F, d], each part's scale over that of the inputs."""
        squares = ratios.square().repeat_interleave(len(losses.counts) // len(ratios), 0)[:, None]
        penalty = squares / losses.counts[:, None, None]
        return cls(inputs, losses, penalty, penalty).at(1.0)

    def at(self, strength: float) -> Self:
        """Return the problems at a strength of regularisation, from those at C = 1."""
        weights, intercept = (
            self.penalty[..., : self.inputs.x.shape[1]] / strength,
            self.penalty.new_ones(len(self.penalty), 1, 1),
        )
        return replace(
            self,
            penalty=torch.cat([weights, 0 * intercept], 2),
            modulus=torch.cat([weights, INTERCEPT_CURVATURE * intercept], 2),
        )

    def take(self, rows: Tensor) -> Self:
        """Select some of the B problems."""
        return replace(self, losses=self.losses.take(rows), penalty=self.penalty[rows], modulus=self.modulus[rows])

    def rounded(self) -> Self:
        """Return the same problems with products in float32."""
        return replace(self, inputs=self.inputs.rounded(), losses=self.losses.to(torch.float32))

    def value(self, logits: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the objectives [B] at some weights with their logits, and the residuals, for gradient()."""
        loss, residual = self.losses(logits)
        return loss + (self.penalty * w * w).sum((1, 2)) / 2, residual

    def gradient(self, residual: Tensor, w: Tensor) -> Tensor:
        """Compute the gradients in the weights."""
        return self.inputs.sums(residual) + self.penalty * w

    def distance_bound(self, gradient: Tensor) -> Tensor:
        """Bound how far the objectives are above their minima: [B]."""
        return (gradient * gradient / self.modulus).sum((1, 2)) / 2

    def curvature(self, logits: Tensor) -> "_Curvature":
        """Estimate the Hessian at some logits."""
        inputs, of_example, vectors, values = self.inputs, *self.losses.spread(logits)
        x, share = inputs.x, of_example / of_example.sum().clamp_min(1e-30)
        mean = share @ x
        squares, axes = torch.linalg.eigh((x * share[:, None]).T @ x - mean[:, None] * mean)
        values = torch.maximum(values, LEAST_CURVATURE * values.amax(1, keepdim=True))
        return _Curvature(mean, axes, squares.clamp_min(0), vectors.to(x.dtype), values.to(x.dtype), self.penalty)


@dataclass(frozen=True)
class _Curvature:
    """An estimate of B Hessians: that of the losses, as a Kronecker product of axes and classes, and the penalty.

    The losses' Hessian is a mean over examples of x x^T times the covariance of the predicted class; the estimate is
    the product of both means (after Martens and Grosse 2015, arXiv:1503.05671), the first weighted by the trace of the
    second. mean: [d], the examples' weighted mean. axes, squares: [d, d] and [d], eigenvectors and eigenvalues of
    their covariance. vectors, values: [K, K] and [B, K], those over classes. penalty: [B, 1, d + 1], as of _Problem,
    taken for the same along all axes.
    """

    mean: Tensor
    axes: Tensor
    squares: Tensor
    vectors: Tensor
    values: Tensor
    penalty: Tensor

    def take(self, rows: Tensor) -> Self:
        """Select some of the B problems."""
        return replace(self, values=self.values[rows], penalty=self.penalty[rows])

    def solve(self, gradient: Tensor) -> Tensor:
        """Multiply gradients [B, K, d + 1] by the inverse Hessians."""
        turned = self.vectors.T @ gradient.to(self.axes.dtype)
        intercept = turned[..., -1:]
        # Around the weighted mean, weights and intercept do not bend one another.
        slope = (turned[..., :-1] - intercept * self.mean) @ self.axes
        values, penalty = self.values[..., None], self.penalty[..., :-1].mean(2, keepdim=True).to(slope.dtype)
        slope = (slope / (values * self.squares + penalty)) @ self.axes.T
        intercept = intercept / values.clamp_min(INTERCEPT_CURVATURE) - (slope @ self.mean)[..., None]
        return self.vectors @ torch.cat([slope, intercept], 2)


def _path(
    problem: _Problem, strengths: Tensor, tolerance: float, progress: Callable[[int], object]
) -> tuple[Tensor, Tensor, Tensor]:
    """Minimise the objectives at P strengths: the weights [P, B, K, d + 1], the minima and their gaps [P, B]."""
    fast = problem.rounded()
    columns = problem.losses.absent.shape[1] if isinstance(problem.losses, _Softmax) else 1
    w = problem.penalty.new_zeros(len(problem.penalty), columns, problem.penalty.shape[2])
    solution = w.new_zeros(len(strengths), *w.shape)
    objective, gap = w.new_zeros(2, len(strengths), len(w))
    before: tuple[Tensor, Tensor] | None = None
    for done, at in enumerate(strengths.argsort().tolist()):
        progress(done)
        quick, exact = fast.at(float(strengths[at])), problem.at(float(strengths[at]))
        logits = quick.inputs.logits(w)
        start = w, logits
        if before is not None:
            w, logits = _further(quick, *before, w, logits)
        before = start
        curvature = quick.curvature(logits)
        w = _minimise(quick, curvature, w, logits, tolerance / MARGIN, PATIENCE)
        f, residual = exact.value(exact.inputs.logits(w), w)
        above = exact.distance_bound(exact.gradient(residual, w))
        if (left := above > tolerance).any():
            rest = exact.take(left)
            w[left] = _minimise(rest, curvature.take(left), w[left], rest.inputs.logits(w[left]), tolerance, MAX_STEPS)
            f, residual = exact.value(exact.inputs.logits(w), w)
            above = exact.distance_bound(exact.gradient(residual, w))
        solution[at], objective[at], gap[at] = w, f, above
    return solution, objective, gap


def _further(
    problem: _Problem, w_before: Tensor, logits_before: Tensor, w: Tensor, logits: Tensor
) -> tuple[Tensor, Tensor]:
    """Go on from the last two solutions as far as it helps: by their difference, half of it, or not at all."""
    step, along = w - w_before, logits - logits_before
    lengths = (1.0, 0.5, 0.0)
    values = torch.stack([problem.value(logits + length * along, w + length * step)[0] for length in lengths])
    length = values.new_tensor(lengths)[values.argmin(0)][:, None, None]
    return w + length * step, logits + length.to(along.dtype) * along


def _minimise(
    problem: _Problem, curvature: _Curvature, w: Tensor, logits: Tensor, tolerance: float, patience: int
) -> Tensor:
    """Minimise the objectives from weights [B, K, d + 1] and their logits by L-BFGS; return the weights.

    patience: as PATIENCE.
    """
    solution = w.clone()
    active = torch.arange(len(w), device=w.device)
    f, residual = problem.value(logits, w)
    g = problem.gradient(residual, w)
    h = curvature.solve(g)
    pairs = _Pairs.none(h)
    lowest, since = torch.full_like(f, torch.inf), torch.zeros_like(active)
    stalled = torch.zeros_like(active, dtype=torch.bool)
    for _ in range(MAX_STEPS):
        above = problem.distance_bound(g)
        since = torch.where(above < lowest / 2, 0, since + 1)
        lowest = torch.where(since == 0, above, lowest)
        solution[active] = w
        left = ~((above <= tolerance) | stalled | (since > patience))
        if not left.any():
            break
        if not left.all():
            problem, curvature, pairs = problem.take(left), curvature.take(left), pairs.take(left)
            active, w, logits, f, g, h, lowest, since = (x[left] for x in (active, w, logits, f, g, h, lowest, since))
        direction = -pairs.solve(g.to(h.dtype), h).double()
        along = problem.inputs.logits(direction)
        length, f, residual, failed = _line_search(problem, w, logits, f, (g * direction).sum((1, 2)), direction, along)
        # A step that must be this short says that rounding has spoilt the pairs. One that fails without any is the end.
        spoilt = pairs.some & (length[:, 0, 0] < SHORT)
        stalled = failed & ~spoilt
        w = w + length * direction
        logits = logits + length.to(along.dtype) * along
        g_before, h_before, at = g, h, failed[:, None, None]
        g = torch.where(at, g, problem.gradient(residual, w))
        h = torch.where(at, h, curvature.solve(g))
        pairs = pairs.add((length * direction).to(h.dtype), (g - g_before).to(h.dtype), h - h_before).without(spoilt)
    return solution


@dataclass(frozen=True)
class _Pairs:
    """The last m steps [B, m, N] of L-BFGS, the changes of the gradient, and these by the initial inverse Hessian."""

    steps: Tensor
    changes: Tensor
    solved: Tensor

    @classmethod
    def none(cls, like: Tensor) -> Self:
        """Begin without pairs. like: [B, K, d + 1]."""
        empty = like.new_empty(len(like), 0, like[0].numel())
        return cls(empty, empty, empty)

    def take(self, rows: Tensor) -> Self:
        """Select some of the B problems."""
        return type(self)(self.steps[rows], self.changes[rows], self.solved[rows])

    @property
    def some(self) -> Tensor:
        """Where there is any pair: bool [B]."""
        return self.steps.flatten(1).any(1)

    def without(self, rows: Tensor) -> Self:
        """Forget the pairs of some of the B problems: bool [B]."""
        at = rows[:, None, None]
        return type(self)(*(x.masked_fill(at, 0) for x in (self.steps, self.changes, self.solved)))

    def add(self, step: Tensor, change: Tensor, solved: Tensor) -> Self:
        """Append a pair, and forget those beyond MEMORY. One without curvature becomes 0, which changes nothing."""
        bends = (step * change).sum((1, 2), keepdim=True) > 0
        new = (torch.where(bends, x, 0).flatten(1)[:, None] for x in (step, change, solved))
        old = (self.steps, self.changes, self.solved)
        return type(self)(*(torch.cat([x[:, -MEMORY + 1 :], y], 1) for x, y in zip(old, new)))

    def solve(self, g: Tensor, h: Tensor) -> Tensor:
        """Multiply gradients [B, K, d + 1] by the inverse Hessians; h: the initial ones times the gradients.

        Equation 2.6 of Byrd, Nocedal and Schnabel 1994, with any initial matrix.
        """
        if not self.steps.shape[1]:
            return h
        flat = g.flatten(1)[..., None]
        products = self.steps @ self.changes.transpose(1, 2)
        bend = products.diagonal(dim1=1, dim2=2)
        upper = products.triu() + torch.diag_embed((bend == 0).to(bend.dtype))
        inner = bend.diag_embed() + self.changes @ self.solved.transpose(1, 2)
        p = torch.linalg.solve_triangular(upper, self.steps @ flat, upper=True)
        q = torch.linalg.solve_triangular(upper.transpose(1, 2), inner @ p - self.solved @ flat, upper=False)
        correction: Tensor = self.steps.transpose(1, 2) @ q - self.solved.transpose(1, 2) @ p
        return h + correction[..., 0].view_as(h)


def _line_search(
    problem: _Problem, w: Tensor, logits: Tensor, f: Tensor, slope: Tensor, direction: Tensor, along: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Shorten each step until its objective falls enough (Armijo), as far as the precision can tell.

    slope: [B], of the objectives along the direction; along: the change of the logits. Returns the length [B, 1, 1], 0
    where no step was short enough, the objectives there and their residuals, and where that is.
    """
    noise = 8 * torch.finfo(along.dtype).eps * (1 + f.abs())
    length = torch.ones_like(f)[:, None, None]
    for _ in range(MAX_TRIALS):
        reached, residual = problem.value(logits + length.to(along.dtype) * along, w + length * direction)
        expected = length[:, 0, 0] * slope
        long = ~(reached <= f + 1e-4 * expected + noise)
        if not long.any():
            break
        # The minimum of the parabola through both ends with the slope at the first.
        shorter = (-expected / (2 * (reached - f - expected))).nan_to_num(0.1).clamp(0.1, 0.5)
        length = torch.where(long[:, None, None], length * shorter[:, None, None], length)
    return torch.where(long[:, None, None], 0, length), torch.where(long, f, reached), residual, long
