"""A SLURM of one node that runs in a folder, and what tests of clusters compare."""

import getpass
import os
import platform
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CONF = """ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/none
CredType=cred/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=1
SlurmdParameters=config_overrides
KillWait=30
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=64000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
"""Who says which user it is gets believed, so that no munge has to run; processes are followed without cgroups."""


@contextmanager
def slurm(folder: Path) -> Iterator[None]:
    """Run a SLURM of one node with two CPUs while the block runs; skips the test, with a reason, where it cannot."""
    os.environ["PATH"] += ":/usr/sbin"
    for program in ("slurmctld", "slurmd", "sbatch"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed: apt-get install slurmctld slurmd slurm-client")
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    for name in ("state", "spool"):
        (folder / name).mkdir()
    conf = folder / "slurm.conf"
    host = platform.node().partition(".")[0]
    conf.write_text(CONF.format(folder=folder, user=getpass.getuser(), host=host, ports=ports))
    os.environ["SLURM_CONF"] = str(conf)
    daemons = []
    try:
        for name in ("slurmctld", "slurmd"):
            with (folder / f"{name}.log").open("w") as log:
                daemons.append(subprocess.Popen([name, "-D", "-f", str(conf)], stdout=log, stderr=log))
        end = time.monotonic() + 20
        while "idle" not in subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True).stdout:
            if time.monotonic() > end or any(daemon.poll() is not None for daemon in daemons):
                lines = [(folder / f"{name}.log").read_text().splitlines()[-1:] for name in ("slurmctld", "slurmd")]
                pytest.skip(f"SLURM does not run here: {lines}")
            time.sleep(0.1)
        yield
    finally:
        subprocess.run(["scancel", "--signal=KILL", f"--user={getpass.getuser()}"], capture_output=True)
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait()
        del os.environ["SLURM_CONF"]
