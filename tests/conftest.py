"""One thread, so that tests that run side by side do not fight over cores and every sum has one order."""

import torch

torch.set_num_threads(1)
