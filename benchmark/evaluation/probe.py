"""Linear classifiers on frozen features: logistic regression over a path of regularisation, and ridge regression.

Both work on features that are centred and rotated to their principal axes. The solution is the same: the intercept is
not penalised, the penalty does not depend on the axes, and the weights lie in the span of the examples. But there are
never more axes than examples, and the curvature of the squared error is diagonal. Everything is float64, because the
objective is compared between steps, and float32 scores of rare classes saturate.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, one_hot

from benchmark.common.errors import BenchError
from benchmark.evaluation.encoder import exact
from benchmark.evaluation.evaluation import Evaluation

Stage = Literal["before", "after"]
"""Which output of the encoder: features before the projection into the shared space, or embeddings after it."""
TOLERANCE = 1e-6
"""Nats per example: logistic_path() stops when the gradient bounds the distance to the minimum by this."""
INTERCEPT_CURVATURE = 1e-4
"""The least curvature along an intercept that this bound assumes; along a weight it is the penalty's."""
MEMORY = 40
"""Pairs of steps and gradient changes that L-BFGS keeps."""
MAX_STEPS = 1000
MAX_HALVINGS = 40
"""The most halvings of a step in the line search."""


@dataclass(frozen=True)
class Labelled:
    """The images of a split in the order of their ids, so that no result depends on the order of the files.

    ids, groups: str [n]; features: float64 [n, d]; label: int64 [n], or [n, K] when multi-label, -1 unknown; both on
    the evaluation's device.
    """

    ids: np.ndarray
    groups: np.ndarray
    features: Tensor
    label: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: np.ndarray) -> Self:
        """Select rows by their indices int [m]."""
        at = torch.from_numpy(rows).to(self.features.device)
        return type(self)(self.ids[rows], self.groups[rows], self.features[at], self.label[at])


def labelled(data: Evaluation, split: str, stage: Stage) -> Labelled:
    """Load all images of a split, with or without a known label."""
    records, encoded = data.records(split), data.images(split)
    order = np.argsort(np.array(records.ids))
    features = (encoded.features if stage == "before" else encoded.embeddings)[order]
    return Labelled(
        np.array(records.ids)[order],
        np.array(records.groups)[order],
        exact(features, data.device),
        torch.from_numpy(np.array(records.label[order], dtype=np.int64)).to(data.device),
    )


def known(data: Evaluation, split: str, stage: Stage) -> Labelled:
    """Load the images of a split that have a known label (of any finding, when multi-label).

    Raises ``BenchError`` when none has.
    """
    images = labelled(data, split, stage)
    usable = images.label >= 0
    rows = np.flatnonzero((usable.any(1) if usable.ndim == 2 else usable).cpu().numpy())
    if not len(rows):
        raise BenchError(f"dataset '{data.card.name}', {split}: none of {len(images)} images has a known label")
    return images.take(rows)


def deviation(features: Tensor) -> Tensor:
    """Compute the standard deviation [d] over examples [n, d]; 1 where a feature varies by float32 rounding alone."""
    spread = features.std(0, correction=0)
    return torch.where(spread > 1e-6 * features.abs().amax(0), spread, 1.0)


def majority_accuracy(train: Tensor, test: Tensor) -> float:
    """Compute the share of the known labels of test that are train's most common class.

    Labels [n], or, multi-label, [n, K]: the mean over the findings that test knows.
    """
    if train.ndim == 2:
        shares = [majority_accuracy(*columns) for columns in zip(train.T, test.T) if (columns[1] >= 0).any()]
        return float(np.mean(shares))
    count = train[train >= 0].bincount()
    right = test[test >= 0] == (count.argmax() if len(count) else 0)
    return float(right.double().mean())


def rare_classes(data: Evaluation, below: int) -> frozenset[str]:
    """List the classes that the card makes rare, or else those with fewer than ``below`` examples in train.

    None without a train split, or where all are rare. All parts that are drawn of a set have the same rare classes.
    """
    if made_rare := frozenset(data.card.source.keep):
        return made_rare if len(made_rare) < len(data.classes) else frozenset()
    if "train" not in data.splits():
        return frozenset()
    label = np.array(data.dataset.column("train", "label", whole=True))
    if data.card.multi_label:
        support = (label == 1).sum(axis=0)
    else:
        support = np.bincount(label[label >= 0], minlength=len(data.classes))
    rare = frozenset(name for name, count in zip(data.classes, support) if count < below)
    return rare if len(rare) < len(data.classes) else frozenset()


