"""One thread: these tensors are small, and threads that wait for each other take long."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, and for subprocesses

import torch

torch.set_num_threads(1)
