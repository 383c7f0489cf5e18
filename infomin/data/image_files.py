"""Image files of any number, size and kind, read when needed with constant memory.

Threads decode files a few batches ahead. PIL releases the GIL while it decodes and scales, so
threads read as many images a second as processes would; processes of a DataLoader would need shared
memory, and each worker of a sweep would start its own.
"""

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import TypeAlias

import torch
from torch import Tensor

from ..common.seeds import to_device
from .image_io import Bytes, Unreadable, read_square

PREFETCHED = 2  # batches
_reported: set[str] = set()  # unreadable files that this process has warned about

# Images still being read, and a job for each, which returns the row that it read.
Reading: TypeAlias = tuple[Tensor, list[Future[int]]]


class ImageFiles:
    """Image files used like a tensor `[N, 3, size, size]`: indexing reads the rows it selects.

    An unreadable file is replaced by the next readable one, with one warning per process; `take`
    says which row was read instead. An image is thus a function of its row, and a resumed run sees
    the same images.

    Args:
        paths: the files.
        size: side of the images in pixels.
        device: where images are put.
    """

    def __init__(self, paths: Sequence[str], size: int, device: torch.device | str = "cpu") -> None:
        self.paths = paths
        self.size = size
        self.device = torch.device(device)
        self._unreadable: dict[int, str] = {}  # row -> why
        # Each worker of a sweep has its own share of the cores.
        self._pool = ThreadPoolExecutor(torch.get_num_threads())

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        return self.take(torch.arange(len(self))[index])[0]

    def to(self, device: torch.device | str) -> "ImageFiles":
        """The same files, with their images put on a device."""
        return ImageFiles(self.paths, self.size, device)

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Read the images of rows.

        Args:
            rows: long `[B]`.

        Returns:
            images uint8 `[B, 3, size, size]`, and the rows that they show, long `[B]`, which differ
            from `rows` where a file is unreadable; both on the device.

        Raises:
            ValueError: no file at all is readable.
        """
        return self._finish(self._start(rows))

    def first_readable(self, rows: Tensor, n: int) -> Tensor:
        """The first `n` of some rows whose files can be read, or all of them if there are fewer.

        The files are read, and warned about as in `take`.

        Args:
            rows: long `[M]` on the CPU.
            n: how many.
        """
        found, tried = rows[:0], 0
        while len(found) < n and tried < len(rows):
            some = rows[tried : tried + min(n - len(found), 256)]  # 256 images in memory
            shown = self.take(some)[1].cpu()
            found, tried = torch.cat([found, some[shown == some]]), tried + len(some)
        return found

    def stream(
        self, rows: Callable[[int], Tensor], steps: int
    ) -> Callable[[int], tuple[Tensor, Tensor]]:
        """A function step -> what `take` returns for its rows; later steps are prefetched.

        Args:
            rows: step -> long `[B]`.
            steps: number of steps; nothing beyond the last is prefetched.
        """
        readings: dict[int, Reading] = {}

        def read_step(step: int) -> tuple[Tensor, Tensor]:
            window = range(step, max(step + 1, min(step + 1 + PREFETCHED, steps)))
            for stale in readings.keys() - set(window):  # the caller jumped to another step
                for job in readings.pop(stale)[1]:
                    job.cancel()
            for upcoming in window:
                if upcoming not in readings:
                    readings[upcoming] = self._start(rows(upcoming))
            return self._finish(readings.pop(step))

        return read_step

    def _start(self, rows: Tensor) -> Reading:
        images = torch.empty(
            (len(rows), 3, self.size, self.size),
            dtype=torch.uint8,
            device="cpu",
            pin_memory=self.device.type == "cuda",  # so that the copy to the GPU is asynchronous
        )
        pairs = zip(images.numpy(), rows.tolist(), strict=True)
        return images, [self._pool.submit(self._read_into, image, row) for image, row in pairs]

    def _finish(self, reading: Reading) -> tuple[Tensor, Tensor]:
        images, jobs = reading
        shown = torch.tensor([job.result() for job in jobs], dtype=torch.long)
        # Warn here: a warning in another thread can get lost.
        for row, reason in list(self._unreadable.items()):
            path = self.paths[row]
            if path not in _reported:
                _reported.add(path)
                message = (
                    f"{path}: cannot be read ({reason}); training shows the next readable image, "
                    "the probe none"
                )
                warnings.warn(message, stacklevel=2)
        return to_device(images, self.device), to_device(shown, self.device)

    def _read_into(self, image: Bytes, row: int) -> int:
        """Read a row, or else the next readable one, into `image`; return the row that was read."""
        for candidate in chain(range(row, len(self)), range(row)):
            if candidate in self._unreadable:
                continue
            try:
                image[:] = read_square(self.paths[candidate], self.size)
                return candidate
            except Unreadable as error:
                self._unreadable[candidate] = str(error)
        raise ValueError(
            f"{self.paths[row]}: none of the {len(self)} files can be read, need at least one"
        )
