"""Floor 4: the ``twinprobe`` command. Modules here import torch and the like only inside the functions that need them."""
