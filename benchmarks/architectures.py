"""Architectures for `coverage.py`: how each is built, with random weights, and what it reads.

Names are `timm/...`, `tv/...` (torchvision), `hf/...` (transformers), `net/...` (layers that
those do not use, written here) and `rnn/...` (recurrent ones, `recurrent_architectures.py`).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import recurrent_architectures
import torch
from torch import Tensor, nn
from torch.nn import functional

TIMM = [
    "beit_base_patch16_224",
    "botnet26t_256",
    "caformer_s18",
    "cait_xxs24_224",
    "coatnet_pico_rw_224",
    "convformer_s18",
    "convmixer_768_32",
    "convnext_atto",
    "convnextv2_atto",
    "crossvit_9_240",
    "cs3darknet_s",
    "cspdarknet53",
    "darknet17",
    "davit_tiny",
    "deit3_small_patch16_224",
    "deit_tiny_patch16_224",
    "dpn48b",
    "eca_nfnet_l0",
    "ecaresnet26t",
    "edgenext_xx_small",
    "efficientformerv2_s0",
    "efficientnet_b0",
    "efficientvit_b0",
    "efficientvit_m0",
    "ese_vovnet19b_slim",
    "eva02_tiny_patch14_224",
    "fastvit_t8",
    "fbnetc_100",
    "fbnetv3_b",
    "focalnet_tiny_srf",
    "gernet_s",
    "ghostnet_050",
    "ghostnetv2_100",
    "gmlp_ti16_224",
    "hardcorenas_a",
    "hiera_tiny_224",
    "hrnet_w18_small",
    "inception_next_atto",
    "lcnet_035",
    "legacy_seresnet18",
    "legacy_xception",
    "levit_128s",
    "maxvit_pico_rw_256",
    "mixer_s32_224",
    "mixnet_s",
    "mnasnet_small",
    "mobilenetv2_035",
    "mobilenetv3_small_050",
    "mobilenetv4_conv_small_035",
    "mobilevit_xxs",
    "mobilevitv2_050",
    "nest_tiny",
    "nf_resnet26",
    "pit_ti_224",
    "poolformerv2_s12",
    "pvt_v2_b0",
    "rdnet_tiny",
    "regnetx_002",
    "regnety_002",
    "regnetz_005",
    "repvgg_a0",
    "repvit_m0_9",
    "res2net50_14w_8s",
    "resmlp_12_224",
    "resnest14d",
    "resnet18",
    "resnetv2_18",
    "resnetv2_50x1_bit",
    "resnext26ts",
    "rexnet_100",
    "selecsls42b",
    "semnasnet_050",
    "sequencer2d_s",
    "seresnet18",
    "shvit_s1",
    "skresnet18",
    "spnasnet_100",
    "starnet_s050",
    "swin_tiny_patch4_window7_224",
    "swinv2_cr_tiny_ns_224",
    "swinv2_tiny_window8_256",
    "tf_efficientnet_lite0",
    "tiny_vit_5m_224",
    "tinynet_e",
    "tnt_s_legacy_patch16_224",
    "twins_svt_small",
    "visformer_tiny",
    "vit_tiny_patch16_224",
    "volo_d1_224",
    "xception41",
    "xcit_nano_12_p16_224",
]

TORCHVISION = [
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "googlenet",
    "inception_v3",
    "maxvit_t",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "regnet_x_400mf",
    "regnet_y_400mf",
    "resnet18",
    "resnext50_32x4d",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "swin_t",
    "swin_v2_t",
    "vgg11_bn",
    "vit_b_16",
    "r3d_18",
    "swin3d_t",
]


@dataclass(frozen=True)
class Architecture:
    """A network and what it is exported with.

    Attributes
    ----------
    module : returns the score, [N, classes], in evaluation mode
    inputs : by name, with two samples
    free : the axes of an input that are symbolic besides the batch

    """

    module: nn.Module
    inputs: dict[str, Tensor]
    free: tuple[int, ...] = ()


@dataclass
class Family:
    """Architectures of one library.

    Attributes
    ----------
    names : of all of them
    build : makes one

    """

    names: list[str]
    build: Callable[[str], Architecture]


class Score(nn.Module):
    """Hand a transformer's inputs over by name and return its logits alone."""

    def __init__(self, model: nn.Module, names: tuple[str, ...], pooled: bool = False) -> None:
        super().__init__()
        self.model, self.names, self.pooled = model, names, pooled

    def forward(self, *values: Tensor) -> Tensor:
        """Return [N, classes]."""
        result = self.model(**dict(zip(self.names, values, strict=True)))
        logits: Tensor = result.last_hidden_state.mean(1) if self.pooled else result.logits
        return logits


