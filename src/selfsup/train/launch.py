"""The processes of a run, as Lightning Fabric asks for them."""

from __future__ import annotations

import os

from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

from selfsup.base.ranks import Launched


class Processes(ClusterEnvironment):
    """Tells Fabric which processes there are, whatever variables it would look for itself."""

    def __init__(self, here: Launched) -> None:
        super().__init__()
        self.here = here

    creates_processes_externally = True

    @property
    def main_address(self) -> str:
        """Return the machine of the first process: torchrun's, or the first one of Slurm's list."""
        listed = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_NODELIST") or "127.0.0.1"
        return os.environ.get("MASTER_ADDR") or SLURMEnvironment.resolve_root_node_address(listed)

    @property
    def main_port(self) -> int:
        """Return the port of the first process: torchrun's, or one that follows from the number of the Slurm job."""
        return int(os.environ.get("MASTER_PORT") or 15000 + int(os.environ.get("SLURM_JOB_ID") or 0) % 10000)

    @staticmethod
    def detect() -> bool:
        """Return False: it is always given."""
        return False

    def world_size(self) -> int:
        """Return the number of processes."""
        return self.here.world

    def global_rank(self) -> int:
        """Return the place of this process."""
        return self.here.rank

    def local_rank(self) -> int:
        """Return the place of this process on its machine."""
        return self.here.local_rank

    def node_rank(self) -> int:
        """Return the place of this machine."""
        return self.here.rank // self.here.local_world

    def set_world_size(self, size: int) -> None:
        """Do nothing: the launcher has decided."""

    def set_global_rank(self, rank: int) -> None:
        """Do nothing: the launcher has decided."""
