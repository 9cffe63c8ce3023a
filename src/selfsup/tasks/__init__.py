"""The registry of all tasks by name: a literal, so that it can be read and searched without importing anything."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

from selfsup.errors import UserError, unknown

if TYPE_CHECKING:
    from selfsup.task import Task

TASKS: dict[str, str] = {
    "arrow_of_time": "selfsup.tasks.video.arrow_of_time:ArrowOfTime",
    "barlow": "selfsup.tasks.image.barlow:Barlow",
    "bert": "selfsup.tasks.text.bert:Bert",
    "bigan": "selfsup.tasks.image.bigan:BiGAN",
    "byol": "selfsup.tasks.image.byol:BYOL",
    "byola": "selfsup.tasks.audio.byola:BYOLA",
    "cc_rig": "selfsup.tasks.control.cc_rig:CCRIG",
    "colorization": "selfsup.tasks.image.colorization:Colorization",
    "combined": "selfsup.tasks.image.combined:Combined",
    "context_encoder": "selfsup.tasks.image.context_encoder:ContextEncoder",
    "counting": "selfsup.tasks.image.counting:Counting",
    "cpc": "selfsup.tasks.image.cpc:CPC",
    "cpc_audio": "selfsup.tasks.audio.cpc_audio:CPCAudio",
    "curl": "selfsup.tasks.control.curl:CURL",
    "data2vec": "selfsup.tasks.image.data2vec:Data2Vec",
    "data2vec_audio": "selfsup.tasks.audio.data2vec_audio:Data2VecAudio",
    "dbc": "selfsup.tasks.control.dbc:DBC",
    "declutr": "selfsup.tasks.text.declutr:DeCLUTR",
    "deepcluster": "selfsup.tasks.image.deepcluster:DeepCluster",
    "deepmdp": "selfsup.tasks.control.deepmdp:DeepMDP",
    "denoising": "selfsup.tasks.image.denoising:Denoising",
    "denseclr": "selfsup.tasks.image.denseclr:DenseCLR",
    "diet": "selfsup.tasks.image.diet:DIET",
    "dino": "selfsup.tasks.image.dino:DINO",
    "dinov2": "selfsup.tasks.image.dinov2:DINOv2",
    "distill": "selfsup.tasks.image.distill:Distill",
    "empssl": "selfsup.tasks.image.empssl:EMPSSL",
    "exemplar": "selfsup.tasks.image.exemplar:Exemplar",
    "grasp2vec": "selfsup.tasks.control.grasp2vec:Grasp2Vec",
    "hubert": "selfsup.tasks.audio.hubert:HuBERT",
    "ibot": "selfsup.tasks.image.ibot:IBOT",
    "ijepa": "selfsup.tasks.image.ijepa:IJEPA",
    "instance": "selfsup.tasks.image.instance:Instance",
    "inverse": "selfsup.tasks.control.inverse:Inverse",
    "jigsaw": "selfsup.tasks.image.jigsaw:Jigsaw",
    "lejepa": "selfsup.tasks.image.lejepa:LeJEPA",
    "mae": "selfsup.tasks.image.mae:MAE",
    "metadata": "selfsup.tasks.image.metadata:Metadata",
    "mftcn": "selfsup.tasks.control.mftcn:MFTCN",
    "moco": "selfsup.tasks.image.moco:MoCo",
    "mocov3": "selfsup.tasks.image.mocov3:MoCoV3",
    "next_word": "selfsup.tasks.text.next_word:NextWord",
    "nnclr": "selfsup.tasks.image.nnclr:NNCLR",
    "odd_one_out": "selfsup.tasks.video.odd_one_out:OddOneOut",
    "relative_position": "selfsup.tasks.image.relative_position:RelativePosition",
    "rig": "selfsup.tasks.control.rig:RIG",
    "rotation": "selfsup.tasks.image.rotation:Rotation",
    "s4l": "selfsup.tasks.semi.s4l:S4L",
    "shuffle_learn": "selfsup.tasks.video.shuffle_learn:ShuffleLearn",
    "simclr": "selfsup.tasks.image.simclr:SimCLR",
    "simcse": "selfsup.tasks.text.simcse:SimCSE",
    "simmim": "selfsup.tasks.image.simmim:SimMIM",
    "simsiam": "selfsup.tasks.image.simsiam:SimSiam",
    "speed": "selfsup.tasks.audio.speed:Speed",
    "split_brain": "selfsup.tasks.image.split_brain:SplitBrain",
    "stdim": "selfsup.tasks.control.stdim:STDIM",
    "supervised": "selfsup.tasks.semi.supervised:Supervised",
    "swav": "selfsup.tasks.image.swav:SwAV",
    "tcn": "selfsup.tasks.control.tcn:TCN",
    "tcn_single": "selfsup.tasks.control.tcn_single:TCNSingle",
    "tracking": "selfsup.tasks.video.tracking:Tracking",
    "vae": "selfsup.tasks.image.vae:VAE",
    "vicreg": "selfsup.tasks.image.vicreg:VICReg",
    "video_colorization": "selfsup.tasks.video.video_colorization:VideoColorization",
    "videomae": "selfsup.tasks.video.videomae:VideoMAE",
    "visreg": "selfsup.tasks.image.visreg:VISReg",
    "vjepa": "selfsup.tasks.video.vjepa:VJEPA",
    "wav2vec2": "selfsup.tasks.audio.wav2vec2:Wav2Vec2",
}


def find_task(name: str) -> type[Task]:
    """Return the class of a task by its name in the registry, or by `module:Class` for one of your own.

    Raises `UserError` for any other name, with the nearest known one.
    """
    if name not in TASKS and ":" not in name:
        raise unknown("task", name, TASKS)
    module, _, attribute = TASKS.get(name, name).partition(":")
    if name not in TASKS and "" not in sys.path:
        sys.path.insert(0, "")  # your own task is in the current folder
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise UserError(f"cannot load the task {name!r}: {error}") from error
    from selfsup.task import Task

    if not (isinstance(found, type) and issubclass(found, Task)):
        raise UserError(f"cannot load the task {name!r}: it is not a subclass of selfsup.task.Task")
    return found