def _pictures(size: int, *, channels: int = 3) -> dict[str, Tensor]:
    return {"image": torch.randn(2, channels, size, size)}


def _smallest(create: Callable[[int], nn.Module], sides: Iterable[int]) -> Architecture:
    """Return a network of few blocks, at the smallest size of picture that it takes."""
    for side, short in itertools.product(sides, (True, False)):
        try:
            model, inputs = create(side).eval(), _pictures(side)
            if short:
                _shorten(model)
            with torch.no_grad():
                model(*inputs.values())
        # Whatever a network raises over a size that it does not take.
        except Exception as error:
            failure = error
        else:
            return Architecture(model, inputs)
    raise failure


def _shorten(model: nn.Module) -> None:
    """Keep two of the blocks in a row that are written alike."""
    for module in list(model.modules()):
        if not isinstance(module, nn.Sequential | nn.ModuleList):
            continue
        # Blocks may differ in how often training drops them.
        written = [re.sub(r"\b(drop_prob|p)=[^,)]*", "", repr(child)) for child in module]
        keys = list(module._modules)
        for i in reversed(range(2, len(written))):
            if written[i] == written[i - 1] == written[i - 2]:
                if isinstance(module, nn.ModuleList):
                    del module[i]
                else:
                    # What is left keeps its name.
                    del module._modules[keys[i]]


def _timm(name: str) -> Architecture:
    import timm

    def create(side: int) -> nn.Module:
        try:
            model: nn.Module = timm.create_model(name, num_classes=10, img_size=side)
        except TypeError:
            model = timm.create_model(name, num_classes=10)
        return model

    usual: int = timm.get_pretrained_cfg(name).input_size[1]
    return _smallest(create, (*(side for side in (96, 128, 160) if side < usual), usual))


def _torchvision(name: str) -> Architecture:
    import torchvision

    extra = {"aux_logits": False} if name in ("googlenet", "inception_v3") else {}

    def create(side: int) -> nn.Module:
        sized = {"image_size": side} if name.startswith("vit") else {}
        model: nn.Module = torchvision.models.get_model(name, num_classes=10, **extra, **sized)
        return model

    if name in ("r3d_18", "swin3d_t"):
        return Architecture(create(64), {"video": torch.randn(2, 3, 8, 64, 64)})
    # TorchScript exports no adaptive pooling of sizes that do not divide.
    odd = name.startswith(("alexnet", "vgg"))
    return _smallest(create, (224,) if odd else (96, 128, 160, 224))


