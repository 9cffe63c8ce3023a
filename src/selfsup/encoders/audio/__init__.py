"""Audio encoders: a recurrent network or a transformer over samples, and image encoders over spectrograms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from selfsup.encoders.image import build as build_image
from selfsup.errors import UserError
from selfsup.spec import ImageSpec, WaveSpec

OWN = {"conv-gru": "wave", "audio-cnn": "logmel", "wav2vec2-small": "wave"}  # the form that each takes


def build(name: str, spec: WaveSpec, pretrained: bool) -> Any:
    """Return `conv-gru`, `wav2vec2-small` or a model of transformers (OWNER/NAME, or a folder), which take samples.

    Or `audio-cnn` or an image encoder, which take spectrograms.
    """
    from selfsup.encoders.audio.audio_cnn import AudioCNN
    from selfsup.encoders.audio.conv_gru import ConvGRU
    from selfsup.encoders.audio.on_spectrogram import OnSpectrogram
    from selfsup.encoders.audio.wave_transformer import PRESETS, WaveTransformer

    named = name not in OWN and ("/" in name or Path(name).is_dir())
    form = "wave" if named else OWN.get(name, "logmel")
    if spec.form != form:
        raise UserError(f"{name} takes recordings as {form}: give --form {form}, or another --encoder")
    if named or name in PRESETS:
        return WaveTransformer(name, spec, pretrained)
    if name in OWN:
        if pretrained:
            raise UserError(f"{name} has no pretrained weights")
        return ConvGRU(spec) if name == "conv-gru" else AudioCNN(spec)
    return OnSpectrogram(build_image(name, ImageSpec.of(spec.mels, 1), pretrained), name, spec)
