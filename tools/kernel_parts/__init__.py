"""The parts of tools/kernels.py: packages, archives, machines, the guest's side, outcomes."""