_TEXT: dict[str, tuple[str, dict[str, Any]]] = {
    "albert": ("Albert", {"embedding_size": 16}),
    "bert": ("Bert", {}),
    "camembert": ("Camembert", {}),
    "deberta": ("Deberta", {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}),
    "deberta_v2": (
        "DebertaV2",
        {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 8},
    ),
    "distilbert": ("DistilBert", {"dim": 32, "n_heads": 2, "hidden_dim": 64, "n_layers": 2}),
    "electra": ("Electra", {"embedding_size": 16}),
    "ernie": ("Ernie", {}),
    "gpt2": ("GPT2", {"n_embd": 32, "n_layer": 2, "n_head": 2}),
    "gpt_neox": ("GPTNeoX", {}),
    "gemma": ("Gemma", {"head_dim": 16, "num_key_value_heads": 1}),
    "llama": ("Llama", {"num_key_value_heads": 1}),
    "mistral": ("Mistral", {"num_key_value_heads": 1}),
    "mobilebert": ("MobileBert", {"embedding_size": 16, "intra_bottleneck_size": 16}),
    "modernbert": ("ModernBert", {}),
    "mpnet": ("MPNet", {}),
    "opt": ("OPT", {"ffn_dim": 64, "word_embed_proj_dim": 32}),
    "phi": ("Phi", {}),
    "qwen2": ("Qwen2", {"num_key_value_heads": 1}),
    "roberta": ("Roberta", {}),
    "roformer": ("RoFormer", {"embedding_size": 32}),
    "squeezebert": ("SqueezeBert", {"embedding_size": 32}),
    "xlm_roberta": ("XLMRoberta", {}),
}

_SMALL = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "num_labels": 5,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "attn_implementation": "eager",
}

_VISION: dict[str, tuple[str, str, dict[str, Any]]] = {
    "beit": ("Beit", "ImageClassification", {"use_relative_position_bias": True}),
    "convnext": ("ConvNext", "ImageClassification", {"hidden_sizes": [8, 16, 24, 32]}),
    "deit": ("DeiT", "ImageClassification", {}),
    "dinov2": ("Dinov2", "ImageClassification", {"patch_size": 16}),
    "mobilevit": ("MobileViT", "ImageClassification", {}),
    "resnet": ("ResNet", "ImageClassification", {"hidden_sizes": [8, 16, 24, 32]}),
    "segformer": ("Segformer", "ImageClassification", {}),
    "swin": ("Swin", "ImageClassification", {"embed_dim": 12, "window_size": 4, "depths": [2, 2],
                                             "num_heads": [2, 2]}),
    "vit": ("ViT", "ImageClassification", {}),
    "vit_msn": ("ViTMSN", "ImageClassification", {}),
}  # fmt: skip


def _transformers(name: str) -> Architecture:
    import transformers

    if name in _TEXT:
        kind, more = _TEXT[name]
        config = getattr(transformers, f"{kind}Config")(**_SMALL | more)
        model = getattr(transformers, f"{kind}ForSequenceClassification")(config)
        ids = torch.randint(3, 99, (2, 12))
        ids[:, -3:] = 0
        inputs = {"input_ids": ids, "attention_mask": (ids != 0).long()}
        return Architecture(Score(model, tuple(inputs)), inputs, free=(1,))
    if name == "t5_encoder":
        config = transformers.T5Config(
            vocab_size=99, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2
        )
        model = transformers.T5EncoderModel(config)
        ids = torch.randint(3, 99, (2, 12))
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        return Architecture(Score(model, tuple(inputs), pooled=True), inputs, free=(1,))
    if name in ("ast", "wav2vec2", "whisper", "hubert"):
        return _audio(name, transformers)
    kind, task, more = _VISION[name]
    side = 64
    small = {"image_size": side, "hidden_size": 32, "num_hidden_layers": 2, "num_labels": 5,
             "num_attention_heads": 2, "intermediate_size": 64, "patch_size": 8,
             "attn_implementation": "eager"}  # fmt: skip
    if kind in ("MobileViT", "Segformer", "ConvNext", "ResNet"):
        small = {"num_labels": 5}
    if kind == "Swin":
        small = {"image_size": side, "num_labels": 5, "patch_size": 4}
    config = getattr(transformers, f"{kind}Config")(**small | more)
    model = getattr(transformers, f"{kind}For{task}")(config)
    inputs = {"pixel_values": torch.randn(2, 3, side, side)}
    return Architecture(Score(model, tuple(inputs)), inputs)


