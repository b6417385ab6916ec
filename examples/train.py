"""Train a video model on the lists of make_training_lists.py: torch and torchvision only.

    python make_training_lists.py clips_256 lists --input_csv kinetics-400_train kinetics-400_val \
        --format csv
    torchrun --nproc_per_node 8 examples/train.py lists clips_256 --model r3d_18
    python examples/train.py lists clips_256 --model tiny --epochs 2     # one process, CPU

Run the same command again after a stop: it resumes in the middle of the epoch.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader, Sampler

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # or: pip install -e .

from clipreader.transforms import CentreCrop, Compose, Flip, Normalise, RandomResizedCrop
from load_frames import ClipDataset

RANK, RANKS = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


class ResumableSampler(Sampler):
    """This rank's clips of an epoch in their random order, from a given place on."""

    def __init__(self, count: int, rank: int, ranks: int, seed: int) -> None:
        self.count, self.rank, self.ranks, self.seed = count, rank, ranks, seed
        self.epoch = self.done = 0

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.count, generator=generator).tolist()
        order += order[: -self.count % self.ranks]  # every rank has as many
        return iter(order[self.rank :: self.ranks][self.done :])

    def __len__(self) -> int:
        return -(-self.count // self.ranks) - self.done


def make_model(name: str, classes: int) -> nn.Module:
    if name == "tiny":
        layers = [nn.Conv3d(3, 16, 3, (1, 2, 2)), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten()]
        return nn.Sequential(*layers, nn.Linear(16, classes))
    import torchvision

    return getattr(torchvision.models.video, name)(num_classes=classes)


def class_weights(data: ClipDataset) -> torch.Tensor:
    """Rare classes count more: by the root of how often each occurs, 1 on the average."""
    counts = torch.bincount(
        torch.tensor([s.label for s in data.samples]), minlength=len(data.labels)
    )
    weights = counts.clamp(min=1).float().rsqrt() * (counts > 0)
    return weights * (counts > 0).sum() / weights.sum()


@torch.no_grad()
def top_1(model: nn.Module, data: ClipDataset, args: argparse.Namespace, device: str) -> float:
    """The part of the clips whose class has the highest mean probability over the views."""
    model.eval()
    mine = torch.utils.data.Subset(data, range(RANK, len(data), RANKS))
    right = torch.zeros(2, device=device)
    for views, labels in DataLoader(mine, args.batch, num_workers=args.workers):
        batch, count = views.shape[:2]
        scores = model(views.flatten(0, 1).to(device)).softmax(1).view(batch, count, -1).mean(1)
        right += torch.tensor([(scores.argmax(1).cpu() == labels).sum(), batch], device=device)
    if RANKS > 1:
        dist.all_reduce(right)
    return (right[0] / right[1].clamp(min=1)).item()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("lists", type=Path, help="folder of train.csv, val.csv and classes.json")
    parser.add_argument("clips", type=Path, help="folder of the clips")
    parser.add_argument("--model", default="r3d_18", help="tiny, or one of torchvision's")
    for name, value in (
        ("epochs", 10),
        ("batch", 8),
        ("workers", 4),
        ("frames", 16),
        ("size", 112),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--save", type=Path, default=Path("checkpoint.pt"))
    parser.add_argument("--save_every", type=int, default=500, help="steps between two saves")
    parser.add_argument("--stop_after", type=int, default=0, help="steps; 0: do not stop early")
    args = parser.parse_args(argv)

    torch.manual_seed(0)  # of the model's first weights
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    if RANKS > 1:
        dist.init_process_group("nccl" if device == "cuda" else "gloo")

    shared = {"folder": args.clips, "frames": args.frames, "stride": 2, "unlabelled": False}
    shared |= {"classes": args.lists / "classes.json", "on_error": "next"}
    random = Compose(RandomResizedCrop(args.size), Flip(), Normalise())
    middle = Compose(CentreCrop(args.size), Normalise())
    train = ClipDataset(args.lists / "train.csv", transform=random, **shared)
    val = ClipDataset(
        args.lists / "val.csv",
        transform=middle,
        chunk="views",
        views=10,
        short_side=args.size,
        **shared,
    )

    model = make_model(args.model, len(train.labels)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), args.lr, momentum=0.9, weight_decay=1e-4)
    sampler = ResumableSampler(len(train), RANK, RANKS, seed=0)
    epoch = steps = 0
    if args.save.exists():
        saved = torch.load(args.save, map_location=device, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        epoch, sampler.done, steps = saved["epoch"], saved["done"], saved["steps"]
    run = nn.parallel.DistributedDataParallel(model) if RANKS > 1 else model
    loss_of = nn.CrossEntropyLoss(weight=class_weights(train).to(device))

    def save() -> None:
        if RANK == 0:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            part = args.save.with_suffix(".part")
            torch.save(state | {"epoch": epoch, "done": sampler.done, "steps": steps}, part)
            part.replace(args.save)

    # A loader of its own per epoch: it asks the sampler, which may begin in the middle, once.
    while epoch < args.epochs:
        train.set_epoch(epoch)
        sampler.epoch = epoch
        run.train()
        for clips, labels in DataLoader(
            train, args.batch, sampler=sampler, num_workers=args.workers
        ):
            loss = loss_of(run(clips.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps, sampler.done = steps + 1, sampler.done + len(labels)
            if steps % args.save_every == 0:
                save()
            if steps == args.stop_after:
                save()
                return
        epoch, sampler.done = epoch + 1, 0
        save()
        accuracy = top_1(model, val, args, device)
        if RANK == 0:
            print(
                f"epoch {epoch} step {steps} loss {loss.item():.3f} top-1 {accuracy:.1%}",
                flush=True,
            )
    if RANKS > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
