"""Published models with random weights, narrow, in files of exactly their layout, and what their own code computes.

Each writer puts the files where the shipped card looks for them and returns the card, with narrower numbers where they
are not those of a file, and the outputs of the model by the formulas of its published code.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    CLIPImageProcessor,
    PreTrainedTokenizerFast,
    SiglipImageProcessor,
    SwinConfig,
    SwinModel,
)

from benchmark.models.published import FOLDER, PublishedModel, Source, load_published
from tests.evaluation.folders import clip_folder

LISTED = "[PAD] [UNK] [CLS] [SEP] [MASK] a the lung liver of with no finding shows nodule ##s small chest image"
WORDS = LISTED.split()
TEXTS = ["a chest image", "no finding", "the lung shows a small nodule with no finding of the liver"]
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SIZE = 64


class Written(NamedTuple):
    """card: of the files that were written. images, texts: what the model's own code makes of them, of unit length."""

    card: PublishedModel
    images: Callable[[Sequence[Image.Image]], Tensor]
    texts: Callable[[Sequence[str]], Tensor]


class Place:
    """A hub's cache and a folder of models of a test's own."""

    def __init__(self, folder: Path, monkeypatch: Any) -> None:
        self.cache, self.models = folder / "hub", folder / "models"
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(self.cache))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        monkeypatch.setattr("benchmark.models.published.hub_answers", lambda: False)
        monkeypatch.setattr("benchmark.models.weights.hub_answers", lambda: False)
        monkeypatch.setenv(FOLDER, str(self.models))

    def of(self, card: PublishedModel, number: int = 0) -> Path:
        """Make the folder that ``hf download`` makes for a source, or that the steps of a page name."""
        source: Source = card.sources[number]
        if source.page:
            folder = self.models / card.name
        else:
            kind = "datasets" if source.dataset else "models"
            top = self.cache / f"{kind}--{source.repository.replace('/', '--')}"
            commit = source.revision or "0123456789abcdef0123456789abcdef01234567"
            if not source.revision:
                (top / "refs").mkdir(parents=True, exist_ok=True)
                (top / "refs" / "main").write_text(commit)
            folder = top / "snapshots" / commit
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def bert(folder: Path, layers: int = 2) -> BertConfig:
    """Write the configuration and the vocabulary of a BERT."""
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=300,
    )
    config.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    return config


def tokens(folder: Path, texts: Sequence[str], length: int, padding: str = "longest") -> Any:
    """Tokenise texts with the tokenizer of a folder."""
    backend = BertTokenizer(str(folder / "vocab.txt"))
    return backend(list(texts), padding=padding, truncation=True, max_length=length, return_tensors="pt")


def shortest(size: int, interpolation: Any) -> Callable[[Sequence[Image.Image]], Tensor]:
    """Make open_clip's and torchvision's preparation for evaluation, without normalisation."""
    from torchvision.transforms import CenterCrop, Compose, Resize, ToTensor

    prepare = Compose([Resize(size, interpolation), CenterCrop(size), ToTensor()])
    return lambda pictures: torch.stack([prepare(picture.convert("RGB")) for picture in pictures])