def _audio(name: str, transformers: Any) -> Architecture:
    if name == "ast":
        config = transformers.ASTConfig(**{k: v for k, v in _SMALL.items() if "vocab" not in k},
                                        max_length=64, num_mel_bins=32)  # fmt: skip
        model: nn.Module = transformers.ASTForAudioClassification(config)
        inputs = {"input_values": torch.randn(2, 64, 32)}
        return Architecture(Score(model, tuple(inputs)), inputs)
    if name == "whisper":
        config = transformers.WhisperConfig(
            d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, num_mel_bins=16,
            max_source_positions=32, num_labels=5, classifier_proj_size=16,
            attn_implementation="eager",
        )  # fmt: skip
        model = transformers.WhisperForAudioClassification(config)
        inputs = {"input_features": torch.randn(2, 16, 64)}
        return Architecture(Score(model, tuple(inputs)), inputs)
    kind = {"wav2vec2": "Wav2Vec2", "hubert": "Hubert"}[name]
    config = getattr(transformers, f"{kind}Config")(
        **_SMALL, conv_dim=(16,) * 3, conv_stride=(5, 2, 2), conv_kernel=(10, 3, 2),
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2, classifier_proj_size=16,
    )  # fmt: skip
    model = getattr(transformers, f"{kind}ForSequenceClassification")(config)
    inputs = {"input_values": torch.randn(2, 2000)}
    return Architecture(Score(model, tuple(inputs)), inputs)


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Apply it."""
        return self.function(x)


def _around(*layers: nn.Module, channels: int = 8, after: int = 8) -> nn.Module:
    """Put layers between a convolution and a classifier."""
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1), nn.ReLU(), *layers,
        nn.Conv2d(after, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip


class Attended(nn.Module):
    """torch's own attention and encoder on a signal."""

    def __init__(self, encoder: bool) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.head, self.whole = nn.Linear(16, 5), encoder

    def forward(self, x: Tensor) -> Tensor:
        """Read [N, 10, 6]."""
        x = self.embed(x)
        x = self.encoder(x) if self.whole else x + self.attention(x, x, x, need_weights=False)[0]
        score: Tensor = self.head(x.mean(1))
        return score


class Two(nn.Module):
    """A picture and a row of a table."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.read, self.head = nn.Linear(4, 8), nn.Linear(16, 5)

    def forward(self, image: Tensor, table: Tensor) -> Tensor:
        """Join both."""
        joined = torch.cat([self.seen(image).flatten(1), self.read(table).relu()], 1)
        score: Tensor = self.head(joined)
        return score


class Cosine(nn.Module):
    """Classes by the cosine to a prototype."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.ReLU())
        self.prototypes = nn.Parameter(torch.randn(5, 16))

    def forward(self, x: Tensor) -> Tensor:
        """Compare directions."""
        return 10 * functional.normalize(self.features(x)) @ functional.normalize(self.prototypes).T


class Channels(nn.Module):
    """A weighted sum of features by einsum, and a graph convolution by a fixed matrix."""

    def __init__(self, graph: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 3, 4, 4) / 7)
        self.neighbours = nn.Parameter(torch.rand(16, 16) / 16, requires_grad=False)
        self.mix, self.head, self.graph = nn.Linear(3, 8), nn.Linear(8, 5), graph

    def forward(self, x: Tensor) -> Tensor:
        """Read [N, 3, 4, 4]."""
        if not self.graph:
            return torch.einsum("nchw,kchw->nk", x, self.weight)
        nodes = x.flatten(2).transpose(1, 2)
        score: Tensor = self.head((self.neighbours @ self.mix(nodes)).relu().mean(1))
        return score


class GeM(nn.Module):
    """Generalised mean pooling."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the cubic mean, kept above 0."""
        return functional.adaptive_avg_pool2d(x.clamp(min=1e-6) ** 3.0, 1) ** (1 / 3)


