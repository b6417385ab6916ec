"""The table of formats: a new one is a row here, and a function of a `Job`.

Read by make_training_lists.py for --format; what each row's reader does is in docs/training.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from utils.training.ava_lists import ava
from utils.training.job import Job
from utils.training.shards import webdataset
from utils.training.text_lists import csv_with_header, json_lists, mmaction2, path_label
from utils.training.trees import huggingface, torchvision


@dataclass(frozen=True)
class Format:
    """How a framework's files are written.

    spaces: its reader splits at white space. labelled: every clip needs a label. absolute: paths
    are absolute unless --path_prefix is given. start: the first line of a training command, with
    {out}, {prefix}, {name} and {classes}.
    """

    write: Callable[[Job], list[Path]]
    start: str
    spaces: bool = False
    labelled: bool = True
    absolute: bool = False


FORMATS: dict[str, Format] = {
    "slowfast": Format(
        path_label,
        "python tools/run_net.py --cfg configs/Kinetics/SLOWFAST_8x8_R50.yaml DATA.PATH_TO_DATA_DIR"
        " {out} DATA.PATH_PREFIX {prefix} MODEL.NUM_CLASSES {classes}",
        spaces=True,
    ),
    "mmaction2": Format(
        mmaction2,
        "python tools/train.py CONFIG --cfg-options"
        " train_dataloader.dataset.ann_file={out}/{name}_train_list_{kind}.txt"
        " train_dataloader.dataset.data_prefix.{key}={prefix}"
        " model.cls_head.num_classes={classes}",
        spaces=True,
    ),
    "videomae": Format(
        path_label,
        "python run_class_finetuning.py --data_set Kinetics-400 --data_path {out}"
        " --nb_classes {classes}",
        spaces=True,
        absolute=True,
    ),
    "jepa": Format(
        path_label,
        "python -m app.main --fname CONFIG.yaml   # with data: datasets: [{out}/train.csv]",
        spaces=True,
        absolute=True,
    ),
    "torchvision": Format(
        torchvision,
        'python -c "from torchvision.datasets import Kinetics;'
        " Kinetics('{out}', frames_per_clip=16, split='train')\"",
    ),
    "huggingface": Format(
        huggingface,
        'python -c "from datasets import load_dataset;'
        " load_dataset('videofolder', data_dir='{out}')\"",
        labelled=False,
    ),
    "webdataset": Format(
        webdataset,
        'python -c "import webdataset; webdataset.WebDataset'
        "('{out}/train-{{000000..LAST}}.tar', shardshuffle=100)\"",
        labelled=False,
    ),
    "ava": Format(
        ava,
        "python tools/run_net.py --cfg configs/AVA/SLOWFAST_32x2_R50_SHORT.yaml"
        " AVA.FRAME_LIST_DIR {out}/frame_lists AVA.FRAME_DIR {prefix} AVA.ANNOTATION_DIR {out}",
        spaces=True,
        labelled=False,
    ),
    "csv": Format(csv_with_header, "", labelled=False),
    "json": Format(json_lists, "", labelled=False),
}
