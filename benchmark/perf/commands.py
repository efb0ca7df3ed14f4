"""Commands of peers and of limits, for a process of their own: they import nothing of the harness.

``python -m benchmark.perf.commands encode_once|clip_benchmark ARGUMENTS``.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def clip_benchmark(features: str, model: str, batch: str, workers: str, *sets: str) -> None:
    """Run three tasks of clip_benchmark on sets in tar shards, as its command line does, in one process.

    features: the folder of the probe's features and of the scores. workers: of the loader of images; the probe has
    none, as it would start them anew for each epoch over its features.
    """
    import torch
    from clip_benchmark import cli

    for module in (cli.zeroshot_classification, cli.linear_probe):
        module.accuracy = _accuracy
    if not torch.cuda.is_available():
        _probe_on_cpu(cli)
    Path(features).mkdir(exist_ok=True)
    names = [f"wds/{name}" for name in sets]
    common = ["--dataset", *names, "--model", model, "--pretrained", "", "--batch_size", batch, "--no_amp"]
    common += ["--feature_root", features, "--output", f"{features}/{{dataset}}_{{task}}.json"]
    for task, kind, options in (
        ("zeroshot_classification", "classification", ["--num_workers", workers]),
        ("zeroshot_retrieval", "retrieval", ["--num_workers", workers, "--recall_k", "1", "5", "10"]),
        ("linear_probe", "classification", ["--num_workers", "0", "--train_split", "train", "--val_split", "val"]),
    ):
        root = ["--dataset_root", f"{kind}/{{dataset}}", "--task", task]
        sys.argv = ["clip_benchmark", "eval", *common, *root, *options]
        cli.main()


def _accuracy(output: Any, target: Any, topk: Sequence[int] = (1,)) -> list[float]:
    """Compute what clip_benchmark's own function does, which NumPy 2 refuses."""
    best = output.topk(max(topk), 1)[1]
    correct = best == target.view(-1, 1)
    return [correct[:, :k].sum().item() / len(target) for k in topk]


def _probe_on_cpu(cli: Any) -> None:
    """Let the probe of clip_benchmark, which asks for a GPU, run without one."""
    import torch

    class Device(str):
        """The CPU, to torch; a GPU, where clip_benchmark compares its name."""

        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            return other == "cuda" or str.__eq__(self, other)

    def evaluate(*arguments: Any, device: str, **options: Any) -> Any:
        return original(*arguments, device=Device(device), **options)

    original, cli.linear_probe.evaluate = cli.linear_probe.evaluate, evaluate
    of_cuda: Any
    for of_cuda in (torch.Tensor, torch.nn.Module):
        of_cuda.cuda = lambda self: self


def encode_once(model: str, *sets: str) -> None:
    """Decode each image of sets in tar shards and encode it, and each text, once."""
    import io
    import tarfile

    import open_clip
    import torch
    from PIL import Image

    encoder, _, transform = open_clip.create_model_and_transforms(model)
    encoder.eval()
    tokenize = open_clip.get_tokenizer(model)
    images: list[torch.Tensor] = []
    texts: list[str] = []

    @torch.no_grad()
    def flush() -> None:
        encoder.encode_image(torch.stack(images))
        encoder.encode_text(tokenize(texts))
        images.clear()
        texts.clear()

    for name in sets:
        for shard in sorted(Path("classification", name).glob("*/*.tar")):
            with tarfile.open(shard) as tar:
                for member in tar:
                    data = tar.extractfile(member)
                    assert data
                    if member.name.endswith(".jpg"):
                        with Image.open(io.BytesIO(data.read())) as file:
                            images.append(transform(file))
                    elif member.name.endswith(".txt"):
                        texts.append(data.read().decode())
                    if len(images) == len(texts) == 64:
                        flush()
    if images:
        flush()


def main(arguments: Sequence[str]) -> None:
    """Run a command by its name."""
    name, *rest = arguments
    if name == "clip_benchmark":
        clip_benchmark(*rest)
    else:
        encode_once(*rest)


if __name__ == "__main__":
    main(sys.argv[1:])