def _nets() -> dict[str, Callable[[], Architecture]]:
    activations = {
        "celu": nn.CELU(), "elu": nn.ELU(), "gelu": nn.GELU(), "hardshrink": nn.Hardshrink(),
        "hardsigmoid": nn.Hardsigmoid(), "hardswish": nn.Hardswish(), "hardtanh": nn.Hardtanh(),
        "leakyrelu": nn.LeakyReLU(), "logsigmoid": nn.LogSigmoid(), "mish": nn.Mish(),
        "prelu": nn.PReLU(8), "relu6": nn.ReLU6(),
        "rrelu": nn.RReLU(), "selu": nn.SELU(), "sigmoid": nn.Sigmoid(), "silu": nn.SiLU(),
        "softplus": nn.Softplus(), "softshrink": nn.Softshrink(), "softsign": nn.Softsign(),
        "tanh": nn.Tanh(), "tanhshrink": nn.Tanhshrink(), "threshold": nn.Threshold(0.1, 0.0),
        "sin": Function(torch.sin), "exp": Function(lambda x: torch.exp(-x * x)),
        "glu": nn.Sequential(nn.Conv2d(8, 16, 1), nn.GLU(1)),
    }  # fmt: skip
    layers: dict[str, nn.Module] = {
        "adaptavg5": nn.AdaptiveAvgPool2d(4), "adaptmax": nn.AdaptiveMaxPool2d(4),
        "avgpool_ceil": nn.AvgPool2d(3, 2, ceil_mode=True),
        "channelshuffle": nn.ChannelShuffle(2), "circularpad": nn.CircularPad2d(1),
        "constpad": nn.ConstantPad2d(1, 0.5), "convtranspose": nn.ConvTranspose2d(8, 8, 2, 2),
        "dropout": nn.Dropout(), "groupnorm": nn.GroupNorm(2, 8),
        "instancenorm": nn.InstanceNorm2d(8, affine=True), "layernorm": nn.LayerNorm([8, 16, 16]),
        "localnorm": nn.LocalResponseNorm(3), "lppool": nn.LPPool2d(2, 2),
        "pixelshuffle": nn.Sequential(nn.Conv2d(8, 32, 1), nn.PixelShuffle(2)),
        "pixelunshuffle": nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(32, 8, 1)),
        "reflectpad": nn.ReflectionPad2d(1), "replicatepad": nn.ReplicationPad2d(1),
        "upsample_bicubic": nn.Upsample(scale_factor=2, mode="bicubic"),
        "upsample_bilinear": nn.Upsample(scale_factor=2, mode="bilinear"),
        "upsample_corners": nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
        "upsample_nearest": nn.Upsample(scale_factor=2), "zeropad": nn.ZeroPad2d(1),
        "maxout": Function(lambda x: torch.max(x[:, ::2], x[:, 1::2]).repeat(1, 2, 1, 1)),
        "roll": Function(lambda x: torch.roll(x, (1, 1), (2, 3))),
        "cumsum": Function(lambda x: torch.cumsum(x, 3)),
        "flip": Function(lambda x: x.flip(3)),
        "clampmin": Function(lambda x: x.clamp(min=0.1)),
        "abs": Function(torch.abs), "square": Function(lambda x: x * x),
        "logsumexp": Function(lambda x: x.logsumexp(1, keepdim=True).expand(-1, 8, -1, -1)),
        "norm": Function(lambda x: x / x.norm(dim=1, keepdim=True).clamp(min=1e-6)),
        "std": Function(lambda x: (x - x.mean((2, 3), True)) / (x.std((2, 3), keepdim=True) + 1)),
        "unfold": Function(lambda x: functional.unfold(x, 3).view(-1, 72, 14, 14)[:, :8]),
    }  # fmt: skip
    signal = nn.Sequential(
        nn.Conv1d(2, 8, 5), nn.ReLU(), nn.BatchNorm1d(8), nn.MaxPool1d(2), nn.Conv1d(8, 8, 3),
        nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip
    volume = nn.Sequential(
        nn.Conv3d(1, 8, 3), nn.BatchNorm3d(8), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(8, 8, 3),
        nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip
    dense = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 32), nn.Tanh(),
                          nn.Linear(32, 5))  # fmt: skip
    gem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), GeM(), nn.Flatten(), nn.Linear(8, 5))
    log = nn.Sequential(
        nn.Conv1d(3, 16, 1), nn.ReLU(), Function(lambda x: x.max(2).values), nn.Linear(16, 5),
        nn.LogSoftmax(1),
    )  # fmt: skip
    topk = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), Function(lambda x: x.flatten(2).topk(4, 2).values.mean(2)),
        nn.Linear(8, 5),
    )  # fmt: skip
    row = torch.randn(2, 3, 16, 16)
    result: dict[str, Callable[[], Architecture]] = {
        "conv1d": lambda: Architecture(signal, {"signal": torch.randn(2, 2, 64)}),
        "conv3d": lambda: Architecture(volume, {"volume": torch.randn(2, 1, 12, 12, 12)}),
        "mlp": lambda: Architecture(dense, {"row": torch.randn(2, 12)}),
        "gem_pool": lambda: Architecture(gem, {"image": row}),
        "pointnet_logsoftmax": lambda: Architecture(log, {"points": torch.randn(2, 3, 20)}),
        "topk_pool": lambda: Architecture(topk, {"image": row}),
        "mha": lambda: Architecture(Attended(False), {"signal": torch.randn(2, 10, 6)}),
        "transformer_encoder": lambda: Architecture(
            Attended(True), {"signal": torch.randn(2, 10, 6)}
        ),
        "image_and_table": lambda: Architecture(Two(), {"image": row, "table": torch.randn(2, 4)}),
        "cosine_head": lambda: Architecture(Cosine(), {"image": torch.randn(2, 3, 4, 4)}),
        "einsum_head": lambda: Architecture(Channels(False), {"image": torch.randn(2, 3, 4, 4)}),
        "gcn_dense": lambda: Architecture(Channels(True), {"image": torch.randn(2, 3, 4, 4)}),
    }
    for kind, found in (("act", activations), ("layer", layers)):
        for name, module in found.items():
            result[f"{kind}_{name}"] = lambda module=module: Architecture(
                _around(module), {"image": row}
            )
    return result