@dataclass(frozen=True)
class Path:
    """Linear classifiers at P strengths of regularisation: weight float64 [P, K, d], intercept [P, K].

    objective: [P] (softmax) or [P, K] (one sigmoid per finding), the minimum that was reached; gap: likewise, how far
    above the true minimum it can be (see TOLERANCE).
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
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Path:
    """Fit logistic regression at all ``strengths`` of regularisation at once.

    features: [n, d]. label: int64 [n] in 0..classes-1, or, multi-label, [n, classes] of 0, 1 and -1 (unknown).
    strengths: P values of C as scikit-learn's ``LogisticRegression(C=...)`` defines it: what is minimised is
    C x (sum over examples of the log loss) + |weight|^2 / 2, the intercept left out of the penalty; ``objective`` is
    that divided by C x n. Three classes or more: softmax. Two classes: one sigmoid for the second against the first.
    Multi-label: one sigmoid per finding, over the examples whose label is known.

    A class without examples gets the logit minus infinity; a finding whose known labels are all the same gets 0.
    progress: called with the number of strengths that are solved, and of all.

    The solver is batched L-BFGS (Liu and Nocedal 1989, https://doi.org/10.1007/BF01589116) from zero, all strengths in
    one matrix product. Its initial Hessian is diagonal on the principal axes: penalty + c x variance. At zero this is
    exact; then c follows from the curvature along the last step. Logits are linear in the step, so the line search
    needs no matrix product.
    """
    features = features.double()
    weight = features.new_zeros(len(strengths), classes, features.shape[1])
    intercept = features.new_zeros(len(strengths), classes)
    fitted, target, absent = _targets(label, classes)
    intercept[:, absent] = -torch.inf
    if not len(fitted):
        objective = features.new_zeros(len(strengths))
        return Path(weight, intercept, objective, objective)
    softmax = label.ndim == 1 and len(fitted) > 2
    mean, scores, axes, squares = principal_axes(features)
    of_strengths = features.new_tensor(strengths)
    solution, objective, gap = _minimise(scores, squares, target.T, softmax, of_strengths, tolerance, progress)
    weight[:, fitted] = solution[..., :-1] @ axes.T
    intercept[:, fitted] = solution[..., -1] - weight[:, fitted] @ mean
    if label.ndim == 1:
        return Path(weight, intercept, objective[:, 0], gap[:, 0])
    return Path(weight, intercept, objective, gap)


def _targets(label: Tensor, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Choose the columns to fit: their indices [F], their targets [n, F], and the classes without examples, bool [K].

    Of two classes the second is fitted; of findings, those that are both known present and known absent.
    """
    absent = torch.zeros(classes, dtype=torch.bool, device=label.device)
    if label.ndim == 2:
        fitted = ((label == 0).any(0) & (label == 1).any(0)).nonzero()[:, 0]
        return fitted, label[:, fitted], absent
    present, target = torch.unique(label, return_inverse=True)
    absent[:] = True
    absent[present] = False
    if len(present) > 2:
        return present, one_hot(target), absent
    return present[1:], target[:, None][:, : len(present) - 1], absent


def ridge(
    features: Tensor, target: Tensor, strengths: Sequence[float], *, together: bool = True
) -> tuple[Tensor, Tensor]:
    """Fit ridge regression in closed form, its regularisation chosen by the leave-one-out error.

    features: [n, d]; target: float [n, K]. Minimises |target - features @ weight.T - intercept|^2 + penalty |weight|^2,
    where penalty = strength x the mean over the principal axes of the features' sum of squares. The strength is the one
    with the smallest squared error on examples left out of the fit one at a time (PRESS; Allen 1974,
    https://doi.org/10.1080/00401706.1974.10489157), the largest when several tie: of all K columns ``together``, or of
    each. Returns weight float64 [K, d] and intercept [K].
    """
    features, target = features.double(), target.double()
    mean, scores, axes, squares = principal_axes(features)
    offset = target.mean(0)
    if not len(squares):
        return features.new_zeros(target.shape[1], features.shape[1]), offset
    penalties = features.new_tensor(sorted(strengths, reverse=True))[:, None] * squares.mean()
    coefficients = scores.T @ (target - offset) / (squares + penalties)[..., None]
    leverage = 1 / len(features) + (1 / (squares + penalties)) @ scores.square().T
    residual = (target - offset - scores @ coefficients) / (1 - leverage)[..., None]
    error = residual.square().sum(1)
    if together:
        error = error.sum(1, keepdim=True).expand_as(error)
    best = (error <= error.amin(0) * (1 + 1e-9)).int().argmax(0)
    weight = (axes @ coefficients[best, :, torch.arange(len(best), device=best.device)].T).T
    return weight, offset - weight @ mean


def principal_axes(features: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Decompose features [n, d] = mean [d] + scores [n, r] @ axes [d, r].T, with r <= min(n, d).

    Axes are orthonormal; columns of the scores are orthogonal, and their sums of squares [r] are returned last. Axes
    along which nothing varies are left out.
    """
    mean = features.mean(0)
    centred = features - mean
    wide = features.shape[1] > len(features)
    squares, vectors = torch.linalg.eigh(centred @ centred.T if wide else centred.T @ centred)
    kept = squares > squares[-1].clamp_min(1e-300) * len(squares) * torch.finfo(squares.dtype).eps
    squares, vectors = squares[kept], vectors[:, kept]
    if wide:
        return mean, vectors * squares.sqrt(), centred.T @ (vectors / squares.sqrt()), squares
    return mean, centred @ vectors, vectors, squares


def _minimise(
    scores: Tensor,
    squares: Tensor,
    target: Tensor,
    softmax: bool,
    strengths: Tensor,
    tolerance: float,
    progress: Callable[[int, int], object],
) -> tuple[Tensor, Tensor, Tensor]:
    """Minimise the objectives of logistic_path() by L-BFGS, on the principal axes.

    scores [n, r] and their sums of squares [r]: as of principal_axes(). target: [K, n] of 0, 1 and -1 (unknown).
    Returns the solution [P, K, r + 1] with the intercept last, objective and gap [P, K], or [P, 1] for a softmax, which
    couples the K columns.
    """
    problem = _Problem.of(scores, squares, target, softmax, strengths)
    w = scores.new_zeros(len(strengths), len(target), len(problem.variance))
    logits = scores.new_zeros(len(strengths), len(target), len(scores))
    f, g = problem.value(logits, w), problem.gradient(logits, w)
    solution, objective, gap = w.clone(), f.clone(), torch.full_like(f, torch.inf)
    c = torch.full_like(f, 1 / len(target) if softmax else 1 / 4)
    steps: list[Tensor] = []
    changes: list[Tensor] = []
    stalled = torch.zeros_like(f, dtype=torch.bool)
    active = torch.arange(len(strengths), device=scores.device)
    for _ in range(MAX_STEPS):
        above = problem.distance_bound(g)
        solution[active], objective[active], gap[active] = w, f, above
        done = (above <= tolerance) | stalled
        left = ~done.all(1)[:, 0]
        if not left.any():
            break
        if not left.all():
            problem, active, done = problem.take(left), active[left], done[left]
            w, logits, f, g, c, stalled = (x[left] for x in (w, logits, f, g, c, stalled))
            steps, changes = [s[left] for s in steps], [y[left] for y in changes]
        progress(len(strengths) - len(active), len(strengths))

        direction = torch.where(done, 0, problem.direction(g, steps, changes, c))
        along = direction @ problem.inputs.T
        length, f, short = problem.line_search(logits, w, f, g, direction, along)
        stalled = stalled | short
        step = length * direction
        w, logits = w + step, logits + length * along
        g, g_before = problem.gradient(logits, w), g
        steps, changes = [*steps, step][-MEMORY:], [*changes, g - g_before][-MEMORY:]
        c = problem.curvature(step, changes[-1], c)
    return solution, objective[..., 0], gap[..., 0]


@dataclass(frozen=True)
class _Problem:
    """P objectives over weights [P, K, r + 1], as _minimise() solves them at once.

    inputs: [n, r + 1], the scores and a column of ones. variance: [r + 1], of the inputs. target: [K, n] in 0..1.
    share: [K, n], what each example counts. penalty: [P, K or 1, r + 1], on squared weights, 0 for the intercept;
    modulus: the same with the curvature that is assumed for an intercept.
    """

    inputs: Tensor
    variance: Tensor
    target: Tensor
    share: Tensor
    penalty: Tensor
    modulus: Tensor
    softmax: bool

    @classmethod
    def of(cls, scores: Tensor, squares: Tensor, target: Tensor, softmax: bool, strengths: Tensor) -> Self:
        """Set up the problem from the arguments of _minimise()."""
        known = target >= 0
        count = known.sum(1, keepdim=True)[: 1 if softmax else None]
        variance = torch.cat([squares / len(scores), squares.new_ones(1)])
        penalty = (1 / (strengths[:, None, None] * count)).repeat(1, 1, len(variance))
        penalty[..., -1] = 0
        modulus = penalty.clone()
        modulus[..., -1] = INTERCEPT_CURVATURE
        inputs = torch.cat([scores, scores.new_ones(len(scores), 1)], 1)
        return cls(inputs, variance, target.clamp_min(0).double(), known.double() / count, penalty, modulus, softmax)

    def take(self, rows: Tensor) -> Self:
        """Select some of the P objectives: bool [P]."""
        return replace(self, penalty=self.penalty[rows], modulus=self.modulus[rows])

    def dot(self, a: Tensor, b: Tensor) -> Tensor:
        """Multiply weights of each objective: [P, K, 1], or [P, 1, 1] for a softmax."""
        return (a * b).sum((1, 2) if self.softmax else (2,), keepdim=True)

    def value(self, logits: Tensor, w: Tensor) -> Tensor:
        """Compute the objectives at logits [P, K, n] and their weights."""
        if self.softmax:
            losses = (logits.logsumexp(1) - (logits * self.target).sum(1))[:, None] * self.share[:1]
        else:
            losses = (-logsigmoid(-logits) - logits * self.target) * self.share
        return losses.sum(2, keepdim=True) + self.dot(self.penalty * w, w) / 2

    def gradient(self, logits: Tensor, w: Tensor) -> Tensor:
        """Compute the gradient in the weights."""
        probability = logits.softmax(1) if self.softmax else logits.sigmoid()
        return ((probability - self.target) * self.share) @ self.inputs + self.penalty * w

    def distance_bound(self, gradient: Tensor) -> Tensor:
        """Bound how far the objectives are above their minima."""
        return self.dot(gradient, gradient / self.modulus) / 2

    def direction(self, gradient: Tensor, steps: list[Tensor], changes: list[Tensor], c: Tensor) -> Tensor:
        """Multiply the negative gradient by the inverse Hessian of L-BFGS (its two-loop recursion)."""
        direction = -gradient
        shares: list[Tensor] = []
        for s, y in zip(reversed(steps), reversed(changes)):
            shares.append(_ratio(self.dot(s, direction), self.dot(s, y)))
            direction = direction - shares[-1] * y
        direction = direction / (c * self.variance + self.penalty)
        for s, y, a in zip(steps, changes, reversed(shares)):
            direction = direction + (a - _ratio(self.dot(y, direction), self.dot(s, y))) * s
        return direction

    def line_search(
        self, logits: Tensor, w: Tensor, f: Tensor, g: Tensor, direction: Tensor, along: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Halve each step until its objective falls enough (Armijo).

        along: the change of the logits with the direction. Returns the length, 0 where no step was short enough, the
        objectives there, and where that is.
        """
        slope = self.dot(g, direction)
        length = torch.ones_like(f)
        for _ in range(MAX_HALVINGS):
            reached = self.value(logits + length * along, w + length * direction)
            short = reached > f + 1e-4 * length * slope
            if not short.any():
                break
            length = torch.where(short, length / 2, length)
        return torch.where(short, 0, length), torch.where(short, f, reached), short

    def curvature(self, step: Tensor, change: Tensor, c: Tensor) -> Tensor:
        """Estimate c, the curvature of the losses over the variance, along a step; ``c`` where it is not positive."""
        bent = self.dot(step, change) - self.dot(self.penalty * step, step)
        return torch.where(bent > 0, _ratio(bent, self.dot(self.variance * step, step)), c)


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """Divide a by b; 0 where b is not positive, so that a pair of L-BFGS without curvature is skipped."""
    return torch.where(b > 0, a / b, 0)