def normalised(x: Tensor, mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> Tensor:
    return (x - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)


def unit(x: Tensor) -> Tensor:
    return F.normalize(x, dim=-1)


def random(model: nn.Module) -> Any:
    """Give every parameter of a model a value that matters; statistics of norms too."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            positive = name.endswith(("running_var", "norm.weight")) or (name.endswith("weight") and tensor.ndim == 1)
            tensor.copy_(torch.rand_like(tensor) + 0.5 if positive else torch.randn_like(tensor) * 0.1)
    return model.eval()


def checkpoint(path: Path, state: dict[str, Tensor]) -> None:
    """Write what a training with NumPy's losses leaves: names begin with module., numbers are NumPy's."""
    saved = {f"module.{name}": tensor for name, tensor in state.items()}
    torch.save({"epoch": 3, "loss": np.float64(0.25), "name": "run", "state_dict": saved}, path)


OPEN_CLIP_VIT = {"image_size": SIZE, "patch_size": 16, "width": 32, "layers": 2, "head_width": 16}
OPEN_CLIP_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}


def of_open_clip(name: str, place: Place) -> Written:
    """QuiltNet, BMC-CLIP, MedPMC-CLIP and MobileCLIP: a CLIP of open_clip's own classes with CLIP's tokenizer."""
    card = load_published(name)
    folder = place.of(card)
    config: dict[str, Any] = {"embed_dim": 20, "vision_cfg": OPEN_CLIP_VIT, "text_cfg": OPEN_CLIP_TEXT}
    prepare, mean, std = shortest(SIZE, 3), MEAN, STD
    if name == "mobileclip":
        config["vision_cfg"] = {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "avg", "timm_proj": None}
        config |= {"embed_dim": 64, "text_cfg": OPEN_CLIP_TEXT | {"no_causal_mask": True}}
        prepare, mean, std = shortest(160, 2), (0.0,) * 3, (1.0,) * 3
    classes = {True: open_clip.CustomTextCLIP, False: open_clip.CLIP}
    model: Any = random(classes[name == "mobileclip"](**config))
    (file,) = (names.split("|")[-1].strip() for names in card.sources[0].files if "config" not in names)
    state = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    if name == "bmc-clip":
        checkpoint(folder / file, state)
    elif file.endswith(".safetensors"):
        save_file(state, folder / file)
    else:
        torch.save(state, folder / file)
    if name == "quiltnet":
        document = {"model_cfg": config, "preprocess_cfg": {"mean": MEAN, "std": STD}}
        (folder / "open_clip_config.json").write_text(json.dumps(document))
    else:
        card = narrowed(card, architecture=None, config=config)
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    return Written(
        card,
        lambda pictures: model.encode_image(normalised(prepare(pictures), mean, std), normalize=True),
        lambda texts: model.encode_text(tokenizer(list(texts)), normalize=True),
    )


def narrowed(card: PublishedModel, **changes: Any) -> PublishedModel:
    return card.model_copy(update={"load": card.load.model_copy(update=changes)})


def with_bert(name: str, place: Place) -> Written:
    """BiomedCLIP, Open-PMC-18M and UniMed-CLIP: an image tower of open_clip and a BERT with an MLP."""
    card = load_published(name)
    folder, text_folder = place.of(card), place.of(card, 1)
    bert(text_folder)
    text = {
        "hf_model_name": card.sources[1].repository,
        "hf_proj_type": "mlp",
        "hf_pooler_type": "cls_last_hidden_state_pooler",
        "context_length": 256,
    }
    timm = {"timm_model_name": "test_vit", "timm_model_pretrained": False, "timm_pool": "", "timm_proj": "linear"}
    config: dict[str, Any] = {"embed_dim": 20, "vision_cfg": timm | {"image_size": 160}, "text_cfg": text}
    size = 160
    if name == "unimed-clip":
        config |= {"quick_gelu": True, "vision_cfg": OPEN_CLIP_VIT}
        size = SIZE
    own = config | {"text_cfg": text | {"hf_model_name": str(text_folder), "hf_model_pretrained": False}}
    model: Any = random(open_clip.CustomTextCLIP(**own))
    state = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    # Of older versions of transformers.
    counts = {"text.transformer.embeddings.position_ids": torch.arange(300)[None]}
    if name == "unimed-clip":
        renamed = {key.replace("text.", "text_encoder.", 1): x for key, x in (state | counts).items()}
        checkpoint(folder / "unimed_clip_vit_b16.pt", renamed)
        card = narrowed(card, config=config)
    else:
        torch.save(state | counts, folder / "open_clip_pytorch_model.bin")
        if name == "biomedclip":
            # Its copies from before 2024 have the older names of these keys.
            config["text_cfg"] = {key.removeprefix("hf_") if "_type" in key else key: x for key, x in text.items()}
            config["text_cfg"]["proj"] = config["text_cfg"].pop("proj_type")
            (folder / "vocab.txt").write_text("\n".join(WORDS))
            BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
        document = {"model_cfg": config, "preprocess_cfg": {"mean": MEAN, "std": STD}}
        (folder / "open_clip_config.json").write_text(json.dumps(document))
    prepare = shortest(size, 3)

    def texts(texts: Sequence[str]) -> Tensor:
        return model.encode_text(tokens(text_folder, texts, 256, "max_length").input_ids, normalize=True)

    def images(pictures: Sequence[Image.Image]) -> Tensor:
        return model.encode_image(normalised(prepare(pictures)), normalize=True)

    return Written(card, images, texts)


def of_transformers(name: str, place: Place) -> Written:
    """PubMedCLIP, MedSigLIP and SigLIP 2: folders of transformers."""
    card = load_published(name)
    folder = place.of(card)
    kind = "clip" if name == "pubmedclip" else "siglip"
    model = clip_folder(folder, kind)
    processor: Any
    if kind == "clip":
        processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    else:
        resample = 3 if name == "medsiglip" else 2
        processor = SiglipImageProcessor(size={"height": 32, "width": 32}, resample=resample)
    processor.save_pretrained(folder)
    backend = PreTrainedTokenizerFast.from_pretrained(folder)
    if name == "medsiglip":
        # Its class needs the package sentencepiece, which is not among the harness's.
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer_class": "SiglipTokenizer"}))
    if name == "siglip2":
        # As the repository's own, it tells upper from lower case.
        backend.backend_tokenizer.normalizer = None
        backend.save_pretrained(folder)

    def images(pictures: Sequence[Image.Image]) -> Tensor:
        pixels = processor([picture.convert("RGB") for picture in pictures], return_tensors="pt")["pixel_values"]
        features = model.get_image_features(pixel_values=pixels)
        return unit(getattr(features, "pooler_output", features))

    def texts(texts: Sequence[str]) -> Tensor:
        texts = [text.lower() for text in texts] if name == "siglip2" else list(texts)
        padding = "longest" if kind == "clip" else "max_length"
        ids = backend(texts, padding=padding, truncation=True, max_length=12, return_tensors="pt")
        mask = {"attention_mask": ids.attention_mask} if kind == "clip" else {}
        features = model.get_text_features(input_ids=ids.input_ids, **mask)
        return unit(getattr(features, "pooler_output", features))

    return Written(card, images, texts)


def medclip(name: str, place: Place) -> Written:
    """MedCLIP: medclip/modeling_medclip.py and medclip/dataset.py of RyanWangZf/MedCLIP."""
    card = load_published(name)
    config = bert(place.of(card, 1), layers=3)
    shape = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4], "window_size": 2, "image_size": SIZE}
    SwinConfig(**shape).save_pretrained(place.of(card, 2))
    vision, text = random(SwinModel(SwinConfig(**shape))), random(BertModel(config))
    projections = torch.randn(512, 64), torch.randn(512, 16)
    older = (
        ("attention.q_proj", "attention.self.query"),
        ("attention.k_proj", "attention.self.key"),
        ("attention.v_proj", "attention.self.value"),
        ("attention.o_proj", "attention.output.dense"),
        ("attention.relative_position_bias.", "attention.self."),
        ("mlp.fc1", "intermediate.dense"),
        ("mlp.fc2", "output.dense"),
    )
    state = {"logit_scale": torch.tensor(2.5), "text_model.model.embeddings.position_ids": torch.arange(300)[None]}
    for key, tensor in vision.state_dict().items():
        for new, old in older:
            key = key.replace(new, old)
        state[f"vision_model.model.{key}"] = tensor
    block = "vision_model.model.encoder.layers.0.blocks.0.attention.self."
    state[f"{block}relative_position_index"] = torch.zeros(4, 4, dtype=torch.long)
    state |= {f"text_model.model.{key}": tensor for key, tensor in text.state_dict().items()}
    state["vision_model.projection_head.weight"], state["text_model.projection_head.weight"] = projections
    torch.save(state, place.of(card) / "pytorch_model.bin")

    def images(pictures: Sequence[Image.Image]) -> Tensor:
        pixels = []
        for picture in pictures:
            side = max(SIZE, *picture.size)
            square = Image.new("L", (side, side), 0)
            square.paste(picture, (int((side - picture.width) / 2), int((side - picture.height) / 2)))
            small = np.array(square.resize((SIZE, SIZE), Image.Resampling.BICUBIC)) / 255
            grey = (torch.tensor(small)[None] - 0.5862785803043838) / 0.27950088968644304
            pixels.append(grey.float().repeat(3, 1, 1))
        return unit(vision(torch.stack(pixels)).pooler_output @ projections[0].T)

    def texts(texts: Sequence[str]) -> Tensor:
        embeddings = []
        for each in texts:  # alone: its code averages over padding too
            out = text(**tokens(place.of(card, 1), [each], 77), output_hidden_states=True).hidden_states
            states = torch.stack([out[1], out[2], out[-1]]).permute(1, 0, 2, 3)
            embeddings.append(states.mean(2).mean(1) @ projections[1].T)
        return unit(torch.cat(embeddings))

    return Written(card, images, texts)


def pmc_clip(name: str, place: Place) -> Written:
    """PMC-CLIP: src/pmc_clip/model/pmc_clip.py and blocks.py of WeixiongLin/PMC-CLIP."""
    width, layers, embed_dim = 8, [1, 2, 1, 1], 12
    card = narrowed(load_published(name), image_size=SIZE, width=width, layers=layers, embed_dim=embed_dim)
    config = bert(place.of(card, 1))
    text = random(BertModel(config))
    state: dict[str, Tensor] = {}

    def add(key: str, *shape: int) -> Tensor:
        state[key] = torch.randn(shape) * 0.1
        return state[key]

    def norm(key: str, channels: int) -> None:
        for part in ("weight", "running_var"):
            state[f"{key}.{part}"] = torch.rand(channels) + 0.5
        for part in ("bias", "running_mean"):
            add(f"{key}.{part}", channels)
        state[f"{key}.num_batches_tracked"] = torch.tensor(7)

    for number, (before, after) in enumerate(((3, width // 2), (width // 2, width // 2), (width // 2, width)), start=1):
        add(f"visual.conv{number}.weight", after, before, 3, 3)
        norm(f"visual.bn{number}", after)
    channels, blocks = width, []
    for stage, count in enumerate(layers):
        planes = width * 2**stage
        for number in range(count):
            block = f"visual.layer{stage + 1}.{number}"
            stride = 2 if stage and not number else 1
            blocks.append((block, stride, stride > 1 or channels != planes * 4))
            for conv, shape in (
                ("1", (planes, channels, 1, 1)),
                ("2", (planes, planes, 3, 3)),
                ("3", (planes * 4, planes, 1, 1)),
            ):
                add(f"{block}.conv{conv}.weight", *shape)
                norm(f"{block}.bn{conv}", shape[0])
            if blocks[-1][2]:
                add(f"{block}.downsample.0.weight", planes * 4, channels, 1, 1)
                norm(f"{block}.downsample.1", planes * 4)
            channels = planes * 4
    add("visual.attnpool.positional_embedding", (SIZE // 32) ** 2 + 1, channels)
    for part, outputs in (("q", channels), ("k", channels), ("v", channels), ("c", embed_dim)):
        # Of queries and keys that attend to some places more than to others.
        add(f"visual.attnpool.{part}_proj.weight", outputs, channels).mul_(5 if part in "qk" else 1)
        add(f"visual.attnpool.{part}_proj.bias", outputs)
    projection = add("text_projection", config.hidden_size, embed_dim)
    state |= {f"text_encoder.{key}": tensor for key, tensor in text.state_dict().items()}
    state["text_encoder.embeddings.position_ids"] = torch.arange(300)[None]
    state["logit_scale"] = torch.tensor(2.5)
    for key, shape in (
        ("positional_embedding", (77, 16)),
        ("ln_final.weight", (16,)),
        ("ln_final.bias", (16,)),
        ("mlm_projection", (16, len(WORDS))),
        ("img_special_token", (1, 1, embed_dim)),
        ("fusion_module.resblocks.0.ln_1.weight", (16,)),
    ):
        add(key, *shape)
    checkpoint(place.of(card) / "checkpoint.pt", state)

    def normed(x: Tensor, key: str) -> Tensor:
        mean, var, weight, bias = (state[f"{key}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, var, weight, bias)

    def images(pictures: Sequence[Image.Image]) -> Tensor:
        x = normalised(shortest(SIZE, 3)(pictures))
        for number, stride in ((1, 2), (2, 1), (3, 1)):
            x = F.conv2d(x, state[f"visual.conv{number}.weight"], stride=stride, padding=1)
            x = normed(x, f"visual.bn{number}").relu()
        x = F.avg_pool2d(x, 2)
        for block, stride, downsampled in blocks:
            out = normed(F.conv2d(x, state[f"{block}.conv1.weight"]), f"{block}.bn1").relu()
            out = normed(F.conv2d(out, state[f"{block}.conv2.weight"], padding=1), f"{block}.bn2").relu()
            out = F.avg_pool2d(out, stride) if stride > 1 else out
            out = normed(F.conv2d(out, state[f"{block}.conv3.weight"]), f"{block}.bn3")
            if downsampled:
                x = F.avg_pool2d(x, stride) if stride > 1 else x
                x = normed(F.conv2d(x, state[f"{block}.downsample.0.weight"]), f"{block}.downsample.1")
            x = (out + x).relu()
        pool = {key.removeprefix("visual.attnpool."): y for key, y in state.items() if "attnpool" in key}
        x = x.flatten(2).permute(2, 0, 1)
        x = torch.cat([x.mean(dim=0, keepdim=True), x]) + pool["positional_embedding"][:, None]
        x, _ = F.multi_head_attention_forward(
            query=x,
            key=x,
            value=x,
            embed_dim_to_check=channels,
            num_heads=width * 32 // 64,
            in_proj_weight=None,
            in_proj_bias=torch.cat([pool[f"{part}_proj.bias"] for part in "qkv"]),
            bias_k=None,
            bias_v=None,
            add_zero_attn=False,
            dropout_p=0.0,
            out_proj_weight=pool["c_proj.weight"],
            out_proj_bias=pool["c_proj.bias"],
            use_separate_proj_weight=True,
            training=False,
            need_weights=False,
            **{f"{part}_proj_weight": pool[f"{part}_proj.weight"] for part in "qkv"},
        )
        return unit(x[0])

    def texts(texts: Sequence[str]) -> Tensor:
        ids = tokens(place.of(card, 1), texts, 77, "max_length").input_ids
        return unit(text(input_ids=ids).last_hidden_state[:, 0] @ projection)

    return Written(card, images, texts)


def conch(name: str, place: Place) -> Written:
    """CONCH: conch/open_clip_custom/coca_model.py, vision_tower.py and transformer.py of mahmoodlab/CONCH."""
    from timm.models.vision_transformer import VisionTransformer
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

    embed_dim, width, heads, layers, length = 12, 16, 2, 2, 20
    backend = Backend(models.BPE())
    backend.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()])
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<pad>", "<start_of_text>", "<end_of_text>"]
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    backend.train_from_iterator(TEXTS, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="<start_of_text> $A <end_of_text>", special_tokens=[("<start_of_text>", 1), ("<end_of_text>", 2)]
    )
    vocab_size = backend.get_vocab_size()
    vision = {"image_size": SIZE, "patch_size": 16, "width": 24, "layers": 2, "num_heads": 3, "attn_pooler_heads": 4}
    words = {"context_length": length, "vocab_size": vocab_size, "width": width, "heads": heads, "layers": layers}
    card = narrowed(load_published(name), config={"embed_dim": embed_dim, "vision_cfg": vision, "text_cfg": words})
    place.of(card, 1)
    backend.save(str(place.of(card, 1) / "conch_byte_level_bpe_uncased.json"))

    trunk = random(VisionTransformer(img_size=SIZE, patch_size=16, embed_dim=24, depth=2, num_heads=3, num_classes=0))
    pool = random(
        nn.ModuleDict(
            {
                "attn": nn.MultiheadAttention(embed_dim, 4, kdim=24, vdim=24),
                "ln_q": nn.LayerNorm(embed_dim),
                "ln_k": nn.LayerNorm(24),
                "ln": nn.LayerNorm(embed_dim),
            }
        )
    )
    query, projection = torch.randn(1, embed_dim), torch.randn(embed_dim, embed_dim)
    text = random(
        nn.ModuleDict(
            {
                "token_embedding": nn.Embedding(vocab_size, width),
                "ln_final": nn.LayerNorm(width),
                **{
                    f"block{i}": nn.ModuleDict(
                        {
                            "ln_1": nn.LayerNorm(width),
                            "attn": nn.MultiheadAttention(width, heads),
                            "ln_2": nn.LayerNorm(width),
                            "c_fc": nn.Linear(width, 4 * width),
                            "c_proj": nn.Linear(4 * width, width),
                        }
                    )
                    for i in range(layers)
                },
            }
        )
    )
    positions, cls, text_projection = torch.randn(length, width), torch.randn(width), torch.randn(width, embed_dim)
    state = {f"visual.trunk.{key}": tensor for key, tensor in trunk.state_dict().items()}
    for key, tensor in pool.state_dict().items():
        own = key.replace("ln.", "visual.ln_contrast.") if key.startswith("ln.") else f"visual.attn_pool_contrast.{key}"
        state[own] = tensor
    state |= {"visual.attn_pool_contrast.query": query, "visual.proj_contrast": projection}
    state |= {"visual.attn_pool_caption.query": torch.randn(5, 8), "visual.ln_caption.weight": torch.randn(8)}
    for key, tensor in text.state_dict().items():
        for i in range(layers):
            key = key.replace(f"block{i}.c_", f"block{i}.mlp.c_").replace(f"block{i}.", f"transformer.resblocks.{i}.")
        state[f"text.{key}"] = tensor
    state |= {"text.positional_embedding": positions, "text.cls_emb": cls, "text.text_projection": text_projection}
    state["logit_scale"] = torch.tensor(2.5)
    torch.save(state, place.of(card) / "pytorch_model.bin")

    def images(pictures: Sequence[Image.Image]) -> Tensor:
        x = pool["ln_k"](trunk.forward_features(normalised(shortest(SIZE, 3)(pictures)))).transpose(0, 1)
        q = pool["ln_q"](query)[:, None].repeat(1, x.shape[1], 1)
        return unit(pool["ln"](pool["attn"](q, x, x)[0][0]) @ projection)

    def texts(texts: Sequence[str]) -> Tensor:
        fast = PreTrainedTokenizerFast(
            tokenizer_file=str(place.of(card, 1) / "conch_byte_level_bpe_uncased.json"), pad_token="<pad>"
        )
        ids = fast(
            list(texts), max_length=length - 1, truncation=True, padding="max_length", return_tensors="pt"
        ).input_ids
        x = torch.cat([text["token_embedding"](ids), cls.expand(len(ids), 1, -1)], dim=1) + positions
        mask = torch.full((len(ids), length, length), -torch.inf).triu(1)
        valid = F.pad(ids != 0, (1, 0), value=True)  # moved by one, as its code has it
        mask[:, -1] = mask[:, -1].masked_fill(~valid, -torch.inf)
        mask = mask.repeat_interleave(heads, 0)
        x = x.transpose(0, 1)
        for i in range(layers):
            block: Any = text[f"block{i}"]
            y = block["ln_1"](x)
            x = x + block["attn"](y, y, y, attn_mask=mask)[0]
            x = x + block["c_proj"](F.gelu(block["c_fc"](block["ln_2"](x))))
        return unit(text["ln_final"](x[-1]) @ text_projection)

    return Written(card, images, texts)


WRITERS: dict[str, Callable[[str, Place], Written]] = {
    "biomedclip": with_bert,
    "bmc-clip": of_open_clip,
    "conch": conch,
    "medclip": medclip,
    "medpmc-clip": of_open_clip,
    "medsiglip": of_transformers,
    "mobileclip": of_open_clip,
    "open-pmc-18m": with_bert,
    "pmc-clip": pmc_clip,
    "pubmedclip": of_transformers,
    "quiltnet": of_open_clip,
    "siglip2": of_transformers,
    "unimed-clip": with_bert,
}
"""By the names of the shipped cards."""


@torch.no_grad()
def write(name: str, place: Place) -> Written:
    """Write the files of a published model, with random weights of its own."""
    torch.manual_seed(sum(map(ord, name)))
    return WRITERS[name](name, place)