def _net(name: str) -> Architecture:
    return _nets()[name]()


FAMILIES = {
    "net": Family(sorted(_nets()), _net),
    "rnn": Family(
        recurrent_architectures.NAMES,
        lambda name: Architecture(*recurrent_architectures.build(name)),
    ),
    "hf": Family(
        sorted([*_TEXT, *_VISION, "t5_encoder", "ast", "wav2vec2", "whisper", "hubert"]),
        _transformers,
    ),
    "tv": Family(TORCHVISION, _torchvision),
    "timm": Family(TIMM, _timm),
}


def build(name: str) -> Architecture:
    """Build `library/name`, weights drawn from a fixed seed, statistics made sane."""
    torch.manual_seed(0)
    library, _, kind = name.partition("/")
    made = FAMILIES[library].build(kind)
    settle(made.module, *made.inputs.values())
    return made


def settle(module: nn.Module, *inputs: Tensor) -> None:
    """Make sane what random weights leave insane, and put a network in evaluation mode.

    BatchNorm statistics are taken from random inputs, layer scales and zero-initialised branches
    are drawn anew: of a branch that is multiplied by 0 or 1e-6 nothing would be tried.
    """
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.numel() > 1 and bool((parameter.abs() <= 1e-4).all()):
                parameter.normal_(0, 0.1)
        module.train()
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.momentum = None
                part.reset_running_stats()
            elif isinstance(part, nn.Dropout):
                part.eval()
        if any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules()):
            module(*inputs)
        module.eval()
